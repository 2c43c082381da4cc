"""The MP table, read as a kernel reads it."""

import struct

import pytest

from hibana.boot.x86.mptable import write_mptable
from hibana.memory.allocator import Pools
from hibana.memory.guest import GuestMemory
from hibana.units import MIB

SIZES = {0: 20, 1: 8, 2: 8, 3: 8, 4: 8}


def table(cpu_count: int) -> bytes:
    memory = GuestMemory(2 * MIB)
    system = Pools().system
    write_mptable(memory, system, cpu_count)
    size = system.lowest(1) - 0x9FC00
    return memory.read(0x9FC00, size)


def entries(cpu_count: int) -> list[bytes]:
    rest = table(cpu_count)[60:]
    found: list[bytes] = []
    while rest:
        size = SIZES[rest[0]]
        found.append(rest[:size])
        rest = rest[size:]
    return found


@pytest.mark.parametrize("cpu_count", [1, 2, 32])
def test_the_table_is_as_long_as_it_says_and_sums_to_zero(cpu_count: int) -> None:
    whole = table(cpu_count)
    assert len(whole) == 284 + 20 * cpu_count
    assert sum(whole[:16]) % 256 == 0
    assert sum(whole[16:]) % 256 == 0
    size, entry_count = struct.unpack_from("<H", whole, 20)[0], struct.unpack_from("<H", whole, 16 + 34)[0]
    assert (size, entry_count) == (len(whole) - 16, 29 + cpu_count)


def test_the_pointer_leads_to_the_header() -> None:
    whole = table(1)
    assert whole[:10] == b"_MP_" + struct.pack("<IBB", 0x9FC10, 1, 4)
    assert whole[11:16] == bytes(5)
    assert whole[16:20] == b"PCMP"
    assert whole[22] == 4
    assert whole[24:44] == b"FC      000000000000"
    assert whole[44:50] == bytes(6)
    assert whole[52:60] == struct.pack("<II", 0xFEE00000, 0)


def test_processors_come_first_and_the_first_boots() -> None:
    processors = entries(3)[:3]
    for index, processor in enumerate(processors):
        flags = 3 if index == 0 else 1
        assert processor == struct.pack("<BBBBIIQ", 0, index, 0x14, flags, 0x600, 0x201, 0)


def test_every_isa_interrupt_has_its_pin() -> None:
    others = entries(2)[2:]
    assert others[0] == b"\1\0ISA   "
    assert others[1] == struct.pack("<BBBBI", 2, 3, 0x14, 1, 0xFEC00000)
    assert others[2:26] == [struct.pack("<BBHBBBB", 3, 0, 0, 0, gsi, 3, gsi) for gsi in range(24)]
    assert others[26:] == [bytes([4, 3, 0, 0, 0, 0, 0, 0]), bytes([4, 1, 0, 0, 0, 0, 0xFF, 1])]
