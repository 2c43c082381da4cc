"""Ranges are put into a space and looked for, with a linear search as the judge."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibana.bus.address import AddressSpace
from hibana.errors import BusOverlap, BusZeroRange


class Named:
    """A device that can be told from others by its answers."""

    def __init__(self, name: int = 0) -> None:
        self.name = name

    def read(self, offset: int, size: int) -> int:
        return self.name

    def write(self, offset: int, size: int, value: int) -> None:
        raise AssertionError("nobody writes in these tests")


class Placed(NamedTuple):
    base: int
    size: int
    name: int


def owner(space: AddressSpace, addr: int) -> int | None:
    """Ask the space twice, the second time with the page remembered, and through the dictionary as the bus does."""
    first, second = space.find(addr), space.find(addr)
    assert first is second
    if first is None:
        return None
    assert first.base <= addr < first.end
    return first.read(0, 1)


def test_an_access_belongs_to_the_range_that_contains_its_first_byte() -> None:
    space = AddressSpace(page_bits=0)
    space.insert(0x3F8, 8, Named(1))
    space.insert(0x60, 5, Named(2))
    assert [owner(space, addr) for addr in (0x5F, 0x60, 0x64, 0x65, 0x3F7, 0x3F8, 0x3FF, 0x400)] == [
        None, 2, 2, None, None, 1, 1, None,
    ]  # fmt: skip


def test_neighbours_may_touch() -> None:
    space = AddressSpace(page_bits=12)
    space.insert(0x1000, 0x1000, Named(1))
    space.insert(0x2000, 0x1000, Named(2))
    assert (owner(space, 0x1FFF), owner(space, 0x2000)) == (1, 2)


@pytest.mark.parametrize(
    ("base", "size"),
    [(100, 10), (95, 6), (109, 1), (90, 30), (104, 2), (99, 11)],
    ids=["same", "head", "last byte", "around", "inside", "one byte before"],
)
def test_overlapping_ranges_are_refused_and_leave_the_space_as_it_was(base: int, size: int) -> None:
    space = AddressSpace(page_bits=0)
    space.insert(100, 10, Named(1))
    with pytest.raises(BusOverlap, match="overlapped with an old device"):
        space.insert(base, size, Named(2))
    assert [owner(space, addr) for addr in (95, 99, 100, 109, 110)] == [None, None, 1, 1, None]


@pytest.mark.parametrize("size", [0, -4])
def test_a_range_has_at_least_one_address(size: int) -> None:
    with pytest.raises(BusZeroRange, match="zero sized range"):
        AddressSpace(page_bits=0).insert(0x60, size, Named())


def test_a_page_with_two_devices_is_never_remembered_as_one() -> None:
    space = AddressSpace(page_bits=12)
    space.insert(0x1000, 0x800, Named(1))
    space.insert(0x1800, 0x800, Named(2))
    assert [owner(space, addr) for addr in (0x1000, 0x1800, 0x17FF, 0x1FFF)] == [1, 2, 1, 2]
    assert space.pages == {}


def test_a_guest_that_tries_every_address_does_not_make_the_space_grow() -> None:
    space = AddressSpace(page_bits=0)
    space.insert(0x3F8, 8, Named())
    for port in range(0x10000):
        space.find(port)
    assert sorted(space.pages) == list(range(0x3F8, 0x400))


ranges = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), max_size=12)


@settings(deadline=None)
@given(ranges=ranges, page_bits=st.integers(0, 5), addrs=st.lists(st.integers(0, 400)))
def test_it_finds_what_a_linear_search_finds(ranges: list[tuple[int, int]], page_bits: int, addrs: list[int]) -> None:
    space = AddressSpace(page_bits)
    accepted: list[Placed] = []
    for name, (base, size) in enumerate(ranges):
        fits = all(base + size <= other.base or other.base + other.size <= base for other in accepted)
        try:
            space.insert(base, size, Named(name))
            assert fits
            accepted.append(Placed(base, size, name))
        except BusOverlap:
            assert not fits
        for addr in addrs:
            expected = [p.name for p in accepted if p.base <= addr < p.base + p.size]
            assert owner(space, addr) == (expected[0] if expected else None)
            remembered = space.pages.get(addr >> page_bits)
            assert remembered is None or remembered is space.find(addr)
