"""The counter's speed is one that counters have."""

from tools.bench.tsc import tsc_khz


def test_it_counts_at_the_speed_of_a_processor() -> None:
    assert 500_000 < tsc_khz() < 8_000_000
