"""Turns: a device goes on with a queue for a while, and then after the others.

On kvm the guest runs on while its devices work, and can fill a queue as fast as it is emptied. Whoever goes on as long
as there are chains may go on for ever, and keeps the one thread where devices live from the API, from timers and from
all other devices. So a device looks into its queue a number of times, and then lets everybody else come first.
"""

from collections.abc import Callable
from typing import Final

from hibana.devices.rate_limiter import Timers

ROUNDS: Final = 16
"""How often a queue is looked into in one turn; each time all that is there is taken, at most a queue full."""


def _nobody() -> None:
    """Stand in for a device that is not complete yet."""


class Turn:
    """The right to go on with a queue."""

    __slots__ = ("_ended", "_timers", "on_begin")

    def __init__(self, timers: Timers) -> None:
        self.on_begin: Callable[[], None] = _nobody
        """Called when the next turn begins."""
        self._timers = timers
        self._ended = False

    def end(self) -> None:
        """Leave it to others; the next turn begins when each of them has been asked."""
        if not self._ended:
            self._ended = True
            self._timers.after(0.0, self._begin)

    def _begin(self) -> None:
        self._ended = False
        self.on_begin()
