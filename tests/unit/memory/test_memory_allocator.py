"""Allocators: deterministic places, no overlaps, a clear end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibana.errors import ResourceNotAvailable
from hibana.memory.allocator import Pools, RangeAllocator


def test_a_default_boot_gets_the_reference_addresses() -> None:
    pools = Pools()
    assert pools.system.highest(16, 8) == 0xDFFF0  # VMGenID
    assert pools.system.highest(4096, 4096) == 0xDE000  # VMClock
    assert pools.system.lowest(304) == 0x9FC00  # MP table
    assert pools.system.lowest(174) == 0x9FD30  # DSDT
    assert [pools.mmio32.lowest(0x1000, 0x1000) for _ in range(3)] == [0xC0001000, 0xC0002000, 0xC0003000]


def test_nineteen_interrupt_lines_are_free() -> None:
    gsi = Pools().gsi
    assert [gsi.lowest(1) for _ in range(19)] == list(range(5, 24))
    with pytest.raises(ResourceNotAvailable, match=r"^The requested resource is not available\.$"):
        gsi.lowest(1)


def test_a_gap_left_by_alignment_is_used_later() -> None:
    pool = RangeAllocator(0x1001, 0x2FFF)
    assert pool.lowest(0x1000, 0x1000) == 0x2000
    assert pool.lowest(0xFFF) == 0x1001
    assert pool.lowest(0x1000) == 0x3000
    with pytest.raises(ResourceNotAvailable):
        pool.lowest(1)


def test_the_highest_range_that_is_too_small_is_passed_over() -> None:
    pool = RangeAllocator(0, 0x3000)
    assert pool.highest(0x1000, 0x2000) == 0x2000
    assert pool.highest(0x800, 0x1000) == 0x1000
    assert pool.highest(0x1000) == 0
    assert pool.highest(0x800) == 0x1800


def test_a_whole_pool_can_be_taken_at_once() -> None:
    assert RangeAllocator(5, 19).highest(19) == 5
    with pytest.raises(ResourceNotAvailable):
        RangeAllocator(5, 19).highest(20)


@given(
    start=st.integers(0, 300),
    size=st.integers(1, 300),
    wanted=st.lists(st.tuples(st.booleans(), st.integers(1, 60), st.integers(0, 6)), max_size=20),
)
@settings(deadline=None)
def test_allocations_are_aligned_inside_the_pool_and_disjoint(
    start: int, size: int, wanted: list[tuple[bool, int, int]]
) -> None:
    pool = RangeAllocator(start, size)
    free = set(range(start, start + size))
    for from_top, length, order in wanted:
        places = [
            at for at in range(start, start + size) if at % (1 << order) == 0 and free >= set(range(at, at + length))
        ]
        if not places:
            with pytest.raises(ResourceNotAvailable):
                (pool.highest if from_top else pool.lowest)(length, 1 << order)
            continue
        at = (pool.highest if from_top else pool.lowest)(length, 1 << order)
        assert at == (places[-1] if from_top else places[0])
        free -= set(range(at, at + length))
