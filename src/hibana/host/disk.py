"""A drive's file, read and written by the thread that asks (`io_engine: Sync`, devices.md §5.5).

The page cache makes most requests a copy, so waiting costs less than any way around it. Bytes move between the file
and guest RAM in one system call per request, without a copy of ours. Nothing needs alignment: the file is not opened
with O_DIRECT.
"""

import os
from collections.abc import Callable, Sequence
from typing import Final

from hibana.devices.virtio.block import Completion, Request

_ID_SIZE: Final = 20


def disk_id(fd: int) -> bytes:
    """Name a file by device, special device and inode number, as the guest sees it in its serial number (§5.2)."""
    try:
        status = os.fstat(fd)
    except OSError:
        return bytes(_ID_SIZE)
    text = f"{status.st_dev}{status.st_rdev}{status.st_ino}"
    return text.encode()[:_ID_SIZE].ljust(_ID_SIZE, b"\0")


class FileDisk:
    """Answers every request before it returns (fulfils `block.Disk`)."""

    def __init__(self, fd: int, size: int) -> None:
        """Use an open file of `size` bytes; the descriptor stays its owner's, who keeps it open for as long."""
        self.size = size
        self.id = disk_id(fd)
        self._fd = fd

    def read(self, offset: int, window: memoryview, request: Request) -> int:
        """Fill a window from the file; give how many bytes there were. Raises OSError."""
        return os.preadv(self._fd, (window,), offset)

    def write(self, offset: int, window: memoryview, request: Request) -> int:
        """Put a window into the file; give how many bytes it took. Raises OSError."""
        return os.pwritev(self._fd, (window,), offset)

    def flush(self, request: Request) -> int:
        """Wait until what was written is on the medium. Raises OSError."""
        os.fsync(self._fd)
        return 0

    def listen(self, on_completed: Callable[[Sequence[Completion]], None]) -> None:
        """Never call anybody: there are no late answers."""

    def submit(self) -> Sequence[Completion]:
        """Hold nothing back: every request has been answered."""
        return ()

    def drain(self) -> Sequence[Completion]:
        """Wait for nothing: every request has been answered."""
        return ()

    def exchange(self, fd: int, size: int) -> None:
        """Use another open file from now on."""
        self.size = size
        self.id = disk_id(fd)
        self._fd = fd

    def close(self) -> None:
        """Leave the descriptor to its owner."""
