"""Reading a whole file that somebody names: whatever it is, there is an end to it.

A name may stand for a device that never ends, or for a FIFO that nobody writes into. FIFOs have their use, as the
shell's `<(command)` for one, so they get some time; a file on a disk gets as long as the disk takes.
"""

import errno
import os
from select import POLLIN, poll
from time import monotonic
from typing import Final

from hibana.units import MIB

LIMIT: Final = 16 * MIB
"""More than anybody writes by hand, and soon read; a snapshot's state may have 10 MB."""

_PIECE: Final = MIB
_PATIENCE_S: Final = 10.0


def read_whole_file(path: str | bytes, limit: int = LIMIT) -> bytes:
    """Read a file from beginning to end. Raises OSError as the two steps below do."""
    fd = open_for_reading(path)
    try:
        return read_to_the_end(fd, limit)
    finally:
        os.close(fd)


def open_for_reading(path: str | bytes) -> int:
    """Open a file without waiting for anybody at its other end. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def read_to_the_end(fd: int, limit: int = LIMIT) -> bytes:
    """Read what `open_for_reading` has opened. Raises OSError: EFBIG beyond the limit, ETIMEDOUT if no end comes."""
    content = bytearray()
    ready = poll()
    ready.register(fd, POLLIN)
    give_up = monotonic() + _PATIENCE_S
    while len(content) <= limit:
        left = max(0.0, give_up - monotonic())
        # Before its first writer comes a FIFO would read as empty; to poll() it is not ready.
        if not ready.poll(left * 1000):
            raise _error(errno.ETIMEDOUT)
        try:
            piece = os.read(fd, _PIECE)
        except BlockingIOError:  # another reader was faster
            if left:
                continue
            raise _error(errno.ETIMEDOUT) from None
        if not piece:
            return bytes(content)
        content += piece
    raise _error(errno.EFBIG)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
