"""A drive's file, read and written by the kernel while the guest runs on (`io_engine: Async`, devices.md §5.6).

Requests are collected while the device looks through its queue, and handed over in one system call. Results are
announced by an eventfd, and taken on the thread where devices live. The kernel reads and writes guest memory directly;
so until a result is there, the window must stay where it is: it is kept with the request.

Worth it where the file is not in the page cache, and the guest asks for many things at once; else `disk.py` is faster.
"""

import os
from collections.abc import Callable, Sequence
from ctypes import addressof, c_char
from typing import Final

from hibana.bus.home import Home
from hibana.devices.virtio.block import BUSY, SUBMITTED, Completion, Request
from hibana.errors import AsyncEngineError, IoEngineError, IoUringError, VmmError
from hibana.host.disk import disk_id
from hibana.host.io_uring import FSYNC, READ, WRITE, Ring
from hibana.observe import log

_ENTRIES: Final = 128


def try_ring(fd: int) -> None:
    """Find out, for a user who asks for it, whether io_uring works here with an open file. Raises IoEngineError."""
    log.warn("[DevPreview] Async file IO is in development preview.")
    _make_ring(fd).close()


def _make_ring(fd: int) -> Ring:
    try:
        return Ring(_ENTRIES, fd, (READ, WRITE, FSYNC))
    except VmmError as error:
        raise IoEngineError(cause=AsyncEngineError(cause=IoUringError(cause=error))) from error


class UringDisk:
    """Answers every request later (fulfils `block.Disk`)."""

    def __init__(self, fd: int, size: int, home: Home) -> None:
        """Use an open file of `size` bytes; the descriptor may be closed afterwards.

        Raises IoEngineError where the host has no io_uring for us.
        """
        self.size = size
        self.id = disk_id(fd)
        self._home = home
        self._ring = _make_ring(fd)
        self._under_way: dict[int, tuple[Request, object]] = {}
        """By a number that goes with it into the kernel and back: the request, and what holds its window in place."""
        self._number = 0
        self._on_completed: Callable[[Sequence[Completion]], None] | None = None

    def read(self, offset: int, window: memoryview, request: Request) -> int:
        """Ask the kernel to fill a window from the file."""
        return self._start(READ, offset, window, request)

    def write(self, offset: int, window: memoryview, request: Request) -> int:
        """Ask the kernel to put a window into the file."""
        return self._start(WRITE, offset, window, request)

    def flush(self, request: Request) -> int:
        """Ask the kernel to bring the file to the medium."""
        return self._push(FSYNC, 0, 0, 0, request, None)

    def listen(self, on_completed: Callable[[Sequence[Completion]], None]) -> None:
        """Tell results to `on_completed`, where devices live."""
        if self._on_completed is None:
            self._home.watch(self._ring.eventfd, self._announced)
        self._on_completed = on_completed

    def submit(self) -> list[Completion]:
        """Hand over what has been asked for; give what the kernel could do at once, which spares the way round."""
        self._ring.submit()
        return self._announced_results() if self._ring.has_results() else []

    def drain(self) -> list[Completion]:
        """Wait for everything under way."""
        completions: list[Completion] = []
        while self._under_way:
            self._ring.submit(wait_for=1)
            completions += self._reap()
        return completions

    def exchange(self, fd: int, size: int) -> None:
        """Use another open file from now on; nothing may be under way. Raises IoEngineError."""
        try:
            self._ring.exchange(fd)
        except VmmError as error:
            raise IoEngineError(cause=AsyncEngineError(cause=IoUringError(cause=error))) from error
        self.size = size
        self.id = disk_id(fd)

    def close(self) -> None:
        """Give the ring back, with nothing under way. Call it where devices live."""
        if self._on_completed is None:
            self._ring.close()
            return
        # The eventfd must be open until the loop has forgotten it.
        self._home.forget(self._ring.eventfd)
        self._home.loop.call(self._ring.close)

    def _start(self, operation: int, offset: int, window: memoryview, request: Request) -> int:
        if not window.nbytes:
            return 0
        first = c_char.from_buffer(window)
        return self._push(operation, offset, addressof(first), window.nbytes, request, first)

    def _push(self, operation: int, offset: int, host_addr: int, size: int, request: Request, window: object) -> int:
        if len(self._under_way) >= self._ring.capacity:
            return BUSY
        self._number += 1
        if not self._ring.push(operation, offset, host_addr, size, self._number):
            self._ring.submit()
            self._ring.push(operation, offset, host_addr, size, self._number)
        self._under_way[self._number] = (request, window)
        return SUBMITTED

    def _announced(self) -> None:
        completions = self._announced_results()
        if completions and self._on_completed is not None:  # a drain may have been faster
            self._on_completed(completions)

    def _announced_results(self) -> list[Completion]:
        """Take back the announcement, and only then the results: one that comes in between is announced again."""
        try:
            os.eventfd_read(self._ring.eventfd)
        except BlockingIOError:  # the kernel is about to announce them, or somebody was faster
            pass
        return self._reap()

    def _reap(self) -> list[Completion]:
        return [_completion(self._under_way.pop(number)[0], result) for number, result in self._ring.reap()]


def _completion(request: Request, result: int) -> Completion:
    if result < 0:
        return Completion(request, 0, OSError(-result, os.strerror(-result)))
    return Completion(request, result, None)
