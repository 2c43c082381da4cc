"""What the address map leaves free: ranges of addresses and interrupt lines, handed out in a fixed order.

The order is visible to the guest (a device's address stands on its command line and in its ACPI tables) and must be
the same after a restore, so the two policies are the reference's: the lowest or the highest place that fits.
"""

from hibana.errors import ResourceNotAvailable
from hibana.memory import layout
from hibana.units import align_down, align_up


class RangeAllocator:
    """Free ranges of one pool of numbers [start, start + size)."""

    def __init__(self, start: int, size: int) -> None:
        self._free = [(start, start + size)]
        """Free ranges (start, end), ascending, never touching each other."""

    def lowest(self, size: int, alignment: int = 1) -> int:
        """Take `size` numbers from the lowest free range that holds them at this alignment."""
        for index, (start, end) in enumerate(self._free):
            at = align_up(start, alignment)
            if at + size <= end:
                return self._take(index, at, size)
        raise ResourceNotAvailable

    def highest(self, size: int, alignment: int = 1) -> int:
        """Take `size` numbers from the top of the highest free range that holds them at this alignment."""
        for index in reversed(range(len(self._free))):
            start, end = self._free[index]
            at = align_down(end - size, alignment)
            if at >= start:
                return self._take(index, at, size)
        raise ResourceNotAvailable

    def _take(self, index: int, at: int, size: int) -> int:
        start, end = self._free[index]
        left = [(start, at), (at + size, end)]
        self._free[index : index + 1] = [(low, high) for low, high in left if low < high]
        return at


class Pools:
    """The pools of one microVM (machine.md §1.4)."""

    def __init__(self) -> None:
        self.system = RangeAllocator(layout.SYSTEM_START, layout.SYSTEM_SIZE)
        """Low memory for tables and pages that firmware would own."""
        self.mmio32 = RangeAllocator(layout.MMIO32_DEVICES_START, layout.MMIO32_DEVICES_SIZE)
        """Device registers below 4 GiB."""
        self.gsi = RangeAllocator(layout.GSI_FIRST_FREE, layout.GSI_LAST_LEGACY - layout.GSI_FIRST_FREE + 1)
        """Interrupt lines of the I/O APIC that no legacy device owns."""
