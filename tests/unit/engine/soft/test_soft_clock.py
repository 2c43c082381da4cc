"""The host's clocks: the counter's frequency is a property of the host, not of the moment."""

import platform

import pytest

from hibana.engine.soft import clock

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="RDTSC is an x86 instruction")


def test_the_counter_runs() -> None:
    first = clock.tsc()
    second = clock.tsc()
    assert second > first


def test_the_frequency_is_measured_once_and_plausible() -> None:
    khz = clock.tsc_khz()
    assert 400_000 < khz < 10_000_000
    assert clock.tsc_khz() is khz


def test_a_second_measurement_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    first = clock.tsc_khz()
    clock.begin.cache_clear()
    clock.tsc_khz.cache_clear()
    again = clock.tsc_khz()
    assert abs(again - first) / first < 200e-6
