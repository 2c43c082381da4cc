"""Guests of a few instructions, as ELF kernels: they say something on the serial port, and end or stay.

They are entered like Linux: in 64-bit mode with interrupts off, memory mapped to itself, and no interrupt table, so
that any exception is a triple fault.
"""

from typing import Final

from tests.unit.boot.images import ENTRY, Load, elf, pvh_note

_SERIAL_IN_DX: Final = bytes.fromhex("66 ba f8 03")  # mov dx, 0x3f8


def say(text: str) -> bytes:
    """Print a text."""
    return _SERIAL_IN_DX + b"".join(bytes((0xB0, byte, 0xEE)) for byte in text.encode())  # mov al, byte; out dx, al


RESET: Final = bytes.fromhex(
    "b0 fe"  # mov al, 0xfe
    "e6 64"  # out 0x64, al
    "f4 eb fd"  # hlt, for ever
)
HALT: Final = bytes.fromhex("f4 eb fd")  # hlt, for ever
SPIN: Final = bytes.fromhex("eb fe")  # jmp to itself
TRIPLE_FAULT: Final = bytes.fromhex("0f 0b")  # ud2
JUMP_TO_NOWHERE: Final = bytes.fromhex("b8 00 00 00 d0 ff e0")  # mov eax, 0xd0000000; jmp eax, in 32-bit mode
TICK: Final = bytes.fromhex(
    "66 ba f8 03"  # mov dx, 0x3f8
    "b0 2e ee"  # mov al, '.'; out dx, al
    "b9 00 00 10 00"  # mov ecx, 0x100000
    "e2 fe"  # loop to itself
    "eb f4"  # back to mov al
)
ECHO: Final = bytes.fromhex(
    "66 ba fd 03"  # mov dx, 0x3fd: the line status
    "ec a8 01 74 fb"  # in al, dx; until bit 0: a byte has been received
    "66 ba f8 03 ec"  # mov dx, 0x3f8; in al, dx
    "3c 71 74 03"  # cmp al, 'q'; je to the reset
    "ee eb eb"  # out dx, al; back to the beginning
    "b0 fe e6 64 f4"  # reset
)
WAIT_FOR_KEYS: Final = bytes.fromhex("e4 64 a8 01 74 fa")  # in al, 0x64; until bit 0: a key has been pressed
REPORT_BOOT: Final = bytes.fromhex("c6 05 00 00 00 c0 7b")  # mov byte [0xc0000000], 123, in 32-bit mode


def kernel(code: bytes) -> bytes:
    """Build a kernel that is entered in 64-bit mode."""
    return elf(Load(ENTRY, code))


def pvh_kernel(code: bytes) -> bytes:
    """Build a kernel that is entered in 32-bit mode without paging."""
    return elf(Load(ENTRY, code), notes=pvh_note(ENTRY))
