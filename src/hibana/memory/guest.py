"""The guest's RAM: one contiguous private reservation, and the only place where a guest address is checked."""

import ctypes
import errno
import mmap
import os
from collections.abc import Callable
from typing import Final, Literal

from hibana.errors import GuestFault, MemoryRegionError, os_text
from hibana.memory import huge
from hibana.memory.layout import RamRegion, ram_regions
from hibana.units import HUGE_PAGE, align_up

HugePages = Literal["None", "Transparent", "2M"]

_NORESERVE: Final = 0x4000  # MAP_NORESERVE: pages are paid for when touched
_FLAGS: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
_HUGETLB_2M: Final = 0x40000 | 21 << 26  # MAP_HUGETLB | MAP_HUGE_2MB
_MADV_POPULATE_WRITE: Final = 23
_LARGEST_OFFSET: Final = (1 << 63) - 1  # of a file
_OUT_OF_MEMORY: Final = "Out of memory (os error 12)"


def _nobody(addr: int, size: int) -> None:
    """Stand in for the engine until one is attached."""


class GuestMemory:
    """Guest RAM, addressed guest-physically.

    The reservation is contiguous in the order of the regions, so an offset into it is also what a snapshot file and
    the soft engine's translator count in. It starts on a 2 MiB boundary: the host may back it with huge pages.
    """

    def __init__(self, size: int, huge_pages: HugePages = "None") -> None:
        """Reserve `size` bytes; the host pays for a page when it is touched. Raises MemoryRegionError."""
        self.size = size
        self.regions: tuple[RamRegion, ...] = ram_regions(size)
        try:
            self._mapping = _reserve(size, huge_pages)
        except (OSError, OverflowError) as error:
            text = os_text(error) if isinstance(error, OSError) else _OUT_OF_MEMORY
            raise MemoryRegionError(cause=text) from error
        whole = memoryview(self._mapping)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))
        skip = align_up(base, HUGE_PAGE) - base
        self.host_addr: int = base + skip
        """Where the reservation starts in the VMM's own address space."""
        self._ram = whole[skip : skip + size]
        self._low = self.regions[0].size
        self.on_write: Callable[[int, int], None] = _nobody
        """Told (addr, size) after every write from the host side: the engine drops stale translations there."""

    def window(self, addr: int, size: int) -> memoryview:
        """Give the bytes [addr, addr + size) of guest RAM without copying.

        Raises GuestFault when any of them is not RAM. Whoever writes through a window reports it with `touched`.
        """
        end = addr + size
        if 0 <= addr <= end <= self._low:  # the usual case: everything below the hole
            return self._ram[addr:end]
        for start, length, offset in self.regions:
            if start <= addr <= end <= start + length:
                shift = offset - start
                return self._ram[addr + shift : end + shift]
        raise GuestFault(f"[{addr:#x}, +{size:#x}) is outside guest memory")

    def read(self, addr: int, size: int) -> bytes:
        """Copy bytes out of guest RAM."""
        return bytes(self.window(addr, size))

    def write(self, addr: int, content: bytes | bytearray | memoryview) -> None:
        """Copy bytes into guest RAM and tell the engine."""
        self.window(addr, len(content))[:] = content
        self.on_write(addr, len(content))

    def fill(self, addr: int, size: int, fd: int, offset: int) -> None:
        """Read part of a file straight into guest RAM and tell the engine.

        Raises GuestFault outside RAM, EOFError when the file is too short, OSError as the host does.
        """
        window = self.window(addr, size)
        if offset + size > _LARGEST_OFFSET:
            raise EOFError
        if size >= HUGE_PAGE:
            huge.ask_for(ctypes.addressof(ctypes.c_char.from_buffer(window)), size)
        done = 0
        while done < size:  # one call moves at most 2 GiB - 4 KiB
            count = os.preadv(fd, [window[done:]], offset + done)
            if count == 0:
                raise EOFError
            done += count
        self.on_write(addr, size)

    def touched(self, addr: int, size: int) -> None:
        """Report a write that went through a window."""
        self.on_write(addr, size)

    def close(self) -> None:
        """Give the RAM back to the host; the pages go when the last window does."""
        self.on_write = _nobody
        self._ram.release()
        del self._mapping  # now, and not when the last who knows this object goes: an error's traceback may be one


def _reserve(size: int, huge_pages: HugePages) -> mmap.mmap:
    """Map address space for `size` bytes that begin at the first 2 MiB boundary. Raises OSError, OverflowError."""
    if huge_pages == "2M":
        mapping = mmap.mmap(-1, size, _FLAGS | _HUGETLB_2M)  # begins at such a boundary by itself
        _touch_first_page(mapping)
        return mapping
    # Python's mmap cannot choose an address: take 2 MiB more.
    mapping = mmap.mmap(-1, size + HUGE_PAGE, _FLAGS)
    if huge_pages == "Transparent":
        mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping


def _touch_first_page(mapping: mmap.mmap) -> None:
    """Find out whether the host has huge pages at all. Raises MemoryRegionError: better than SIGBUS a moment later."""
    try:
        mapping.madvise(_MADV_POPULATE_WRITE, 0, HUGE_PAGE)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a kernel before 5.14, which cannot tell
            raise MemoryRegionError(cause=_OUT_OF_MEMORY) from error
