"""The entropy device, asked by a driver."""

from collections.abc import Iterator
from typing import Final

import pytest

from hibana.devices.rate_limiter import Limit, RateLimiter
from hibana.devices.virtio.queue import WRITE
from hibana.devices.virtio.rng import MAX_BYTES, Rng
from hibana.observe.metrics_groups import METRICS, Entropy
from hibana.testing.fakes import FakeTimers
from hibana.testing.virtio import CANARY, Driver
from hibana.units import MIB


def pattern(count: int) -> bytes:
    return bytes(at * 7 % 251 for at in range(count))


UNLIMITED: Final = FakeTimers()


@pytest.fixture
def rng() -> Rng:
    return Rng(RateLimiter(None, None, UNLIMITED), source=pattern)


@pytest.fixture
def driver(rng: Rng) -> Driver:
    driver = Driver()
    driver.start(rng)
    return driver


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> Iterator[Entropy]:
    METRICS.entropy.emit()
    yield METRICS.entropy


def counted(counters: Entropy) -> dict[str, object]:
    return {key: value for key, value in counters.emit().items() if value}


def test_it_is_device_4_with_one_queue_and_nothing_to_negotiate(rng: Rng) -> None:
    assert (rng.type_id, rng.id, rng.queue_sizes) == (4, "rng", (256,))
    assert rng.features == 1 << 32
    assert rng.read_config(0, 8) == 0


def test_every_byte_on_offer_is_filled(driver: Driver) -> None:
    head = driver.offer(("w", 16), ("w", 4))
    driver.kick()
    assert driver.completions() == [(head, 20)]
    assert b"".join(driver.written(head)) == pattern(20)
    assert driver.irq.used_count == [1]


def test_the_engine_hears_of_every_buffer(driver: Driver) -> None:
    driver.offer(("w", 16), ("w", 4))
    driver.remember()
    driver.kick()
    assert [size for _, size in driver.touched] == [16, 4]
    assert driver.unreported_writes() == []


def test_nothing_else_is_written(driver: Driver) -> None:
    driver.offer(("w", 5000), ("w", 0), ("w", 1))
    driver.remember()
    driver.kick()
    assert driver.stray_writes() == []


def test_many_requests_are_answered_with_one_interrupt(driver: Driver) -> None:
    heads = [driver.offer(("w", 8)) for _ in range(10)]
    driver.kick()
    assert driver.completions() == [(head, 8) for head in heads]
    assert driver.irq.used_count == [1]


def test_without_requests_there_is_no_interrupt(driver: Driver) -> None:
    driver.kick()
    assert driver.irq.used_count == [0]


def test_no_more_than_64_kib_a_request(driver: Driver) -> None:
    head = driver.offer(("w", MAX_BYTES - 10), ("w", 4096), ("w", 4096))
    driver.kick()
    assert driver.completions() == [(head, MAX_BYTES)]
    assert b"".join(driver.written(head)) == pattern(MAX_BYTES) + bytes([CANARY]) * (2 * 4096 - 10)


def test_the_host_is_asked_by_default() -> None:
    driver = Driver()
    driver.start(Rng(RateLimiter(None, None, UNLIMITED)))
    head = driver.offer(("w", 64))
    driver.kick()
    assert driver.completions() == [(head, 64)]
    assert len(set(driver.written(head)[0])) > 16


def test_a_buffer_to_read_is_the_guests_mistake_and_gets_nothing(driver: Driver, counters: Entropy) -> None:
    bad = driver.offer(("w", 8), ("r", b"read me"))
    good = driver.offer(("w", 8))
    driver.kick()
    assert driver.completions() == [(bad, 0), (good, 8)]
    assert driver.written(bad) == [b"\xc5" * 8]
    assert counted(counters) == {"entropy_event_count": 2, "entropy_event_fails": 1, "entropy_bytes": 8}
    assert driver.irq.fault is None


@pytest.mark.parametrize("addr", [2 * MIB - 4, 2 * MIB, 1 << 40, (1 << 64) - 4])
def test_a_buffer_outside_memory_gets_nothing(driver: Driver, counters: Entropy, addr: int) -> None:
    ring = driver.rings[0]
    bad = ring.chain([(0x80000, 16, WRITE), (addr, 16, WRITE)])
    ring.publish(bad)
    driver.remember()
    driver.kick()
    assert driver.completions() == [(bad, 0)]
    assert driver.stray_writes() == []
    assert counted(counters) == {"entropy_event_count": 1, "entropy_event_fails": 1}


def test_a_chain_of_more_than_4_gib_gets_nothing(counters: Entropy) -> None:
    rng = Rng(RateLimiter(None, None, UNLIMITED), source=pattern)
    driver = Driver(memory_size=64 * MIB)
    driver.start(rng)
    ring = driver.rings[0]
    bad = ring.chain([(0, 63 * MIB, WRITE)] * 66)
    ring.publish(bad)
    driver.kick()
    assert driver.completions() == [(bad, 0)]


def test_a_host_without_random_bytes_gives_none(counters: Entropy) -> None:
    def refuse(_count: int) -> bytes:
        raise OSError(11, "not yet")

    driver = Driver()
    driver.start(Rng(RateLimiter(None, None, UNLIMITED), refuse))
    head = driver.offer(("w", 8))
    driver.kick()
    assert driver.completions() == [(head, 0)]
    assert counted(counters) == {"entropy_event_count": 1, "entropy_event_fails": 1, "host_rng_fails": 1}


# --- at a limited rate ------------------------------------------------------------------------------------------------


def limited(bandwidth: Limit | None, ops: Limit | None) -> tuple[Driver, FakeTimers]:
    timers = FakeTimers()
    driver = Driver()
    driver.start(Rng(RateLimiter(bandwidth, ops, timers, timers.now_ns), pattern))
    return driver, timers


def test_a_request_beyond_the_rate_waits_in_the_queue(counters: Entropy) -> None:
    driver, timers = limited(Limit(100, 0, 1000), None)
    first, second = driver.offer(("w", 100)), driver.offer(("w", 10))
    driver.kick()
    assert driver.completions() == [(first, 100)]
    assert driver.irq.used_count == [1]
    timers.advance(0.1)
    assert driver.completions() == [(second, 10)]
    assert driver.irq.used_count == [2]
    assert counted(counters) == {
        "entropy_event_count": 3,  # the second request was looked at twice
        "entropy_bytes": 110,
        "entropy_rate_limiter_throttled": 1,
        "rate_limiter_event_count": 1,
    }


def test_a_knock_while_blocked_changes_nothing(counters: Entropy) -> None:
    driver, _ = limited(None, Limit(1, 0, 60_000))
    first = driver.offer(("w", 1))
    driver.offer(("w", 1))
    driver.kick()
    driver.kick()
    assert driver.completions() == [(first, 1)]
    assert counted(counters)["rate_limiter_event_count"] == 1
    assert driver.irq.used_count == [1]


def test_bytes_are_paid_for_even_beyond_64_kib() -> None:
    driver, timers = limited(Limit(MAX_BYTES, 0, 1000), None)
    driver.offer(("w", 2 * MAX_BYTES))
    driver.kick()
    assert timers.delays() == [1.0], "one more bucket is owed"


def test_a_reset_does_not_let_the_limiter_forget() -> None:
    timers = FakeTimers()
    driver = Driver()
    rng = Rng(RateLimiter(None, Limit(1, 0, 60_000), timers, timers.now_ns), pattern)
    driver.start(rng)
    driver.offer(("w", 1))
    driver.offer(("w", 1))
    driver.kick()
    assert rng.reset()
    timers.advance(0.1)  # comes to a device that is not active
    driver.start(rng)
    driver.offer(("w", 1))
    driver.kick()
    assert driver.completions() == []
