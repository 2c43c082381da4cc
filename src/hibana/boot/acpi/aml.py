"""AML, the language of ACPI objects (ACPI 6.5 §20): each function encodes one thing, objects nest by calls.

The bytes are part of what a guest sees and must not change; machine.md §5.5 has the encoding chosen where AML leaves
a choice: an integer has its declared width, only sizes take the smallest.
"""

from struct import pack
from typing import Final

ZERO: Final = b"\x00"
ONE: Final = b"\x01"


# --- integers and strings (§20.2.3) -----------------------------------------------------------------------------------


def byte(value: int) -> bytes:
    """Encode a ByteConst."""
    return pack("<BB", 0x0A, value)


def word(value: int) -> bytes:
    """Encode a WordConst."""
    return pack("<BH", 0x0B, value)


def dword(value: int) -> bytes:
    """Encode a DWordConst."""
    return pack("<BI", 0x0C, value)


def string(text: str) -> bytes:
    """Encode an ASCII string."""
    return b"\x0d" + text.encode("ascii") + b"\0"


def eisa_id(text: str) -> bytes:
    """Encode an EISA id such as PNP0501: three letters of five bits, four hexadecimal digits (§19.3.4)."""
    letters = [ord(letter) - 0x40 for letter in text[:3]]
    number = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(text[3:], 16)
    return b"\x0c" + pack(">I", number)


# --- named objects (§20.2.5) ------------------------------------------------------------------------------------------


def path(text: str) -> bytes:
    r"""Encode a name such as `_HID`, `_SB_.COM1` or `\_SB_.VGEN` (§20.2.2)."""
    root = b"\\" if text.startswith("\\") else b""
    segments = text.lstrip("\\").split(".")
    prefix = {1: b"", 2: b"\x2e"}.get(len(segments), pack("<BB", 0x2F, len(segments)))
    return root + prefix + "".join(segments).encode("ascii")


def name(text: str, value: bytes) -> bytes:
    """Define a name with a value."""
    return b"\x08" + path(text) + value


def device(text: str, *body: bytes) -> bytes:
    """Define a device and what belongs to it."""
    return b"\x5b\x82" + _sized(path(text) + b"".join(body))


def method(text: str, argument_count: int, *body: bytes, serialized: bool = False) -> bytes:
    """Define a control method."""
    flags = argument_count | serialized << 3
    return b"\x14" + _sized(path(text) + bytes([flags]) + b"".join(body))


# --- inside methods (§20.2.5.3, §20.2.5.4) ----------------------------------------------------------------------------


def arg(number: int) -> bytes:
    """Name an argument of the method."""
    return bytes([0x68 + number])


def return_(value: bytes) -> bytes:
    """Leave the method with a value."""
    return b"\xa4" + value


def if_(condition: bytes, *body: bytes) -> bytes:
    """Do something when a condition holds."""
    return b"\xa0" + _sized(condition + b"".join(body))


def equal(left: bytes, right: bytes) -> bytes:
    """Compare two integers."""
    return b"\x93" + left + right


def notify(text: str, value: bytes) -> bytes:
    """Tell the driver of a device that something happened to it."""
    return b"\x86" + path(text) + value


# --- collections (§20.2.5.4) ------------------------------------------------------------------------------------------


def package(*elements: bytes) -> bytes:
    """Make a list of values."""
    return b"\x12" + _sized(bytes([len(elements)]) + b"".join(elements))


def buffer(content: bytes) -> bytes:
    """Make a value of raw bytes."""
    return b"\x11" + _sized(_smallest(len(content)) + content)


# --- resources (§6.4) -------------------------------------------------------------------------------------------------


def resources(*descriptors: bytes) -> bytes:
    """List what a device occupies, the value of its _CRS."""
    return buffer(b"".join(descriptors) + b"\x79\x00")


def interrupt(gsi: int) -> bytes:
    """Describe an interrupt line as this machine has them: consumed, edge-triggered, active high, not shared."""
    return pack("<BHBBI", 0x89, 6, 0b0011, 1, gsi)


def io_ports(port: int, count: int) -> bytes:
    """Describe a fixed range of ports."""
    return pack("<BBHHBB", 0x47, 1, port, port, 1, count)


def fixed_memory(addr: int, size: int) -> bytes:
    """Describe a fixed, writable range of addresses below 4 GiB."""
    return pack("<BHBII", 0x86, 9, 1, addr, size)


def cacheable_memory(addr: int, size: int) -> bytes:
    """Describe a range of addresses that is ordinary memory, to be read only (a QWord address space)."""
    fixed_range, cacheable = 0b1100, 0b0010
    return pack("<BHBBBQQQQQ", 0x8A, 0x2B, 0, fixed_range, cacheable, 0, addr, addr + size - 1, 0, size)


# --- sizes (§20.2.4) --------------------------------------------------------------------------------------------------


def _smallest(value: int) -> bytes:
    if value < 2:
        return (ZERO, ONE)[value]
    if value < 1 << 8:
        return byte(value)
    return word(value) if value < 1 << 16 else dword(value)


def _sized(content: bytes) -> bytes:
    """Put the PkgLength in front, which counts its own bytes: six bits alone, or four and up to three bytes."""
    for extra, limit in enumerate((1 << 6, 1 << 12, 1 << 20, 1 << 28)):
        length = len(content) + 1 + extra
        if length < limit:
            break
    if extra == 0:
        return bytes([length]) + content
    return bytes([extra << 6 | length & 0xF]) + (length >> 4).to_bytes(extra, "little") + content
