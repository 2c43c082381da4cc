"""Opening and reading the files that a user names."""

import os

from hibana.errors import HostFileError, os_text
from hibana.whole_file import read_whole_file


def open_host_file(path: str, flags: int) -> int:
    """Open a file by its name in UTF-8 and give the descriptor. Raises HostFileError.

    A FIFO must not stop the VMM until somebody writes into it, so the opening itself does not block; what is done with
    the file afterwards does.
    """
    try:
        fd = os.open(_encoded(path), flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise HostFileError(cause=os_text(error)) from error
    os.set_blocking(fd, True)
    return fd


def read_host_file(path: str) -> bytes:
    """Read a file from beginning to end. Raises HostFileError."""
    try:
        return read_whole_file(_encoded(path))
    except (OSError, ValueError) as error:
        raise HostFileError(cause=os_text(error)) from error


def _encoded(path: str) -> bytes:
    """Write a name as UTF-8, whatever the locale; one from a command line may hold other bytes, too."""
    return path.encode("utf-8", "surrogateescape")
