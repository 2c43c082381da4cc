"""CPU templates: what the guest's CPUID leaves and MSRs shall look like (api.md §3.14).

Numbers come as strings with a prefix (`0x`, `0b`), bitmaps as one character per bit (`x`: keep). They are read here,
so what leaves is numbers.
"""

from collections.abc import Callable
from typing import Annotated, Final, NamedTuple

from msgspec import field

from hibana.serde.shapes import U32, Converted, Loose, Strict

_BASES: Final = {"0x": 16, "0b": 2}
_DIGITS: Final = "0123456789abcdef"
_REGISTERS: Final = ("eax", "ebx", "ecx", "edx")


class RegisterValueFilter(NamedTuple):
    """The bits to change (`filter`) and what they become (`value`)."""

    filter: int
    value: int

    def apply(self, register: int) -> int:
        """Change a register's value."""
        return register & ~self.filter | self.value


class _ParseIntError(Exception):
    """What Rust finds wrong with a number, by its name."""

    _SENTENCES: Final = {
        "Empty": "cannot parse integer from empty string",
        "InvalidDigit": "invalid digit found in string",
        "PosOverflow": "number too large to fit in target type",
    }

    @property
    def sentence(self) -> str:
        """The same for people."""
        return self._SENTENCES[str(self)]


def _unsigned(text: str, base: int, bits: int) -> int:
    """Read an unsigned number as Rust does: a plus sign is fine, underscores and spaces are not."""
    if not text:
        raise _ParseIntError("Empty")
    digits = text.removeprefix("+")
    if not digits or not set(digits.lower()) <= set(_DIGITS[:base]):
        raise _ParseIntError("InvalidDigit")
    digits = digits.lstrip("0")
    if len(digits) > bits or int(digits or "0", base) >> bits:
        raise _ParseIntError("PosOverflow")
    return int(digits or "0", base)


def number(bits: int) -> Callable[[str], int]:
    """Make a reader of prefixed numbers of so many bits."""

    def read(text: str) -> int:
        base = _BASES.get(text[:2])
        if base is None:
            raise ValueError(
                f"No supported number system prefix found in value [{text}]. Make sure to prefix the number with '0x'"
                " for hexadecimal numbers or '0b' for binary numbers."
            )
        try:
            return _unsigned(text[2:], base, bits)
        except _ParseIntError as error:
            raise ValueError(
                f"Failed to parse string [{text}] as a number for CPU template - ParseIntError {{ kind: {error} }}"
            ) from None

    return read


def bitmap(bits: int) -> Callable[[str], RegisterValueFilter]:
    """Make a reader of bitmaps of at most so many bits, right-aligned."""

    def read(text: str) -> RegisterValueFilter:
        marks = text.removeprefix("0b").replace("_", "").encode()
        for mark in reversed(marks[-bits:]):  # as the reference: from bit 0 up
            if mark not in b"01x":
                raise ValueError(f"Failed to parse string [{text}] as a bitmap - unknown character: {mark}")
        if len(marks) > bits:
            raise ValueError(f"Failed to parse string [{text}] as a bitmap - string is too long")
        chosen = marks.translate(bytes.maketrans(b"01x", b"110"))
        ones = marks.translate(bytes.maketrans(b"x", b"0"))
        return RegisterValueFilter(int(chosen or b"0", 2), int(ones or b"0", 2))

    return read


class KvmCapability(NamedTuple):
    """A capability to check for although nobody asked, or not to check for."""

    number: int
    added: bool


def kvm_capability(text: str) -> KvmCapability:
    """Read `171` (add) or `!171` (remove)."""
    try:
        return KvmCapability(_unsigned(text.removeprefix("!"), 10, 32), not text.startswith("!"))
    except _ParseIntError as error:
        raise ValueError(
            f"Failed to parse string [{text}] as a kvm capability - can not convert to numeric: {error.sentence}"
        ) from None


def cpuid_register(text: str) -> str:
    """Check the name of a register that CPUID returns."""
    if text not in _REGISTERS:
        raise ValueError("Invalid CPUID register. Must be one of [eax, ebx, ecx, edx]")
    return text


class CpuidRegisterModifier(Loose):
    register: Annotated[str, Converted(cpuid_register)]
    bitmap: Annotated[RegisterValueFilter, Converted(bitmap(32))]


class CpuidLeafModifier(Loose):
    leaf: Annotated[int, Converted(number(32))]
    subleaf: Annotated[int, Converted(number(32))]
    flags: U32
    modifiers: list[CpuidRegisterModifier]


class MsrModifier(Loose):
    addr: Annotated[int, Converted(number(32))]
    bitmap: Annotated[RegisterValueFilter, Converted(bitmap(64))]


class CustomCpuTemplate(Strict):
    kvm_capabilities: list[Annotated[KvmCapability, Converted(kvm_capability)]] = field(default_factory=list)
    cpuid_modifiers: list[CpuidLeafModifier] = field(default_factory=list)
    msr_modifiers: list[MsrModifier] = field(default_factory=list)
