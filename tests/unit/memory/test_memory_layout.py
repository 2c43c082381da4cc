"""The address map: RAM around its holes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.memory import layout
from hibana.memory.layout import RamRegion, ram_regions
from hibana.units import GIB, KIB, MIB

SIZES = st.integers(1, 1022 * GIB)


@pytest.mark.parametrize(
    ("size", "regions"),
    [
        (128 * MIB, [(0, 128 * MIB)]),
        (3 * GIB, [(0, 3 * GIB)]),
        (3 * GIB + 1, [(0, 3 * GIB), (4 * GIB, 1)]),
        (4 * GIB + 32 * KIB, [(0, 3 * GIB), (4 * GIB, GIB + 32 * KIB)]),
        (256 * GIB, [(0, 3 * GIB), (4 * GIB, 252 * GIB), (512 * GIB, GIB)]),
    ],
)
def test_ram_goes_on_above_each_hole(size: int, regions: list[tuple[int, int]]) -> None:
    assert [(region.start, region.size) for region in ram_regions(size)] == regions


@given(size=SIZES)
def test_regions_hold_all_ram_in_the_order_of_the_reservation(size: int) -> None:
    offset = 0
    for region in ram_regions(size):
        assert region.offset == offset
        offset += region.size
    assert offset == size


@given(size=SIZES)
def test_no_ram_lies_in_a_hole(size: int) -> None:
    holes = [(layout.MMIO32_START, layout.MMIO32_SIZE), (layout.MMIO64_START, layout.MMIO64_SIZE)]
    for region in ram_regions(size):
        assert all(region.end <= start or start + length <= region.start for start, length in holes)


def test_the_end_of_a_region_is_the_first_address_after_it() -> None:
    assert RamRegion(4 * GIB, MIB, 3 * GIB).end == 4 * GIB + MIB


def test_devices_end_where_the_ecam_window_begins() -> None:
    assert layout.MMIO32_DEVICES_START + layout.MMIO32_DEVICES_SIZE == layout.PCI_MMCONFIG_START
    assert layout.SYSTEM_START + layout.SYSTEM_SIZE == layout.RSDP
