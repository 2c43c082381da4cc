"""The local APIC timer: counts, periods, masks, and a clock that jumps."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.engine.soft.clock import CRYSTAL_HZ
from hibana.engine.soft.lapic_timer import NEVER, LapicTimer

DIVIDE_BY_1 = 0xB
DIVIDE_BY_16 = 0x3
TICK = 10**9 // CRYSTAL_HZ


@dataclass
class Clock:
    ns: int = 0
    changes: int = 0

    def now(self) -> int:
        return self.ns

    def changed(self) -> None:
        self.changes += 1


def timer(clock: Clock, periodic: bool = False, masked: bool = False, divide: int = DIVIDE_BY_1) -> LapicTimer:
    chip = LapicTimer(clock.changed, clock.now)
    chip.configure(masked, periodic)
    chip.write_divide(divide)
    return chip


def test_the_crystal_is_a_whole_number_of_nanoseconds() -> None:
    assert CRYSTAL_HZ * TICK == 10**9


@pytest.mark.parametrize(
    ("divide", "divider"),
    [(0x0, 2), (0x1, 4), (0x2, 8), (0x3, 16), (0x8, 32), (0x9, 64), (0xA, 128), (0xB, 1)],
)
def test_the_divider_table(divide: int, divider: int) -> None:
    clock = Clock()
    chip = timer(clock, divide=divide)
    chip.write_initial_count(1000)
    assert chip.due == 1000 * divider * TICK


@given(st.integers(1, 2**32 - 1), st.sampled_from([0, 3, 11]), st.integers(0, 2**40))
def test_a_one_shot_counts_down_once(count: int, divide: int, elapsed: int) -> None:
    clock = Clock(ns=5_000)
    chip = timer(clock, divide=divide)
    chip.write_initial_count(count)
    clock.ns += elapsed
    tick = TICK * {0: 2, 3: 16, 11: 1}[divide]
    assert chip.current_count() == max(0, count - elapsed // tick)
    assert chip.expire(clock.ns) is (elapsed >= count * tick)
    if elapsed >= count * tick:
        assert chip.due == NEVER


@given(st.integers(3_000, 2**32 - 1), st.lists(st.integers(0, 2**36), max_size=10))
def test_a_periodic_timer_never_drifts(count: int, steps: list[int]) -> None:
    clock = Clock(ns=777)
    chip = timer(clock, periodic=True)
    chip.write_initial_count(count)
    period = count * TICK
    for step in steps:
        clock.ns += step
        chip.expire(clock.ns)
        assert chip.due > clock.ns
        assert chip.due - clock.ns <= period
        assert (chip.due - 777) % period == 0
        assert chip.current_count() == count - (clock.ns - 777) % period // TICK


def test_missed_periods_are_one_interrupt() -> None:
    clock = Clock()
    chip = timer(clock, periodic=True)
    chip.write_initial_count(25_000)
    clock.ns = 10_500_000
    assert chip.expire(clock.ns)
    assert not chip.expire(clock.ns)
    assert chip.due == 11_000_000


def test_a_very_fast_periodic_timer_leaves_the_guest_time() -> None:
    clock = Clock()
    chip = timer(clock, periodic=True)
    chip.write_initial_count(3)
    clock.ns = 120
    assert chip.expire(clock.ns)
    assert chip.due >= 100_000
    assert chip.due % 120 == 0
    clock.ns = 130
    assert chip.current_count() == 3


def test_writing_zero_stops_the_timer() -> None:
    clock = Clock()
    chip = timer(clock)
    chip.write_initial_count(100)
    chip.write_initial_count(0)
    clock.ns = 10**9
    assert chip.due == NEVER
    assert not chip.expire(clock.ns)
    assert chip.current_count() == 0


def test_a_masked_timer_counts_but_wakes_nobody() -> None:
    clock = Clock()
    chip = timer(clock, masked=True)
    chip.write_initial_count(1000)
    clock.ns = 400 * TICK
    assert chip.due == NEVER
    assert chip.current_count() == 600
    chip.configure(masked=False, periodic=False)
    assert chip.due == 1000 * TICK


def test_what_expired_while_masked_stays_silent() -> None:
    clock = Clock()
    one_shot, periodic = timer(clock, masked=True), timer(clock, masked=True, periodic=True)
    one_shot.write_initial_count(25_000)
    periodic.write_initial_count(25_000)
    clock.ns = 2_500_000
    one_shot.configure(masked=False, periodic=False)
    periodic.configure(masked=False, periodic=True)
    assert one_shot.due == NEVER
    assert periodic.due == 3_000_000


def test_an_expiry_not_yet_delivered_survives_a_change_of_the_divider() -> None:
    clock = Clock()
    chip = timer(clock)
    chip.write_initial_count(10)
    clock.ns = 1_000
    chip.write_divide(DIVIDE_BY_16)
    assert chip.expire(clock.ns)


def test_a_change_of_the_divider_goes_on_from_the_current_count() -> None:
    clock = Clock()
    chip = timer(clock)
    chip.write_initial_count(1000)
    clock.ns = 400 * TICK
    chip.write_divide(DIVIDE_BY_16)
    assert chip.current_count() == 600
    assert chip.due == 400 * TICK + 600 * 16 * TICK


def test_the_scheduler_hears_of_every_move_and_only_of_moves() -> None:
    clock = Clock()
    chip = timer(clock)
    chip.write_initial_count(100)
    assert clock.changes == 1
    chip.write_initial_count(100)
    assert clock.changes == 1
    chip.write_initial_count(0)
    assert clock.changes == 2
