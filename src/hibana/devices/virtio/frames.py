"""The cable of a network card: what the card asks of whatever is at the other end.

A frame is preceded by a header of 12 bytes (virtio 1.2 §5.1.6), in the queues and on the cable alike. It says which
checksum is still missing, and into which segments a frame beyond the MTU is to be cut. The card passes it on unread,
but for `num_buffers`, which is between card and driver.

This is the seam between card and world. What stands between card and tap, such as a metadata service that answers some
frames itself, is a `Frames` that has another one behind it; the card cannot tell.
"""

from collections.abc import Callable
from typing import Final, Protocol

HEADER_SIZE: Final = 12
NUM_BUFFERS_AT: Final = 10
"""Offset of `num_buffers` (u16) in the header."""
LARGEST_FRAME: Final = HEADER_SIZE + 14 + 65536
"""Header, ethernet header, and the most that segmentation offload hands over in one piece."""


class Frames(Protocol):
    """Where ethernet frames come from and go to: a tap, or a list in a test.

    Called where devices live; `send` and `receive` raise OSError, and the card makes the best of it.
    """

    def send(self, frame: list[memoryview], /) -> object:
        """Let a frame go, or lose it: this never waits."""

    def receive(self, room: list[memoryview], /) -> int:
        """Write the next frame into `room`, cut to what fits, and give its size; 0 when there is none now."""

    def set_offload(self, csum: bool, tso4: bool, tso6: bool, ufo: bool) -> None:
        """Say which unfinished frames may come: without checksum, or not cut to the MTU. Raises VmmError."""

    def listen(self, handler: Callable[[], None]) -> None:
        """Call `handler` whenever there are frames, until `ignore`."""

    def ignore(self) -> None:
        """Stop calling the handler."""
