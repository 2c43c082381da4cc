"""The timer of a local APIC (Intel SDM vol. 3, "APIC Timer").

It counts the 25 MHz crystal that CPUID leaf 0x15 announces, through a divider. It does not really count, it remembers
when it will reach zero; every count the guest reads follows from that moment, and a periodic timer adds whole periods
to it, so it never drifts. There is no TSC-deadline mode: CPUID hides it and its mode bit cannot be set.
"""

from collections.abc import Callable
from typing import Final

from hibana.engine.soft.clock import CRYSTAL_HZ

NEVER: Final = 1 << 63
"""A deadline that does not come."""

_CRYSTAL_NS: Final = 10**9 // CRYSTAL_HZ
_DIVIDERS: Final = (2, 4, 8, 16, 32, 64, 128, 1)  # by divide configuration bits 3, 1, 0
_SHORTEST_PERIOD_NS: Final = 100_000
"""A faster periodic timer skips expirations, in whole periods: it would leave the guest no time to run."""


class LapicTimer:
    """Initial count, current count, divide configuration, and what LVT says about periodicity and mask."""

    __slots__ = ("_changed", "_expiry", "_masked", "_now", "_periodic", "_tick_ns", "divide", "due", "initial_count")

    def __init__(self, changed: Callable[[], None], now: Callable[[], int]) -> None:
        self._changed = changed
        self._now = now
        self.due = NEVER
        """When the timer will interrupt, in nanoseconds of `now`: never while masked, though it runs on."""
        self.reset()

    def reset(self) -> None:
        """Stop, with all registers zero and the interrupt masked."""
        self._expiry = 0
        self._masked = True
        self._periodic = False
        self._set_divider(0)
        self.initial_count = 0
        self._aim()

    def configure(self, masked: bool, periodic: bool) -> None:
        """Follow the LVT entry."""
        now = self._now()
        if self._masked and self._expiry and self._expiry <= now:
            self._pass_expiry(now)  # it went by unheard
        self._masked = masked
        self._periodic = periodic
        self._aim()

    def write_initial_count(self, count: int) -> None:
        """Start counting down; zero stops."""
        self.initial_count = count
        self._expiry = self._now() + count * self._tick_ns if count else 0
        self._aim()

    def write_divide(self, value: int) -> None:
        """Go on from the current count at another pace."""
        count = self.current_count()
        self._set_divider(value)
        if count:
            self._expiry = self._now() + count * self._tick_ns
            self._aim()

    def current_count(self) -> int:
        """Compute what is left to count, 0 when stopped."""
        return self.count_at(self._now())

    def count_at(self, now: int) -> int:
        """Compute what is left to count at a moment."""
        if not self._expiry:
            return 0
        left = self._expiry - now
        if self._periodic:
            left = (left - 1) % (self.initial_count * self._tick_ns) + 1  # 1 … one period
        return -(-left // self._tick_ns) if left > 0 else 0

    def expire(self, now: int) -> bool:
        """Tell whether the interrupt is due, and aim at the next one."""
        if self.due > now:
            return False
        self._pass_expiry(now)
        self._aim()
        return True

    def load(self, initial_count: int, current_count: int, divide: int) -> None:
        """Go on from saved counts."""
        self._set_divider(divide)
        self.initial_count = initial_count
        running = initial_count and current_count
        self._expiry = self._now() + current_count * self._tick_ns if running else 0
        self._aim()

    def _set_divider(self, value: int) -> None:
        self.divide = value & 0xB
        self._tick_ns = _CRYSTAL_NS * _DIVIDERS[value & 3 | value >> 1 & 4]

    def _pass_expiry(self, now: int) -> None:
        """Stop a one-shot timer that has run out; let a periodic one aim at its next expiration after `now`."""
        if not self._periodic:
            self._expiry = 0
            return
        step = self.initial_count * self._tick_ns
        if step < _SHORTEST_PERIOD_NS:
            step *= -(-_SHORTEST_PERIOD_NS // step)
        self._expiry += ((now - self._expiry) // step + 1) * step

    def _aim(self) -> None:
        due = NEVER if self._masked or not self._expiry else self._expiry
        if due != self.due:
            self.due = due
            self._changed()
