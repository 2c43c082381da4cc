"""What is written into time-stamp counters so that they agree."""

import pytest

from hibana.engine.kvm.msr import TSC
from hibana.engine.kvm.tsc import Tsc

SECOND = 3_000_000_000
JUST_NOW = 50_000


@pytest.mark.parametrize("young", [JUST_NOW + 1, SECOND // 100, SECOND // 2, 100 * SECOND])
def test_the_first_counter_of_a_new_virtual_machine_takes_a_detour_far_away(young: int) -> None:
    (first, far), (second, value) = Tsc().writes(young, now=JUST_NOW)
    assert (first, second, value) == (TSC, TSC, young)
    assert far - value > 1000 * SECOND


def test_the_others_get_the_first_ones_value() -> None:
    tsc = Tsc()
    tsc.writes(9 * SECOND, now=JUST_NOW)
    assert tsc.writes(9 * SECOND + 70_000, now=JUST_NOW) == [(TSC, 9 * SECOND)]
    assert tsc.writes(9 * SECOND - 5, now=JUST_NOW) == [(TSC, 9 * SECOND)]


def test_a_counter_that_has_just_gone_on_is_left_alone() -> None:
    """It agrees with those of the other vCPUs, which are perhaps not loaded at all."""
    assert Tsc().writes(SECOND, now=SECOND) == []
    assert Tsc().writes(SECOND, now=SECOND + 70_000) == []


def test_a_counter_of_long_ago_is_set_back() -> None:
    assert Tsc().writes(SECOND, now=10 * SECOND)[-1] == (TSC, SECOND)


def test_a_boot_leaves_all_counters_at_zero() -> None:
    tsc = Tsc()
    assert tsc.writes(0, now=JUST_NOW) == tsc.writes(0, now=JUST_NOW) == [(TSC, 0)]


def test_another_time_is_agreed_on_anew() -> None:
    tsc = Tsc()
    tsc.writes(9 * SECOND, now=JUST_NOW)
    assert len(tsc.writes(20 * SECOND, now=JUST_NOW)) == 2
    assert tsc.writes(20 * SECOND + 1, now=JUST_NOW) == [(TSC, 20 * SECOND)]
