"""The initial RAM disk: read straight from its file to the top of low RAM (machine.md §2.4)."""

import os
from typing import NamedTuple

from hibana.errors import InitrdAddressError, InitrdImageError, InitrdLoadError, InitrdMetadataError, VmmError, os_text
from hibana.memory.guest import GuestMemory
from hibana.units import PAGE, align_down


class Initrd(NamedTuple):
    """Where the initrd lies in guest memory."""

    addr: int
    size: int


def load_initrd(memory: GuestMemory, fd: int) -> Initrd:
    """Load the whole file behind the descriptor; its own offset does not matter."""
    try:
        return _load(memory, fd)
    except VmmError as error:
        raise InitrdLoadError(cause=error) from error


def _load(memory: GuestMemory, fd: int) -> Initrd:
    try:
        size = os.fstat(fd).st_size
    except OSError as error:
        raise InitrdMetadataError(cause=os_text(error)) from error
    low_ram = memory.regions[0]
    if low_ram.size < size:
        raise InitrdAddressError
    addr = align_down(low_ram.size - size, PAGE)
    try:
        memory.fill(addr, size, fd, 0)
    except OSError as error:
        raise InitrdImageError(cause=os_text(error)) from error
    except EOFError as error:
        raise InitrdImageError(cause="failed to fill whole buffer") from error
    return Initrd(addr, size)
