"""The lock benchmark: percentiles over all runs, one line for a situation, and guests that make exits."""

import json
import re

import pytest

from hibana.engine.kvm.engine import KvmEngine
from tools.bench import lock
from tools.bench.lock import Case, Figures, Run
from tools.dev.say import Failure


def test_percentiles_are_those_of_all_runs_together() -> None:
    runs = [Run(list(range(51)), done=20), Run(list(range(51, 101)), done=40), Run([], done=30)]
    assert lock.summary(Case(0, 1, True, 0.005), runs, seconds=0.5, alone=60) == Figures(
        p50_us=50, p99_us=99, exits_per_s=101 / 1.5, loop=0.5
    )


def test_a_guest_that_makes_no_exits_is_no_figure() -> None:
    with pytest.raises(Failure, match=r"standstill \(every 1000 µs, 1 vCPU, loop busy\)"):
        lock.summary(Case(1000, 1, True, 0.005), [Run([7.0], done=1)], seconds=1, alone=1)


@pytest.mark.parametrize(("silent", "told"), [(0, 5), (9, 5), (10, 0)])
def test_a_run_in_which_nobody_got_anywhere_is_repeated_for_a_while(silent: int, told: int) -> None:
    runs = [Run([], done=1)] * silent + [Run([7.0] * 5, done=1)]
    assert len(lock._first_telling(iter(runs).__next__).exits) == told


def test_people_get_a_line_for_each_situation_and_what_is_left_for_a_busy_loop() -> None:
    figures = {
        Case(tick, 2, busy, interval): Figures(10.2, 5 * interval * 1e6, 1234.4, 0.876)
        for tick in (0, 1000)
        for busy in (False, True)
        for interval in lock.INTERVALS
    }
    times, loop = lock.report(figures).split("\n\n")
    assert re.split("  +", times.splitlines()[0])[1:] == ["5000 µs", "1000 µs", "100 µs", "10 µs"]
    assert [line.partition("  ")[0] for line in times.splitlines()[2:]] == [
        "in a row, 2 vCPUs, loop idle",
        "in a row, 2 vCPUs, loop busy",
        "every 1000 µs, 2 vCPUs, loop idle",
        "every 1000 µs, 2 vCPUs, loop busy",
    ]
    assert re.split("  +", times.splitlines()[2])[1:] == ["10 / 25000", "10 / 5000", "10 / 500", "10 / 50"]
    assert [line.count("1234 / 88%") for line in loop.splitlines()] == [0, 0, 4, 4]


def test_every_case_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if reason := KvmEngine().missing():
        pytest.skip(reason)
    monkeypatch.setattr(lock, "INTERVALS", (0.0001,))
    assert lock.main(["--n", "1", "--seconds", "0.5", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len({(row["tick"], row["vcpus"], row["busy"]) for row in rows}) == 8
    assert [row for row in rows if not 0 < row["p50_us"] <= row["p99_us"]] == []
    assert [row for row in rows if row["loop"] and not row["busy"]] == []


def test_without_kvm_there_is_nothing_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KvmEngine, "missing", lambda _: "this host has no KVM.")
    with pytest.raises(Failure, match="this host has no KVM"):
        lock.main([])
