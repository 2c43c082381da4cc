"""A network without a network: a cable that ends in lists, and tap interfaces of which only the names exist."""

import os
from collections import deque
from collections.abc import Callable


class FakeTap:
    """A cable whose other end is the test (fulfils `devices.virtio.frames.Frames`)."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        """What the guest has sent, each frame with its header."""
        self.waiting: deque[bytes] = deque()
        """What the guest has not received yet, likewise."""
        self.error: int | None = None
        """The errno of every transfer, while something is wrong."""
        self.offload: tuple[bool, bool, bool, bool] | None = None
        """The last `set_offload`."""
        self._handler: Callable[[], None] | None = None

    @property
    def is_listened_to(self) -> bool:
        """Whether anybody wants to know of frames."""
        return self._handler is not None

    def deliver(self, *frames: bytes) -> None:
        """Let frames arrive, and report them as an event loop does: again and again, as long as somebody listens."""
        self.waiting.extend(frames)
        while self._handler is not None and (self.waiting or self.error is not None):
            self._handler()

    def send(self, frame: list[memoryview]) -> None:
        """Take a frame."""
        self._fail_if_wrong()
        self.sent.append(b"".join(frame))

    def receive(self, room: list[memoryview]) -> int:
        """Give the next frame, cut to what fits; 0 when there is none."""
        self._fail_if_wrong()
        if not self.waiting:
            return 0
        frame = self.waiting.popleft()
        at = 0
        for view in room:
            part = frame[at : at + len(view)]
            view[: len(part)] = part
            at += len(part)
        return at

    def set_offload(self, csum: bool, tso4: bool, tso6: bool, ufo: bool) -> None:
        """Remember what may come."""
        self.offload = (csum, tso4, tso6, ufo)

    def listen(self, handler: Callable[[], None]) -> None:
        """Remember whom to tell of frames."""
        assert self._handler is None, "somebody listens already"
        self._handler = handler

    def ignore(self) -> None:
        """Tell nobody any more."""
        assert self._handler is not None, "nobody listens"
        self._handler = None

    def _fail_if_wrong(self) -> None:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))


def open_fake_tap(name: str) -> tuple[int, str]:
    """Attach to a tap interface that nobody made (fulfils `config.net.OpenTap`); a pattern gets its first number."""
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), name.replace("%d", "0")
