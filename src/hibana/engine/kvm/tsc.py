"""The time-stamp counters of a virtual machine, which have to agree though they are saved and loaded one by one.

The kernel helps: a counter that is set to less than a second from where the others should be by now is taken to mean
the same as they, and follows the one that was set last. Two things are wrong with that. Kernels before 6.7 also compare
the first counter with the zero that all begin at, and so a guest that has run for less than a second would see time go
back. And on a host whose own counter is not stable, the time that has passed is added to whatever is written, so that
only equal values agree. So a counter that has just gone on since it was saved is left alone; else the first value is
written by a detour far away, and the others get the first one's.
"""

from typing import Final

from hibana.engine.kvm.msr import TSC

_FAR_AWAY: Final = 1 << 62
_MEANS_THE_SAME: Final = 1 << 30
"""Cycles, less than a second of any CPU: so far apart are counters that were saved one after the other."""


class Tsc:
    """What the counters of one virtual machine have agreed on."""

    def __init__(self) -> None:
        self._agreed: int | None = None

    def writes(self, value: int, now: int) -> list[tuple[int, int]]:
        """Give the MSRs to be written in order to set a counter that shows `now` to `value`; zero is a boot."""
        if not value:
            return [(TSC, 0)]
        if 0 <= now - value < _MEANS_THE_SAME:
            return []
        if self._agreed is not None and abs(value - self._agreed) < _MEANS_THE_SAME:
            return [(TSC, self._agreed)]
        self._agreed = value
        return [(TSC, value ^ _FAR_AWAY), (TSC, value)]
