"""e820: which addresses a kernel may use."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.boot.x86.memory_map import MapEntry, MapType, memory_map
from hibana.memory.layout import ram_regions
from hibana.units import GIB, MIB

LOW = [
    MapEntry(0, 0x9FC00, MapType.RAM),
    MapEntry(0x9FC00, 0x40400, MapType.RESERVED),
    MapEntry(0xEEC00000, 0x10000000, MapType.RESERVED),
]


@pytest.mark.parametrize(
    ("size", "ram"),
    [
        (128 * MIB, [(MIB, 127 * MIB)]),
        (3 * GIB, [(MIB, 3 * GIB - MIB)]),
        (4 * GIB, [(MIB, 3 * GIB - MIB), (4 * GIB, GIB)]),
        (600 * GIB, [(MIB, 3 * GIB - MIB), (4 * GIB, 252 * GIB), (512 * GIB, 345 * GIB)]),
    ],
)
def test_ram_is_listed_after_what_firmware_keeps(size: int, ram: list[tuple[int, int]]) -> None:
    assert memory_map(ram_regions(size)) == LOW + [MapEntry(addr, length, MapType.RAM) for addr, length in ram]


@given(size_mib=st.integers(2, 700 * 1024))
def test_entries_never_overlap_and_hold_all_ram_but_the_bios_hole(size_mib: int) -> None:
    entries = sorted(memory_map(ram_regions(size_mib * MIB)))
    assert all(low.addr + low.size <= high.addr for low, high in pairwise(entries))
    ram = sum(entry.size for entry in entries if entry.type is MapType.RAM)
    assert ram == size_mib * MIB - (MIB - 0x9FC00)
