"""A rate limiter lets through what was bought, at the speed it was bought, and tells when it will go on."""

from fractions import Fraction
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.devices.rate_limiter import RETRY_S, Limit, RateLimiter, TokenBucket
from hibana.testing.fakes import FakeTimers

U64: Final = (1 << 64) - 1
MS: Final = 1_000_000

SIZES: Final = st.one_of(st.integers(1, 20), st.integers(1, 10**9), st.integers(1, U64))
LIMITS: Final = st.builds(Limit, SIZES, st.one_of(st.just(0), st.integers(0, 10**6)), st.integers(1, 100_000))
STEPS: Final = st.lists(st.tuples(st.integers(0, 3_000_000_000), st.integers(0, 1 << 34)), max_size=30)
"""(ns to wait, tokens to spend)."""


def pour(timers: FakeTimers, nanoseconds: int) -> None:
    timers.advance(nanoseconds / 1e9)


# --- one bucket -------------------------------------------------------------------------------------------------------


def test_a_new_bucket_is_full() -> None:
    bucket = TokenBucket(Limit(1000, 0, 1000), FakeTimers().now_ns)
    assert bucket.reduce(1000) == 0.0
    assert bucket.reduce(1) is None


def test_tokens_come_back_at_a_steady_pace() -> None:
    timers = FakeTimers()
    bucket = TokenBucket(Limit(1000, 0, 1000), timers.now_ns)
    assert bucket.reduce(1000) == 0.0
    timers.advance(0.123)
    assert bucket.reduce(124) is None
    assert bucket.budget == 123
    assert bucket.reduce(123) == 0.0


def test_the_burst_is_spent_first_and_once() -> None:
    timers = FakeTimers()
    bucket = TokenBucket(Limit(10, 5, 100), timers.now_ns)
    assert bucket.reduce(4) == 0.0
    assert (bucket.burst, bucket.budget) == (1, 10)
    assert bucket.reduce(3) == 0.0
    assert (bucket.burst, bucket.budget) == (0, 8)
    timers.advance(100)
    assert bucket.reduce(11) is not None
    assert bucket.burst == 0


def test_a_burst_is_spent_even_on_what_then_has_to_wait() -> None:
    bucket = TokenBucket(Limit(10, 5, 100), FakeTimers().now_ns)
    bucket.budget = 4
    assert bucket.reduce(10) is None
    assert (bucket.burst, bucket.budget) == (0, 4)


def test_more_than_a_bucket_holds_empties_it_and_tells_what_is_owed() -> None:
    bucket = TokenBucket(Limit(100, 0, 1000), FakeTimers().now_ns)
    assert bucket.reduce(30) == 0.0
    assert bucket.reduce(320) == 2.5  # 250 tokens are missing
    assert bucket.budget == 0


def test_what_is_given_back_refills_the_burst_first_but_overflows_nothing() -> None:
    bucket = TokenBucket(Limit(10, 5, 100), FakeTimers().now_ns)
    bucket.reduce(3)
    bucket.force_replenish(100)
    assert (bucket.burst, bucket.budget) == (5, 10)
    bucket.reduce(9)
    bucket.force_replenish(2)
    assert (bucket.burst, bucket.budget) == (0, 8)
    bucket.force_replenish(100)
    assert (bucket.burst, bucket.budget) == (0, 10)


@given(limit=LIMITS, steps=STEPS)
def test_nobody_gets_more_than_burst_and_bucket_and_what_has_come_in_since(
    limit: Limit, steps: list[tuple[int, int]]
) -> None:
    timers = FakeTimers()
    bucket = TokenBucket(limit, timers.now_ns)
    granted = 0
    for wait_ns, tokens in steps:
        pour(timers, wait_ns)
        if tokens <= limit.size and bucket.reduce(tokens) == 0.0:
            granted += tokens
        earned = Fraction(limit.size * timers.now_ns(), limit.refill_time_ms * MS)
        assert granted <= limit.one_time_burst + limit.size + earned
        assert 0 <= bucket.budget <= limit.size


@given(limit=LIMITS, tokens=st.integers(0, U64))
def test_after_the_refill_time_the_bucket_is_full_whatever_was_taken(limit: Limit, tokens: int) -> None:
    timers = FakeTimers()
    bucket = TokenBucket(limit._replace(one_time_burst=0), timers.now_ns)
    bucket.reduce(tokens)
    pour(timers, limit.refill_time_ms * MS)
    assert bucket.reduce(limit.size) == 0.0


@given(limit=LIMITS, waits=st.lists(st.integers(0, 10**8), min_size=1, max_size=30))
def test_looking_often_costs_at_most_a_nanosecond_a_look(limit: Limit, waits: list[int]) -> None:
    """The fraction of a token that has come in is not lost at each visit."""
    timers = FakeTimers()
    bucket = TokenBucket(limit._replace(one_time_burst=0), timers.now_ns)
    bucket.reduce(limit.size)
    period_ns = limit.refill_time_ms * MS
    for wait_ns in waits:
        pour(timers, wait_ns)
        bucket.reduce(limit.size)  # refused, or the bucket was full and is empty again
        if timers.now_ns() >= period_ns:
            return
    earned = Fraction(limit.size * timers.now_ns(), period_ns)
    lost_at_most = 1 + Fraction(limit.size * len(waits), period_ns)
    assert earned - lost_at_most <= bucket.budget <= earned


# --- the limiter ------------------------------------------------------------------------------------------------------


def limiter(bandwidth: Limit | None = None, ops: Limit | None = None) -> tuple[RateLimiter, FakeTimers]:
    timers = FakeTimers()
    return RateLimiter(bandwidth, ops, timers, timers.now_ns), timers


UNLIMITED: Final = [Limit(0, 10, 100), Limit(10, 10, 0), Limit(10, 0, U64 // MS + 1)]


@pytest.mark.parametrize("limit", UNLIMITED)
def test_a_bucket_without_size_or_time_does_not_limit(limit: Limit) -> None:
    unlimited, timers = limiter(limit, limit)
    assert (unlimited.bandwidth, unlimited.ops) == (None, None)
    assert all(unlimited.admit(U64) for _ in range(100))
    assert timers.delays() == []


def test_the_longest_time_that_can_be_counted_limits() -> None:
    limited, _ = limiter(Limit(10, 0, U64 // MS))
    assert limited.admit(10)
    assert not limited.admit(1)


def test_who_has_to_wait_waits_a_tenth_of_a_second_and_is_called() -> None:
    limited, timers = limiter(ops=Limit(1, 0, 1000))
    called: list[bool] = []
    limited.on_ready = lambda: called.append(limited.blocked)
    assert limited.admit(0)
    assert not limited.admit(0)
    assert limited.blocked
    assert timers.delays() == [RETRY_S] == [0.1]
    timers.advance(0.099)
    assert not called
    timers.advance(0.001)
    assert called == [False]


def test_while_it_is_blocked_nothing_is_admitted_and_no_second_timer_runs() -> None:
    limited, timers = limiter(bandwidth=Limit(10, 0, 1000), ops=Limit(100, 0, 1000))
    assert limited.admit(10)
    assert not limited.admit(1)
    assert limited.ops
    budget = limited.ops.budget
    assert not limited.admit(0), "free of bytes, but blocked is blocked"
    assert limited.ops.budget == budget
    assert len(timers.delays()) == 1


def test_a_refused_operation_gets_its_token_back_when_the_bytes_do_not_suffice() -> None:
    limited, _ = limiter(bandwidth=Limit(10, 0, 1000), ops=Limit(5, 0, 1000))
    assert limited.admit(8)
    assert not limited.admit(8)
    assert limited.ops
    assert limited.bandwidth
    assert (limited.ops.budget, limited.bandwidth.budget) == (4, 2)


def test_an_operation_larger_than_the_bucket_goes_through_and_is_paid_for_afterwards() -> None:
    limited, timers = limiter(bandwidth=Limit(1000, 0, 100))
    assert limited.admit(3500)
    assert limited.blocked
    assert timers.delays() == [0.25]  # 2500 tokens at 10 a ms
    timers.advance(0.25)
    assert not limited.blocked


def test_what_did_not_happen_is_not_paid_for() -> None:
    limited, _ = limiter(Limit(100, 0, 1000), Limit(2, 0, 1000))
    assert limited.admit(60)
    limited.refund(60)
    assert limited.bandwidth
    assert limited.ops
    assert (limited.bandwidth.budget, limited.ops.budget) == (100, 2)
    unlimited, _ = limiter()
    unlimited.refund(60)


def test_an_update_replaces_removes_or_leaves_alone() -> None:
    limited, _ = limiter(Limit(100, 7, 1000), Limit(2, 0, 1000))
    assert limited.admit(50)
    ops = limited.ops
    limited.update(Limit(10, 3, 500), None)
    assert limited.ops is ops
    assert limited.bandwidth
    assert (limited.bandwidth.budget, limited.bandwidth.burst) == (10, 3)
    assert limited.bandwidth.limit == Limit(10, 3, 500)
    limited.update(None, Limit(0, 0, 0))
    assert limited.ops is None
    assert limited.admit(13)
    assert not limited.admit(1)


def test_an_update_leaves_a_running_timer_alone() -> None:
    limited, timers = limiter(ops=Limit(1, 0, 1000))
    limited.admit(0)
    limited.admit(0)
    limited.update(None, Limit(0, 0, 0))
    assert not limited.admit(0)
    timers.advance(RETRY_S)
    assert limited.admit(0)


@given(
    bandwidth=st.none() | LIMITS,
    ops=st.none() | LIMITS,
    steps=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**7)), max_size=30),
)
def test_the_limiter_is_blocked_exactly_while_one_timer_runs(
    bandwidth: Limit | None, ops: Limit | None, steps: list[tuple[int, int]]
) -> None:
    limited, timers = limiter(bandwidth, ops)
    for wait_ns, size in steps:
        pour(timers, wait_ns)
        was_blocked = limited.blocked
        admitted = limited.admit(size)
        assert not (was_blocked and admitted)
        assert limited.blocked == (len(timers.delays()) == 1)
        assert limited.blocked or admitted
