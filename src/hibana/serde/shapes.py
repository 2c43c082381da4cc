"""What a field of a record may be, beyond Python's own types: the wire's number types, paths, checked strings.

`Annotated[int, Integer(...)]` is an `int` to the type checker and to msgspec; the decoder in `records.py` reads the
annotation. Ranges that the *machine* demands (1 to 32 vCPUs) do not belong here: they have sentences of their own.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

from msgspec import Struct


class Integer(NamedTuple):
    """A number type of the wire, by the name that complaints use."""

    name: str
    low: int
    high: int


class Wording(NamedTuple):
    """A plain string that complaints call something else."""

    expected: str


class Converted(NamedTuple):
    """A string that becomes something else; `convert` raises ValueError with the complaint.

    The complaint is placed behind the object around the string; behind the string itself where the reference reads it
    as a type of its own, whose name is then `expected`.
    """

    convert: Callable[[str], object]
    expected: str = ""


class Untagged(NamedTuple):
    """The first alternative that fits; when none does, the complaint has only this name."""

    name: str


class Tagged(NamedTuple):
    """One of several words, some of which come with a value: `"allow"`, `{"errno": 1}`; read as word or (word, value).

    `variants` are words, each with the type of its value or None.
    """

    variants: tuple[tuple[str, Any], ...]


U8: TypeAlias = Annotated[int, Integer("u8", 0, (1 << 8) - 1)]
U16: TypeAlias = Annotated[int, Integer("u16", 0, (1 << 16) - 1)]
U32: TypeAlias = Annotated[int, Integer("u32", 0, (1 << 32) - 1)]
U64: TypeAlias = Annotated[int, Integer("u64", 0, (1 << 64) - 1)]
Usize: TypeAlias = Annotated[int, Integer("usize", 0, (1 << 64) - 1)]
Path: TypeAlias = Annotated[str, Wording("path string")]

TEXT: Final = Wording("a string")


class Loose(Struct):
    """A record that ignores keys it does not know."""


class Strict(Struct, forbid_unknown_fields=True):
    """A record that refuses keys it does not know."""
