"""PVH start info, module list and memory map."""

import struct

from hibana.boot.initrd import Initrd
from hibana.boot.x86.memory_map import MapEntry, MapType
from hibana.boot.x86.pvh import write_start_info
from hibana.memory.guest import GuestMemory
from hibana.units import MIB

MAP = [MapEntry(0, 0x9FC00, MapType.RAM), MapEntry(0xEEC00000, 0x10000000, MapType.RESERVED)]


def test_without_an_initrd_there_are_no_modules() -> None:
    memory = GuestMemory(2 * MIB)
    write_start_info(memory, MAP, None)
    expected = struct.pack("<IIIIQQQQII", 0x336EC578, 1, 0, 0, 0, 0x20000, 0, 0x7000, 2, 0)
    assert memory.read(0x6000, 0x40 + 32) == expected.ljust(0x40 + 32, b"\0")
    assert memory.read(0x7000, 49) == struct.pack("<QQIIQQII", 0, 0x9FC00, 1, 0, 0xEEC00000, 0x10000000, 2, 0) + b"\0"


def test_the_initrd_is_the_one_module() -> None:
    memory = GuestMemory(2 * MIB)
    write_start_info(memory, MAP, Initrd(0x100000, 0x1234))
    assert memory.read(0x600C, 12) == struct.pack("<IQ", 1, 0x6040)
    assert memory.read(0x6040, 32) == struct.pack("<QQQQ", 0x100000, 0x1234, 0, 0)
