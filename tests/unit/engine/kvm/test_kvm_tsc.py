"""What is written into time-stamp counters so that they agree."""

import pytest

from hibana.engine.kvm.msr import TSC
from hibana.engine.kvm.tsc import Tsc

SECOND = 3_000_000_000


@pytest.mark.parametrize("young", [1, SECOND // 100, SECOND // 2, 100 * SECOND])
def test_the_first_counter_of_a_virtual_machine_takes_a_detour_far_away(young: int) -> None:
    (first, far), (second, value) = Tsc().writes(young)
    assert (first, second, value) == (TSC, TSC, young)
    assert far - value > 1000 * SECOND


def test_the_others_get_the_first_ones_value() -> None:
    tsc = Tsc()
    tsc.writes(9 * SECOND)
    assert tsc.writes(9 * SECOND + 70_000) == [(TSC, 9 * SECOND)]
    assert tsc.writes(9 * SECOND - 5) == [(TSC, 9 * SECOND)]


def test_a_boot_leaves_all_counters_at_zero() -> None:
    tsc = Tsc()
    assert tsc.writes(0) == tsc.writes(0) == [(TSC, 0)]


def test_another_time_is_agreed_on_anew() -> None:
    tsc = Tsc()
    tsc.writes(9 * SECOND)
    assert len(tsc.writes(20 * SECOND)) == 2
    assert tsc.writes(20 * SECOND + 1) == [(TSC, 20 * SECOND)]
