"""Token buckets: how much of something a device may do per time (api.md §3.1)."""

from hibana.serde.shapes import U64, Loose, Strict

_REFILL_LIMIT_MS = ((1 << 64) - 1) // 1_000_000  # kept in nanoseconds, in 64 bits


class TokenBucketConfig(Loose, kw_only=True):
    """A bucket that is full at first and takes `refill_time` ms from empty to full."""

    size: U64
    one_time_burst: U64 | None = None
    refill_time: U64

    def limits(self) -> bool:
        """Tell whether the bucket limits anything: zeros and a time too long to count mean unlimited."""
        return self.size > 0 and 0 < self.refill_time <= _REFILL_LIMIT_MS

    def effective(self) -> "TokenBucketConfig":
        """Give the bucket as it is shown: no burst is no burst, whether left out or zero."""
        return TokenBucketConfig(
            size=self.size, one_time_burst=self.one_time_burst or None, refill_time=self.refill_time
        )


class RateLimiterConfig(Strict):
    """Bytes (`bandwidth`) and operations (`ops`) per time; what is absent is unlimited."""

    bandwidth: TokenBucketConfig | None = None
    ops: TokenBucketConfig | None = None


def effective(limiter: RateLimiterConfig | None) -> RateLimiterConfig | None:
    """Give the limiter that a new device gets, and shows: without buckets that do not limit, None without any."""
    if limiter is None:
        return None
    bandwidth, ops = (
        bucket.effective() if bucket is not None and bucket.limits() else None
        for bucket in (limiter.bandwidth, limiter.ops)
    )
    return RateLimiterConfig(bandwidth, ops) if bandwidth or ops else None


def merged(limiter: RateLimiterConfig | None, change: RateLimiterConfig | None) -> RateLimiterConfig | None:
    """Give the limiter after a PATCH: an absent bucket stays, one that does not limit removes its counterpart."""
    if change is None:
        return limiter
    old = limiter or RateLimiterConfig()
    return effective(RateLimiterConfig(change.bandwidth or old.bandwidth, change.ops or old.ops))
