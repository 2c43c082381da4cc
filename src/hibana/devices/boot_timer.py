"""The boot timer: a page where the guest's init says that it has started (MMIO 0xC0000000, with `--boot-timer`)."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from hibana.observe import log

SIZE: Final = 0x1000
"""Addresses the device takes."""
BOOT_FINISHED: Final = 123


class Moment(NamedTuple):
    """A point in time on two clocks: the host's, and the CPU time of the whole process."""

    us: int
    cpu_us: int


def now() -> Moment:
    """Read both clocks."""
    return Moment(time.monotonic_ns() // 1000, time.process_time_ns() // 1000)


class BootTimer:
    """Logs how long the guest took from InstanceStart to the byte 123."""

    def __init__(self, started: Moment, clock: Callable[[], Moment] = now) -> None:
        """Make a timer that counts from `started`, the moment InstanceStart was taken up."""
        self._started = started
        self._clock = clock

    def read(self, offset: int, size: int) -> int:
        """Answer a guest's read: there is nothing to see."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Log the times if this is the one byte that counts."""
        if (offset, size, value) != (0, 1, BOOT_FINISHED):
            return
        moment = self._clock()
        us = moment.us - self._started.us
        cpu_us = moment.cpu_us - self._started.cpu_us
        log.info_limited(f"Guest-boot-time = {us:>6} us {us // 1000} ms, {cpu_us:>6} CPU us {cpu_us // 1000} CPU ms")
