"""A disk without a file: sectors in a bytearray, and all the moods that a real one has."""

import os
from collections.abc import Callable, Sequence

from hibana.devices.virtio.block import BUSY, SUBMITTED, Completion, Request


class MemoryDisk:
    """Answers at once, or `finish` by `finish` when there is a `room` (fulfils `devices.virtio.block.Disk`)."""

    def __init__(self, content: bytes, room: int | None = None) -> None:
        """Make a disk with this content; `room` is how many requests it takes before it is busy."""
        self.content = bytearray(content)
        self.size = len(content)
        self.id = b"a disk without a file"[:20]
        self.broken: int | None = None
        """The errno of everything, once the disk is broken."""
        self.at_most: int | None = None
        """How many bytes it moves at once."""
        self.hurry = 0
        """How many requests will be answered as soon as they are submitted."""
        self.flushes = 0
        self.submissions = 0
        self.waiting: list[tuple[Request, Callable[[], int]]] = []
        """Requests that have not been answered, and how to carry them out."""
        self._room = room
        self._on_completed: Callable[[Sequence[Completion]], None]

    def read(self, offset: int, window: memoryview, request: Request) -> int:
        """Fill a window."""

        def work() -> int:
            part = self.content[offset : offset + len(window)][: self.at_most]
            window[: len(part)] = part
            return len(part)

        return self._answer(request, work)

    def write(self, offset: int, window: memoryview, request: Request) -> int:
        """Store a window, or what of it lies before the end of the disk."""

        def work() -> int:
            part = bytes(window[: max(0, len(self.content) - offset)][: self.at_most])
            self.content[offset : offset + len(part)] = part
            return len(part)

        return self._answer(request, work)

    def flush(self, request: Request) -> int:
        """Count a flush."""

        def work() -> int:
            self.flushes += 1
            return 0

        return self._answer(request, work)

    def listen(self, on_completed: Callable[[Sequence[Completion]], None]) -> None:
        """Remember whom to tell."""
        self._on_completed = on_completed

    def submit(self) -> list[Completion]:
        """Count a submission; if in a `hurry`, answer as many as that, oldest first."""
        self.submissions += 1
        count = min(self.hurry, len(self.waiting))
        self.hurry -= count
        return [self._complete(0) for _ in range(count)]

    def drain(self) -> list[Completion]:
        """Answer everything that waits, oldest first."""
        return [self._complete(0) for _ in range(len(self.waiting))]

    def finish(self, *order: int) -> None:
        """Answer requests that wait, by their place in the row, with one call; without places all of them."""
        chosen = [self.waiting[at] for at in order or range(len(self.waiting))]
        self._on_completed([self._complete(self.waiting.index(each)) for each in chosen])

    def _answer(self, request: Request, work: Callable[[], int]) -> int:
        if self._room is None:
            self._fail_if_broken()
            return work()
        if len(self.waiting) >= self._room:
            return BUSY
        self.waiting.append((request, work))
        return SUBMITTED

    def _complete(self, at: int) -> Completion:
        request, work = self.waiting.pop(at)
        try:
            self._fail_if_broken()
        except OSError as error:
            return Completion(request, 0, error)
        return Completion(request, work(), None)

    def _fail_if_broken(self) -> None:
        if self.broken is not None:
            raise OSError(self.broken, os.strerror(self.broken))


def grant_async(fd: int) -> None:
    """Say that the host can do asynchronous I/O on any file (fulfils `config.drive.TryAsync`)."""
