"""Descriptors in memory and in segment registers."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.boot.entry import BootProtocol
from hibana.boot.x86.gdt import segment, write_descriptor_tables
from hibana.engine.state import Segment
from hibana.memory.guest import GuestMemory
from hibana.units import MIB


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        (BootProtocol.LINUX_64, (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x008F8B000000FFFF)),
        (BootProtocol.PVH, (0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00008B0000000067)),
    ],
)
def test_the_gdt_has_four_entries_and_the_idt_one_without_content(
    protocol: BootProtocol, words: tuple[int, ...]
) -> None:
    memory = GuestMemory(2 * MIB)
    memory.write(0x500, b"\xff" * 0x30)
    write_descriptor_tables(memory, protocol)
    assert memory.read(0x500, 0x29) == struct.pack("<4QQ", *words, 0) + b"\xff"


def test_a_flat_code_segment_reaches_to_4_gib() -> None:
    assert segment(0x00AF9B000000FFFF, 8) == Segment(0, 0xFFFFFFFF, 8, type=0xB, s=1, dpl=0, present=1, l=1, db=0, g=1)


def test_a_limit_in_bytes_stays_one() -> None:
    assert segment(0x00008B0000000067, 0x18) == Segment(0, 0x67, 0x18, type=0xB, s=0, present=1, db=0, g=0)


@given(
    base=st.integers(0, 0xFFFFFFFF),
    limit=st.integers(0, 0xFFFFF),
    access=st.integers(0, 0xFF),
    flags=st.integers(0, 15),
)
def test_the_scattered_fields_of_a_descriptor_come_together(base: int, limit: int, access: int, flags: int) -> None:
    high = base >> 24 << 24 | flags << 20 | limit >> 16 << 16 | access << 8 | base >> 16 & 0xFF
    loaded = segment(high << 32 | (base & 0xFFFF) << 16 | limit & 0xFFFF, 0x10)
    assert loaded.base == base
    assert loaded.limit == (limit * 4096 + 4095 if flags & 8 else limit)
    assert loaded.type | loaded.s << 4 | loaded.dpl << 5 | loaded.present << 7 == access
    assert loaded.avl | loaded.l << 1 | loaded.db << 2 | loaded.g << 3 == flags
    assert loaded.unusable == 0
