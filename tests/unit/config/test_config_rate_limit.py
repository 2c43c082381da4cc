"""Rate limiters: what limits nothing is not there."""

import pytest

from hibana.config.rate_limit import RateLimiterConfig, TokenBucketConfig, effective

BUCKET = TokenBucketConfig(size=1, refill_time=1)


@pytest.mark.parametrize(
    ("limiter", "shown"),
    [
        (None, None),
        (RateLimiterConfig(), None),
        (RateLimiterConfig(BUCKET), RateLimiterConfig(BUCKET)),
        (RateLimiterConfig(TokenBucketConfig(size=0, refill_time=1)), None),
        (RateLimiterConfig(BUCKET, TokenBucketConfig(size=1, refill_time=0)), RateLimiterConfig(BUCKET)),
        (RateLimiterConfig(TokenBucketConfig(size=1, refill_time=(1 << 64) // 10**6 + 1)), None),
        (RateLimiterConfig(TokenBucketConfig(size=1, one_time_burst=0, refill_time=1)), RateLimiterConfig(BUCKET)),
    ],
)
def test_what_does_not_limit_is_not_shown(limiter: RateLimiterConfig | None, shown: RateLimiterConfig | None) -> None:
    assert effective(limiter) == shown
