"""When a time-stamp counter is set by a detour."""

from hibana.engine.kvm.msr import TSC
from hibana.engine.kvm.tsc import Tsc

SECOND = 3_000_000_000


def test_the_first_counter_of_a_virtual_machine_takes_a_detour_far_away() -> None:
    ((msr, value),) = Tsc().detour(SECOND // 2)
    assert msr == TSC
    assert value - SECOND // 2 > 1000 * SECOND


def test_the_others_follow_the_first() -> None:
    tsc = Tsc()
    tsc.detour(SECOND)
    assert tsc.detour(SECOND + 5) == []


def test_a_boot_leaves_all_counters_together() -> None:
    tsc = Tsc()
    assert tsc.detour(0) == []
    assert len(tsc.detour(SECOND)) == 1
