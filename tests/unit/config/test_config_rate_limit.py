"""Rate limiters: what limits nothing is not there."""

import pytest

from hibana.config.rate_limit import RateLimiterConfig, TokenBucketConfig, effective, merged

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


NO_LIMIT = TokenBucketConfig(size=0, refill_time=0)
OTHER = TokenBucketConfig(size=2, refill_time=2)


@pytest.mark.parametrize(
    ("limiter", "change", "shown"),
    [
        (RateLimiterConfig(BUCKET), None, RateLimiterConfig(BUCKET)),
        (RateLimiterConfig(BUCKET), RateLimiterConfig(), RateLimiterConfig(BUCKET)),
        (RateLimiterConfig(BUCKET), RateLimiterConfig(ops=OTHER), RateLimiterConfig(BUCKET, OTHER)),
        (RateLimiterConfig(BUCKET, BUCKET), RateLimiterConfig(OTHER), RateLimiterConfig(OTHER, BUCKET)),
        (RateLimiterConfig(BUCKET, BUCKET), RateLimiterConfig(NO_LIMIT), RateLimiterConfig(None, BUCKET)),
        (RateLimiterConfig(BUCKET), RateLimiterConfig(NO_LIMIT), None),
        (None, RateLimiterConfig(BUCKET), RateLimiterConfig(BUCKET)),
    ],
)
def test_a_change_replaces_the_buckets_that_it_names(
    limiter: RateLimiterConfig | None, change: RateLimiterConfig | None, shown: RateLimiterConfig | None
) -> None:
    assert merged(limiter, change) == shown
