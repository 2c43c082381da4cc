"""The time-stamp counters of a virtual machine, which the kernel keeps at one offset from the host's.

When a counter is set to less than a second from where the others are, the kernel takes it for the same and leaves it
alone. That is what we want, because vCPUs are loaded one after the other, each with its counter of the moment; but
kernels before 6.7 also compare the first one with the zero that all counters begin at, and so a guest that has run for
less than a second would see time go back. A value far away comes in between.
"""

from typing import Final

from hibana.engine.kvm.msr import TSC

_FAR_AWAY: Final = 1 << 62


class Tsc:
    """Knows whether any counter of a virtual machine has been set."""

    def __init__(self) -> None:
        self._is_set = False

    def detour(self, value: int) -> list[tuple[int, int]]:
        """Give the MSRs to be written before a counter is set to `value`."""
        if self._is_set or not value:
            return []
        self._is_set = True
        return [(TSC, value ^ _FAR_AWAY)]
