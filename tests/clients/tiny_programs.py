"""Programs of a few instructions, as static ELF executables for x86_64: they need no file but their own."""

from struct import pack
from typing import Final

_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56


def program(code: bytes) -> bytes:
    """Build an executable that consists of one segment."""
    size = _HEADERS + len(code)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000) + code


SHOW_ARGUMENTS: Final = program(
    bytes.fromhex(
        "48 8b 74 24 08"  # mov rsi, [rsp + 8]: argv[0], behind which all strings of the command line lie
        "ba 00 10 00 00"  # mov edx, 4096: as far as there is memory
        "bf 01 00 00 00 b8 01 00 00 00 0f 05"  # write(1, rsi, edx)
        "bf 07 00 00 00 b8 3c 00 00 00 0f 05"  # exit(7)
    )
)
