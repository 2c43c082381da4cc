"""Named windows on bytes that live elsewhere: the body of a class is the datasheet.

A `View` copies and serialises nothing; reading or writing a field goes to the bytes at once. It costs about 200 ns a
field, so it is for cold paths: boot structures, images' headers.
"""

from struct import Struct
from typing import ClassVar, overload


class View:
    """A record laid over a buffer; subclasses declare its fields in the order of the specification."""

    SIZE: ClassVar[int]

    def __init__(self, buf: bytes | bytearray | memoryview) -> None:
        self.buf = buf


class Field:
    """One little-endian unsigned integer of a `View`."""

    __slots__ = ("_at", "_code")

    def __init__(self, at: int, code: str) -> None:
        self._at = at
        self._code = Struct(code)

    @overload
    def __get__(self, view: None, owner: type[View]) -> "Field": ...
    @overload
    def __get__(self, view: View, owner: type[View]) -> int: ...
    def __get__(self, view: View | None, owner: type[View]) -> "Field | int":
        if view is None:
            return self
        value: int = self._code.unpack_from(view.buf, self._at)[0]
        return value

    def __set__(self, view: View, value: int) -> None:
        self._code.pack_into(view.buf, self._at, value)


def u8(at: int) -> Field:
    """Declare a byte at an offset."""
    return Field(at, "<B")


def u16(at: int) -> Field:
    """Declare a 16-bit field at an offset."""
    return Field(at, "<H")


def u32(at: int) -> Field:
    """Declare a 32-bit field at an offset."""
    return Field(at, "<I")


def u64(at: int) -> Field:
    """Declare a 64-bit field at an offset."""
    return Field(at, "<Q")
