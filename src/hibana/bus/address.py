"""From an address to a device: one address space, used for ports and for MMIO alike."""

from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple, Protocol

from hibana.errors import BusOverlap, BusZeroRange


class Device(Protocol):
    """What lives behind an address; offsets count from the base of its range.

    An access starts inside the range but may run past its end, and may have any size the CPU knows (1, 2, 4 or 8
    bytes): a device answers all of them, and never raises because of what a guest does.
    """

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class Range(NamedTuple):
    """The addresses [base, end) and the two methods of the device that owns them."""

    base: int
    end: int
    read: Callable[[int, int], int]
    write: Callable[[int, int, int], None]


class AddressSpace:
    """Ranges that do not overlap; an access belongs to the one that contains its first byte.

    Pages which one range covers completely are remembered when first used, so that finding a device usually costs one
    look-up in a dictionary. Ports come in pages of one, for MMIO a page is 4 KiB. Only pages with a device are
    remembered: a guest that tries every address cannot make the dictionary grow.
    """

    def __init__(self, page_bits: int) -> None:
        """Make an empty space with pages of 2 ** `page_bits` addresses."""
        self.pages: dict[int, Range] = {}
        """Page number → range. The bus looks here itself before it calls `find`."""
        self._page_bits = page_bits
        self._bases: list[int] = []
        self._ranges: list[Range] = []

    def insert(self, base: int, size: int, device: Device) -> None:
        """Give [base, base + size) to a device. Raises BusOverlap or BusZeroRange."""
        if size <= 0:
            raise BusZeroRange
        end = base + size
        at = bisect_right(self._bases, base)
        overlaps_before = at > 0 and self._ranges[at - 1].end > base
        overlaps_after = at < len(self._ranges) and self._ranges[at].base < end
        if overlaps_before or overlaps_after:
            raise BusOverlap
        self._bases.insert(at, base)
        self._ranges.insert(at, Range(base, end, device.read, device.write))

    def find(self, addr: int) -> Range | None:
        """Find the range that contains `addr`: the one with the greatest base not above it, if it reaches that far."""
        at = bisect_right(self._bases, addr)
        if at == 0:
            return None
        found = self._ranges[at - 1]
        if addr >= found.end:
            return None
        page = addr >> self._page_bits
        if found.base <= page << self._page_bits and (page + 1) << self._page_bits <= found.end:
            self.pages[page] = found
        return found
