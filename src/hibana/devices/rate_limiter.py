"""How much of something a device may do per time: token buckets (devices.md §4).

A bucket holds `size` tokens and is filled from empty in `refill_time_ms`; a burst on top is there once. What a device
wants to do costs tokens; when they do not suffice, the limiter is blocked for 100 ms, whatever is asked of it. An
operation that needs more than a whole bucket is admitted and paid for afterwards: it blocks the limiter for as long
as those tokens take to come in.

Pure: the clock and the way to be called later are arguments.
"""

import time
from collections.abc import Callable
from math import gcd
from typing import Final, NamedTuple, Protocol

from hibana.observe import log

RETRY_S: Final = 0.1
"""How long a limiter is blocked when tokens do not suffice."""

_NS_PER_MS: Final = 1_000_000
_LARGEST_REFILL_NS: Final = (1 << 64) - 1

Clock = Callable[[], int]
"""Monotonic, in nanoseconds."""


class Limit(NamedTuple):
    """What a user wants of a bucket; zeros, and a time too long to count in 64 bits of nanoseconds, mean unlimited."""

    size: int
    one_time_burst: int
    refill_time_ms: int


class TokenBucket:
    """Tokens that are spent at once and come back over time."""

    __slots__ = ("_capacity", "_clock", "_initial_burst", "_last_update", "_period", "budget", "burst", "limit")

    def __init__(self, limit: Limit, clock: Clock = time.monotonic_ns) -> None:
        """Make a full bucket."""
        self.limit = limit
        self.budget = limit.size
        self.burst = limit.one_time_burst
        self._initial_burst = limit.one_time_burst
        refill_ns = limit.refill_time_ms * _NS_PER_MS
        divisor = gcd(limit.size, refill_ns)
        # `_capacity` tokens come back in every `_period` ns.
        self._capacity = limit.size // divisor
        self._period = refill_ns // divisor
        self._clock = clock
        self._last_update = clock()

    def reduce(self, tokens: int) -> float | None:
        """Spend tokens: 0.0 if they were there, None if they were not.

        More than the bucket can ever hold empties it; then the answer is how many buckets are still owed.
        """
        if self.burst > 0:
            if self.burst >= tokens:
                self.burst -= tokens
                self._last_update = self._clock()
                return 0.0
            tokens -= self.burst
            self.burst = 0
        if tokens > self.budget:
            self._replenish()
            if tokens > self.limit.size:
                log.error_limited(f"Consumed {tokens} tokens from bucket of size {self.limit.size}")
                owed = tokens - self.budget
                self.budget = 0
                return owed / self.limit.size
            if tokens > self.budget:
                return None
        self.budget -= tokens
        return 0.0

    def force_replenish(self, tokens: int) -> None:
        """Give tokens back that were spent on something that did not happen."""
        if self.burst > 0:
            self.burst = min(self.burst + tokens, self._initial_burst)
        else:
            self.budget = min(self.budget + tokens, self.limit.size)

    def _replenish(self) -> None:
        now = self._clock()
        passed = now - self._last_update
        if passed >= self.limit.refill_time_ms * _NS_PER_MS:
            self.budget = self.limit.size
            self._last_update = now
            return
        tokens = passed * self._capacity // self._period
        # Time that was not enough for another token is kept for the next visit.
        self._last_update += -(-tokens * self._period // self._capacity)
        self.budget = min(self.budget + tokens, self.limit.size)


class Timers(Protocol):
    """What calls back later: `bus.home.Home`, or a list in a test."""

    def after(self, seconds: float, handler: Callable[[], None], /) -> object: ...


def _nobody() -> None:
    """Stand in for a device that does not wait."""


class RateLimiter:
    """Bytes (`bandwidth`) and operations (`ops`) per time; a bucket that is absent does not limit."""

    def __init__(
        self,
        bandwidth: Limit | None,
        ops: Limit | None,
        timers: Timers,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        """Make a limiter with full buckets."""
        self.timers: Final = timers
        """What calls back later."""
        self._clock = clock
        self.bandwidth = self._bucket(bandwidth)
        self.ops = self._bucket(ops)
        self.blocked = False
        """Whether everything is refused until `on_ready` is called."""
        self.on_ready: Callable[[], None] = _nobody
        """Called when the limiter is no longer blocked: go on with the queue."""

    def admit(self, size: int) -> bool:
        """Pay for one operation of `size` bytes; False if it has to wait, and then nothing is paid for."""
        if self.blocked:
            return False
        if self.ops is None and self.bandwidth is None:
            return True
        if not self._consume(self.ops, 1):
            return False
        if size and not self._consume(self.bandwidth, size):
            if self.ops is not None:
                self.ops.force_replenish(1)
            return False
        return True

    def refund(self, size: int) -> None:
        """Give back what `admit` took: the operation did not happen."""
        if self.ops is not None:
            self.ops.force_replenish(1)
        if self.bandwidth is not None:
            self.bandwidth.force_replenish(size)

    def update(self, bandwidth: Limit | None, ops: Limit | None) -> None:
        """Replace buckets by full ones, or remove those that would not limit; None leaves one as it is (PATCH)."""
        if bandwidth is not None:
            self.bandwidth = self._bucket(bandwidth)
        if ops is not None:
            self.ops = self._bucket(ops)

    def _bucket(self, limit: Limit | None) -> TokenBucket | None:
        if limit is None or not limit.size or not 0 < limit.refill_time_ms * _NS_PER_MS <= _LARGEST_REFILL_NS:
            return None
        return TokenBucket(limit, self._clock)

    def _consume(self, bucket: TokenBucket | None, tokens: int) -> bool:
        if bucket is None:
            return True
        owed = bucket.reduce(tokens)
        if owed is None:
            self._block(RETRY_S)
            return False
        if owed:
            self._block(int(owed * bucket.limit.refill_time_ms) / 1000)
        return True

    def _block(self, seconds: float) -> None:
        self.blocked = True
        self.timers.after(seconds, self._unblock)

    def _unblock(self) -> None:
        self.blocked = False
        self.on_ready()
