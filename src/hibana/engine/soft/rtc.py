"""The MC146818 real-time clock and its CMOS memory, at ports 0x70 and 0x71.

It exists because the soft engine has no kvm-clock: this is where a guest learns the time of day. The clock is the
host's, in UTC, and cannot be set: writes to the time are dropped, so there is no state that a snapshot could make
stale. There are no alarms and no interrupts. What a guest writes to the other registers stays.
"""

import time
from collections.abc import Callable
from typing import Final

INDEX: Final = 0x70
CONTENT: Final = 0x71
PORTS: Final = (INDEX, CONTENT)

CMOS_SIZE: Final = 128

# Registers.
SECONDS: Final = 0x00
MINUTES: Final = 0x02
HOURS: Final = 0x04
DAY_OF_WEEK: Final = 0x06
DAY: Final = 0x07
MONTH: Final = 0x08
YEAR: Final = 0x09
A: Final = 0x0A
B: Final = 0x0B
C: Final = 0x0C
D: Final = 0x0D
CENTURY: Final = 0x32

_UPDATE_IN_PROGRESS: Final = 0x80  # A
_DIVIDER_RUNS: Final = 0x26  # A: 32 768 Hz time base, 1 024 Hz rate
_STOPPED: Final = 0x80  # B: SET
_BINARY: Final = 0x04  # B: binary, not BCD
_24_HOURS: Final = 0x02  # B
_B_WRITABLE: Final = 0x8F  # no interrupt enable bits
_VALID: Final = 0x80  # D: the battery is good
_PM: Final = 0x80  # hours, in 12-hour mode

_WARNING_NS: Final = 244_000
"""How long before the second turns "update in progress" is set: a guest that sees it clear has time to read all."""

_CLOCK: Final = frozenset((SECONDS, MINUTES, HOURS, DAY_OF_WEEK, DAY, MONTH, YEAR, CENTURY))
_READ_ONLY: Final = _CLOCK | {C, D}


class Rtc:
    """The clock registers, computed when read, and 128 bytes of memory."""

    __slots__ = ("_cmos", "_index", "_utc")

    def __init__(self, utc: Callable[[], int]) -> None:
        self._utc = utc
        """Nanoseconds since 1970."""
        self._index = 0
        self._cmos = bytearray(CMOS_SIZE)
        self._cmos[A] = _DIVIDER_RUNS
        self._cmos[B] = _24_HOURS
        self._cmos[D] = _VALID

    def read(self, port: int) -> int:
        """Read the selected register; the index itself cannot be read."""
        if port != CONTENT:
            return 0xFF
        if self._index in _CLOCK:
            return self._time(self._index)
        value = self._cmos[self._index]
        if self._index == A and self._about_to_change():
            value |= _UPDATE_IN_PROGRESS
        return value

    def write(self, port: int, value: int) -> None:
        """Select a register (bit 7 would mask NMIs) or write it."""
        if port == INDEX:
            self._index = value & CMOS_SIZE - 1
        elif self._index == A:
            self._cmos[A] = value & ~_UPDATE_IN_PROGRESS
        elif self._index == B:
            self._cmos[B] = value & _B_WRITABLE
        elif self._index not in _READ_ONLY:
            self._cmos[self._index] = value

    def save(self) -> bytes:
        """Export the index and the memory."""
        return bytes((self._index,)) + self._cmos

    def load(self, saved: bytes) -> None:
        """Replace the index and the memory."""
        self._index = saved[0] & CMOS_SIZE - 1
        self._cmos[:] = saved[1 : 1 + CMOS_SIZE]

    def _about_to_change(self) -> bool:
        return not self._cmos[B] & _STOPPED and self._utc() % 10**9 >= 10**9 - _WARNING_NS

    def _time(self, register: int) -> int:
        now = time.gmtime(self._utc() // 10**9)
        if register == HOURS:
            return self._hours(now.tm_hour)
        century, year = divmod(now.tm_year, 100)
        return self._encode(
            {
                SECONDS: now.tm_sec,
                MINUTES: now.tm_min,
                DAY_OF_WEEK: (now.tm_wday + 1) % 7 + 1,  # Sunday is 1
                DAY: now.tm_mday,
                MONTH: now.tm_mon,
                YEAR: year,
                CENTURY: century,
            }[register]
        )

    def _hours(self, hour: int) -> int:
        if self._cmos[B] & _24_HOURS:
            return self._encode(hour)
        return self._encode((hour + 11) % 12 + 1) | (_PM if hour >= 12 else 0)

    def _encode(self, value: int) -> int:
        """Write a number as register B demands: binary, or two decimal digits."""
        return value if self._cmos[B] & _BINARY else value // 10 << 4 | value % 10
