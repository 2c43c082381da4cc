"""`bench boot`: from spawn to `Run /init`, and to the end of a fixed guest script, against QEMU's TCG.

Runs alternate, so that both sides see the same machine; whole processes are measured. The two guests must print the
same, or the figures compare different work.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Final

from tools.bench import plot, table
from tools.bench.contenders import MEM_MIB, Contender, Hibana, Qemu, Run, measure
from tools.bench.timeline import LAST_MARK, TO_INIT, phases
from tools.dev import build, guest, places, system
from tools.dev.say import Failure, say

_CONTENDERS: Final[tuple[Contender, ...]] = (Hibana("soft"), Qemu("tcg"))

# The VMM's own milestones in its log, and the phase that ends there.
_OUR_MILESTONES: Final[Mapping[str, str]] = {
    "Running Firecracker": "Python, first imports",
    "event_start: build microvm for boot": "other imports, configuration",
    "event_end: build microvm for boot": "memory, kernel, engine",
    "event_end: boot microvm": "start",
}


def main(arguments: Sequence[str]) -> int:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser("tools/devtool bench boot")
    parser.add_argument("--n", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    options = parser.parse_args(arguments)
    system.need("qemu-system-x86_64")
    build.ensure()
    guest.ensure()
    runs = _rounds(options.n)
    places.BENCH.mkdir(parents=True, exist_ok=True)
    (places.BENCH / "boot.svg").write_text(_plot(runs))
    print(json.dumps(_figures(runs), indent=2) if options.json else _report(runs))
    return 0


def _rounds(n: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {contender.name: [] for contender in _CONTENDERS}
    for number in range(1, n + 1):
        for contender in _CONTENDERS:
            run = measure(contender)
            runs[contender.name].append(run)
            at = run.timeline.at
            say(f"  {number}/{n} {contender.name:<12} /init {at[TO_INIT]:.2f} s, script {at[LAST_MARK]:.2f} s")
    outputs = {run.timeline.printed for rounds in runs.values() for run in rounds}
    if len(outputs) != 1:
        raise Failure("the guests printed different results:\n" + "\n--\n".join("\n".join(text) for text in outputs))
    return runs


def _figures(runs: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, list[float] | dict[str, float]]]:
    return {
        name: {
            "to_init_s": [run.timeline.at[TO_INIT] for run in rounds],
            "to_script_end_s": [run.timeline.at[LAST_MARK] for run in rounds],
            "process_s": [run.whole for run in rounds],
            "cpu_s": [run.cpu for run in rounds],
            "peak_rss_mib": [run.peak_rss_mib for run in rounds],
            "phases_s": _median_phases(rounds),
            "start_up_s": _start_up(rounds),
        }
        for name, rounds in runs.items()
    }


def _report(runs: Mapping[str, Sequence[Run]]) -> str:
    ours, theirs = (runs[contender.name] for contender in _CONTENDERS)
    head = ["median (best)", *runs, "ratio"]
    totals = [
        head,
        _row("spawn → Run /init", [[run.timeline.at[TO_INIT] for run in side] for side in (ours, theirs)]),
        _row("spawn → end of script", [[run.timeline.at[LAST_MARK] for run in side] for side in (ours, theirs)]),
        _row("spawn → exit", [[run.whole for run in side] for side in (ours, theirs)]),
        _row("processor time", [[run.cpu for run in side] for side in (ours, theirs)]),
        [
            "peak memory",
            *(f"{median(run.peak_rss_mib for run in side):.0f} MiB" for side in (ours, theirs)),
            f"{median(run.peak_rss_mib for run in ours) / median(run.peak_rss_mib for run in theirs):.2f}",
        ],
    ]
    our_phases, their_phases = _median_phases(ours), _median_phases(theirs)
    by_phase = [["phase", *runs, "ratio"]] + [
        [phase, f"{took:.3f} s", f"{their_phases[phase]:.3f} s", f"{took / their_phases[phase]:.2f}"]
        for phase, took in our_phases.items()
    ]
    start_up = [["our start-up", "took"]] + [[phase, f"{took * 1e3:.1f} ms"] for phase, took in _start_up(ours).items()]
    title = f"1 vCPU, {MEM_MIB} MiB, {len(ours)} alternating runs of each"
    tables = "\n\n".join(table.render(rows) for rows in (totals, by_phase, start_up))
    return f"{title}\n\n{tables}\n\nplot: {(places.BENCH / 'boot.svg').relative_to(places.ROOT)}"


def _row(name: str, sides: Sequence[Sequence[float]]) -> list[str]:
    return [name, *(table.seconds(side) for side in sides), table.ratio(*sides)]


def _median_phases(rounds: Sequence[Run]) -> dict[str, float]:
    each = [phases(run.timeline) for run in rounds]
    return {phase: median(one[phase] for one in each) for phase in each[0]}


def _start_up(rounds: Sequence[Run]) -> dict[str, float]:
    """Find our own milestones in the logs; QEMU has none."""
    each = [_our_phases(run) for run in rounds]
    return {phase: median(one[phase] for one in each) for phase in each[0]}


def _our_phases(run: Run) -> dict[str, float]:
    durations: dict[str, float] = {}
    before = run.clock
    for milestone, phase in _OUR_MILESTONES.items():
        if found := re.search(rf"^(\S{{26}})\S* .*{re.escape(milestone)}", run.log, re.MULTILINE):
            moment = datetime.fromisoformat(found[1]).timestamp()
            durations[phase] = moment - before
            before = moment
    return durations


def _plot(runs: Mapping[str, Sequence[Run]]) -> str:
    bars = {name: _median_phases(rounds) for name, rounds in runs.items()}
    return plot.stacked_bars(f"Debian 12 boots and works: seconds by phase, {MEM_MIB} MiB, 1 vCPU", bars)
