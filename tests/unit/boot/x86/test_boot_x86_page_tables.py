"""The boot page tables, walked as a CPU walks them."""

from hypothesis import given
from hypothesis import strategies as st

from hibana.boot.x86.page_tables import write_page_tables
from hibana.memory.guest import GuestMemory
from hibana.units import GIB, MIB

MEMORY = GuestMemory(2 * MIB)
write_page_tables(MEMORY)


def entry(table: int, index: int) -> int:
    return int.from_bytes(MEMORY.read(table + 8 * index, 8), "little")


def test_the_tables_hold_the_reference_words() -> None:
    assert MEMORY.read(0x9000, 4096) == (0xA003).to_bytes(4096, "little")
    assert MEMORY.read(0xA000, 4096) == (0xB003).to_bytes(4096, "little")
    assert [entry(0xB000, i) for i in (0, 1, 511)] == [0x83, 0x200083, 0x3FE00083]


@given(addr=st.integers(0, GIB - 1))
def test_every_address_of_the_first_gib_maps_to_itself(addr: int) -> None:
    pointers = entry(0x9000, addr >> 39)
    directory = entry(pointers & ~0xFFF, addr >> 30)
    page = entry(directory & ~0xFFF, addr >> 21)
    assert pointers & directory & page & 3 == 3  # present, writable
    assert (page & ~0x1FFFFF) + (addr & 0x1FFFFF) == addr
