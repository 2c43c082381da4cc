"""The zero page, byte by byte: what is written, and that nothing else is."""

import struct

from hibana.boot.initrd import Initrd
from hibana.boot.x86.memory_map import MapEntry, MapType
from hibana.boot.x86.zero_page import write_zero_page
from hibana.memory.guest import GuestMemory
from hibana.units import MIB

MAP = [MapEntry(0, 0x9FC00, MapType.RAM), MapEntry(0xEEC00000, 0x10000000, MapType.RESERVED)]
E820 = struct.pack("<QQIQQI", 0, 0x9FC00, 1, 0xEEC00000, 0x10000000, 2)


def zero_page(setup_header: bytes, initrd: Initrd | None) -> bytearray:
    memory = GuestMemory(2 * MIB)
    memory.write(0x7000, b"\xff" * 4096)
    write_zero_page(memory, MAP, setup_header, 11, initrd)
    return bytearray(memory.read(0x7000, 4096))


def page_of(fields: dict[int, bytes]) -> bytearray:
    page = bytearray(4096)
    for at, value in fields.items():
        page[at : at + len(value)] = value
    return page


FIXED = {
    0x070: struct.pack("<Q", 0xE0000),
    0x1E8: b"\2",
    0x1FE: b"\x55\xaa",
    0x202: b"HdrS",
    0x210: b"\xff",
    0x228: struct.pack("<I", 0x20000),
    0x238: struct.pack("<I", 11),
    0x2D0: E820,
}


def test_an_elf_kernel_gets_a_setup_header_of_the_vmm() -> None:
    assert zero_page(b"", None) == page_of(FIXED | {0x230: struct.pack("<I", 0x1000000)})


def test_an_initrd_is_announced() -> None:
    page = zero_page(b"", Initrd(0x7000000, 0x1234))
    assert page[0x218:0x220] == struct.pack("<II", 0x7000000, 0x1234)


def test_a_bzimages_header_stays_but_for_what_a_boot_loader_fills_in() -> None:
    header = bytes(range(1, 0x7C))
    page = page_of({0x1F1: header})
    for at, value in FIXED.items():
        page[at : at + len(value)] = value
    assert zero_page(header, None) == page
