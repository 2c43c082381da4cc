"""Sizes and alignment, named once."""

from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
PAGE: Final = 4096
HUGE_PAGE: Final = 2 * MIB


def align_up(value: int, alignment: int) -> int:
    """Round up to a multiple of a power of two."""
    return (value + alignment - 1) & -alignment


def align_down(value: int, alignment: int) -> int:
    """Round down to a multiple of a power of two."""
    return value & -alignment


def is_power_of_two(value: int) -> bool:
    """Tell whether exactly one bit is set."""
    return value > 0 and value & (value - 1) == 0
