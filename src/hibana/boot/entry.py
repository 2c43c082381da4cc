"""Where a loaded kernel starts, and in which state it wants the CPU."""

import enum
from typing import NamedTuple


class BootProtocol(enum.Enum):
    """The contract between boot loader and kernel; the value is its name in the log."""

    LINUX_64 = "Linux 64-bit boot protocol"
    PVH = "PVH boot protocol"


class Entry(NamedTuple):
    """The first instruction of the guest."""

    protocol: BootProtocol
    addr: int


class Kernel(NamedTuple):
    """A kernel in guest memory; `setup_header` is a bzImage's own, for the zero page."""

    entry: Entry
    setup_header: bytes = b""
