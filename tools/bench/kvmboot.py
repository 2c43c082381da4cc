"""`bench kvmboot`: the kvm engine against QEMU on the same KVM, inside the box, and its exits against a loop in C.

Debian boots quietly to user space; whole processes are measured, in turn. Seconds there are those of an emulated
machine: they compare, and say nothing about hardware.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.bench import table
from tools.bench.contenders import MEM_MIB
from tools.bench.kvm_inside import FIGURES, FLOOR
from tools.dev import kvmbox, system
from tools.dev.say import Failure, Step


def main(arguments: Sequence[str]) -> int:
    """Measure in the box, print here."""
    parser = argparse.ArgumentParser("tools/devtool bench kvmboot")
    parser.add_argument("--n", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    options = parser.parse_args(arguments)
    _compile_floor()
    FIGURES.unlink(missing_ok=True)
    inside = ("python", "-m", "tools.bench.kvm_inside", str(options.n))
    if code := kvmbox.run(kvmbox.Order(inside), _show):
        raise Failure(f"the benchmark ended with {code} in the box")
    figures = FIGURES.read_text()
    print(figures if options.json else _report(json.loads(figures)))
    return 0


def _compile_floor() -> None:
    """Compile the loop here: the box has no compiler, and no C library but its own."""
    system.need("gcc")
    FLOOR.parent.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("exit_floor.c")
    with Step("exit_floor.c: compiling"):
        subprocess.run(["gcc", "-O2", "-static", "-o", str(FLOOR), str(source)], check=True)


def _show(said: bytes) -> None:
    os.write(sys.stderr.fileno(), said)


def _report(figures: Mapping[str, Any]) -> str:
    ours, theirs = figures["boots_s"].values()
    boots = [["median (best)", *figures["boots_s"], "ratio"]] + [
        _row(what, [boot[key] for boot in ours], [boot[key] for boot in theirs])
        for what, key in (("spawn → user space", "to_userspace"), ("spawn → exit", "whole"))
    ]
    exits = [["µs for", "kvm engine", "loop in C", "ratio"]] + [
        [name, f"{engine / 1e3:.1f}", f"{floor / 1e3:.1f}", f"{engine / floor:.2f}"]
        for name, (engine, floor) in figures["exits_ns"].items()
    ]
    title = f"in the box: 1 vCPU, {MEM_MIB} MiB, quiet, {len(ours)} alternating runs of each"
    return f"{title}\n\n{table.render(boots)}\n\n{table.render(exits)}"


def _row(what: str, ours: Sequence[float], theirs: Sequence[float]) -> list[str]:
    return [what, table.seconds(ours), table.seconds(theirs), table.ratio(ours, theirs)]
