"""A table that machine code reads and writes: zeroed memory of its own, which costs only the pages that are touched."""

import ctypes
import mmap


class Table:
    """Memory, and where it begins; it goes back to the host with the object."""

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.addr = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
