"""`bench boot`: from spawn to `Run /init`, and to the end of a fixed guest script, against QEMU's TCG.

Runs alternate, so that all sides see the same machine; whole processes are measured. All guests must print the same,
or the figures compare different work. `--ablation` leaves QEMU out and each acceleration in turn.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Final

from hibana.engine.soft.fast.switch import PLAIN, UNITS
from tools.bench import plot, table
from tools.bench.contenders import MEM_MIB, Contender, Hibana, Qemu, Run, measure
from tools.bench.timeline import SCRIPT_END, TO_INIT, phases
from tools.dev import build, guest, places, system
from tools.dev.say import Failure, say

_WHOLE: Final = Hibana("hibana", setting="fast")
_BARE: Final = Hibana("hibana, plain", setting=PLAIN)
_PEER: Final = Qemu("tcg")
_COMPARED: Final[tuple[Contender, ...]] = (_WHOLE, _BARE, _PEER)
_ABLATION: Final[tuple[Contender, ...]] = (
    _WHOLE, *(Hibana(f"without {unit}", setting=f"fast,-{unit}") for unit in UNITS), _BARE,
)  # fmt: skip
_FORKS: Final = "forks-500"

# The VMM's own milestones in its log, and the phase that ends there.
_OUR_MILESTONES: Final[Mapping[str, str]] = {
    "Running Firecracker": "Python, first imports",
    "event_start: build microvm for boot": "other imports, configuration",
    "event_end: build microvm for boot": "memory, kernel, engine",
    "event_end: boot microvm": "start",
}

# What a run comes to: the figure's name → how to read it off.
_FIGURES: Final[Mapping[str, Callable[[Run], float]]] = {
    "spawn → Run /init": lambda run: run.timeline.at[TO_INIT],
    "spawn → end of script": lambda run: run.timeline.at[SCRIPT_END],
    "500 × fork and exec": lambda run: phases(run.timeline.at)[_FORKS],
    "spawn → exit": lambda run: run.whole,
    "processor time to /init": lambda run: run.timeline.worked[TO_INIT],
    "… to end of script": lambda run: run.timeline.worked[SCRIPT_END],
    "… 500 × fork and exec": lambda run: phases(run.timeline.worked)[_FORKS],
    "… all": lambda run: run.cpu,
}
_ABLATED: Final = (
    *("spawn → Run /init", "spawn → end of script"),
    *("processor time to /init", "… to end of script", "… 500 × fork and exec"),
)

Runs = Mapping[str, Sequence[Run]]
"""Contender → its runs."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser("tools/devtool bench boot")
    parser.add_argument("--n", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--ablation", action="store_true", help="what each acceleration is worth, instead of QEMU")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    options = parser.parse_args(arguments)
    build.ensure()
    guest.ensure()
    if not options.ablation:
        system.need("qemu-system-x86_64")
    runs = _rounds(_ABLATION if options.ablation else _COMPARED, options.n)
    name, report = ("ablation", _ablation) if options.ablation else ("boot", _comparison)
    drawing = places.BENCH / f"{name}.svg"
    drawing.parent.mkdir(parents=True, exist_ok=True)
    drawing.write_text(_plot(runs))
    plotted = f"plot: {drawing.relative_to(places.ROOT)}"
    print(json.dumps(_figures(runs), indent=2) if options.json else f"{_title(runs)}\n\n{report(runs)}\n\n{plotted}")
    return 0


def _rounds(contenders: Sequence[Contender], n: int) -> Runs:
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for number in range(1, n + 1):
        for contender in contenders:
            run = measure(contender)
            runs[contender.name].append(run)
            at = run.timeline.at
            say(f"  {number}/{n} {contender.name:<20} /init {at[TO_INIT]:.2f} s, script {at[SCRIPT_END]:.2f} s")
    outputs = {run.timeline.printed for rounds in runs.values() for run in rounds}
    if len(outputs) != 1:
        raise Failure("the guests printed different results:\n" + "\n--\n".join("\n".join(text) for text in outputs))
    return runs


def _figures(runs: Runs) -> dict[str, dict[str, list[float] | dict[str, float]]]:
    return {
        name: {
            "to_init_s": [run.timeline.at[TO_INIT] for run in rounds],
            "to_script_end_s": [run.timeline.at[SCRIPT_END] for run in rounds],
            "process_s": [run.whole for run in rounds],
            "cpu_s": [run.cpu for run in rounds],
            "cpu_to_init_s": [run.timeline.worked[TO_INIT] for run in rounds],
            "cpu_to_script_end_s": [run.timeline.worked[SCRIPT_END] for run in rounds],
            "cpu_phases_s": _median([phases(run.timeline.worked) for run in rounds]),
            "peak_rss_mib": [run.peak_rss_mib for run in rounds],
            "phases_s": _median_phases(rounds),
            "start_up_s": _start_up(rounds),
        }
        for name, rounds in runs.items()
    }


def _title(runs: Runs) -> str:
    return f"1 vCPU, {MEM_MIB} MiB, {len(runs[_WHOLE.name])} alternating runs of each; median (best)"


def _comparison(runs: Runs) -> str:
    """Lay out our engine, with and without its accelerations, beside QEMU; ratios are to QEMU."""
    head = ["", *runs, "ratio", "plain's"]
    peer = runs[_PEER.name]
    ours = (runs[_WHOLE.name], runs[_BARE.name])
    totals = [head]
    for name, figure in _FIGURES.items():
        sides = {who: [figure(run) for run in rounds] for who, rounds in runs.items()}
        ratios = [table.ratio(sides[who.name], sides[_PEER.name]) for who in (_WHOLE, _BARE)]
        totals.append([name, *(table.seconds(side) for side in sides.values()), *ratios])
    memory = {who: median(run.peak_rss_mib for run in rounds) for who, rounds in runs.items()}
    ratios = [f"{memory[who.name] / memory[_PEER.name]:.2f}" for who in (_WHOLE, _BARE)]
    totals.append(["peak memory", *(f"{mib:.0f} MiB" for mib in memory.values()), *ratios])
    by_phase = [["phase", *runs, "ratio", "plain's"]]
    took = {who: _median_phases(rounds) for who, rounds in runs.items()}
    for phase, theirs in _median_phases(peer).items():
        cells = [f"{took[who][phase]:.3f} s" for who in runs]
        by_phase.append([phase, *cells, *(f"{_median_phases(side)[phase] / theirs:.2f}" for side in ours)])
    start_up = [["our start-up", "took"]]
    start_up += [[phase, f"{seconds * 1e3:.1f} ms"] for phase, seconds in _start_up(ours[0]).items()]
    return "\n\n".join(table.render(rows) for rows in (totals, by_phase, start_up))


def _ablation(runs: Runs) -> str:
    """Lay out what each acceleration is worth: seconds without it, and how many times those with it."""
    rows = [["", *_ABLATED]]
    figures, whole = [_FIGURES[name] for name in _ABLATED], runs[_WHOLE.name]
    for who, rounds in runs.items():
        sides = [([figure(run) for run in rounds], [figure(run) for run in whole]) for figure in figures]
        rows.append([who, *(f"{table.seconds(side)} {table.ratio(side, all_on)}" for side, all_on in sides)])
    return table.render(rows)


def _median_phases(rounds: Sequence[Run]) -> dict[str, float]:
    return _median([phases(run.timeline.at) for run in rounds])


def _start_up(rounds: Sequence[Run]) -> dict[str, float]:
    """Find our own milestones in the logs; QEMU has none."""
    return _median([_our_phases(run) for run in rounds])


def _median(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
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


def _plot(runs: Runs) -> str:
    bars = {name: _median_phases(rounds) for name, rounds in runs.items()}
    return plot.stacked_bars(f"Debian 12 boots and works: seconds by phase, {MEM_MIB} MiB, 1 vCPU", bars)
