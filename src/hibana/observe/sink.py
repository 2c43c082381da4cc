"""Where lines go: a file, a FIFO or stdout, without ever waiting for a reader."""

import os
from threading import Lock


class Sink:
    """A non-blocking destination of whole lines, each handed over in one write."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._torn = b""
        self._writing = Lock()  # never held for long: no write waits

    @classmethod
    def open(cls, path: str) -> "Sink":
        """Open or create a destination; nothing is truncated, and a FIFO needs no reader yet."""
        return cls(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY, 0o666))

    def write(self, line: bytes) -> None:
        """Write a line or raise OSError. Safe from any thread.

        A FIFO that is nearly full may take half a long line. The other half goes first next time, so that readers
        never find two lines in one.
        """
        with self._writing:
            if self._torn:
                self._torn = self._torn[os.write(self._fd, self._torn) :]
                if self._torn:
                    raise BlockingIOError
            self._torn = line[os.write(self._fd, line) :]

    def redirect(self, other: "Sink") -> None:
        """Take over another sink's destination; lines that other threads are writing go to one or the other."""
        with self._writing:
            os.dup2(other._fd, self._fd, inheritable=False)
            os.close(other._fd)
            self._torn = b""
