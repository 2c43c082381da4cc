"""The two address spaces as an engine sees them: where each guest access that leaves the CPU arrives."""

from typing import Final

from hibana.bus.address import AddressSpace
from hibana.observe import log
from hibana.observe.metrics_groups import METRICS

_COUNTERS: Final = METRICS.vcpu
_MMIO_PAGE_BITS: Final = 12
_NOBODY: Final = "Failed to find address range."


class GuestBus:
    """Ports and MMIO (fulfils `engine.interface.Bus`); where no device lives, reads give 0 and writes are dropped.

    These four methods run once per exit. That is why they look into the dictionary of pages themselves, and call
    `find` only for what it does not know.
    """

    def __init__(self) -> None:
        """Make a bus without devices; insert them into `ports` and `mmio`."""
        self.ports = AddressSpace(page_bits=0)
        self.mmio = AddressSpace(_MMIO_PAGE_BITS)
        self._port_pages = self.ports.pages
        self._mmio_pages = self.mmio.pages

    def port_read(self, port: int, size: int) -> int:
        """Answer an IN instruction."""
        _COUNTERS.exit_io_in += 1
        found = self._port_pages.get(port)
        if found is None:
            found = self.ports.find(port)
            if found is None:
                log.warn_limited(f"vcpu: IO read @ {port:#x}:{size:#x} failed: {_NOBODY}")
                return 0
        base, _, read, _ = found
        return read(port - base, size)

    def port_write(self, port: int, size: int, value: int) -> None:
        """Carry out an OUT instruction."""
        _COUNTERS.exit_io_out += 1
        found = self._port_pages.get(port)
        if found is None:
            found = self.ports.find(port)
            if found is None:
                log.warn_limited(f"vcpu: IO write @ {port:#x}:{size:#x} failed: {_NOBODY}")
                return
        base, _, _, write = found
        write(port - base, size, value)

    def mmio_read(self, addr: int, size: int) -> int:
        """Answer a read of memory that is not RAM."""
        _COUNTERS.exit_mmio_read += 1
        found = self._mmio_pages.get(addr >> _MMIO_PAGE_BITS)
        if found is None:
            found = self.mmio.find(addr)
            if found is None:
                log.warn_limited(f"Invalid MMIO read @ {addr:#x}:{size:#x}: {_NOBODY}")
                return 0
        base, _, read, _ = found
        return read(addr - base, size)

    def mmio_write(self, addr: int, size: int, value: int) -> None:
        """Carry out a write to memory that is not RAM."""
        _COUNTERS.exit_mmio_write += 1
        found = self._mmio_pages.get(addr >> _MMIO_PAGE_BITS)
        if found is None:
            found = self.mmio.find(addr)
            if found is None:
                # The reference says "read" for writes too.
                log.warn_limited(f"Invalid MMIO read @ {addr:#x}:{size:#x}: {_NOBODY}")
                return
        base, _, _, write = found
        write(addr - base, size, value)
