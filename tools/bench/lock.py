"""`bench lock`: how long an exit of the kvm engine takes where threads want the interpreter lock, by switch interval.

Each vCPU executes OUT for ever, on a thread of its own, and reads the time stamp counter before and after: what the
guest feels is the exit, the wait for the lock, and the way through runner and bus and back. It hands the figure to its
device with the next OUT. Nothing in Python sees the wait alone, since KVM_RUN returns to Python only when it has the
lock; but with one vCPU and an idle loop there is nobody to wait for, and what is more than that is the wait.

There are two guests. One makes exits in a row, and is back with the next one before a thread that waits for the lock
has woken up: it waits once in many exits. The other one halts in between until its timer ticks, as a guest that has
little to do, and waits each time.

The loop's thread, where it is busy, decodes bodies of API calls one after the other: Python code that never waits for
anything, which is the worst that can happen. How many it gets done, against what it does alone, is the other half of
the bargain. docs/performance.md says what came of it.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby, product
from statistics import median, quantiles
from struct import pack, pack_into
from typing import Final, NamedTuple

from hibana.bus.guest_bus import GuestBus
from hibana.config.machine import MachineConfig
from hibana.engine.interface import KICKED, Runner, Stop
from hibana.engine.kvm.engine import KvmEngine
from hibana.engine.kvm.vm import KvmVm
from hibana.memory.guest import GuestMemory
from hibana.serde.records import decode
from hibana.units import MIB
from tools.bench import table
from tools.bench.exits import START, Register, started
from tools.bench.tsc import tsc_khz
from tools.dev.say import Failure

INTERVALS: Final = (0.005, 0.001, 0.0001, 0.00001)
"""Switch intervals in seconds; the first one is Python's own."""
_TICKS: Final = (0, 1000)
"""What the guests let pass from exit to exit, in µs. The host stops looking out for a halted CPU's end after 200."""
_TRIES: Final = 10
_PORT: Final = 0x80
"""The device of vCPU 0; that of vCPU 1 follows."""
_APART: Final = 0x100
"""From the program of a vCPU to that of the next."""
_VECTOR: Final = 0x20
"""What the timer of vCPU 0 raises; that of vCPU 1 follows."""
_HALT: Final = bytes.fromhex("fb f4")  # sti; hlt
_END_OF_INTERRUPT: Final = bytes.fromhex("6667c705") + pack("<II", 0xFEE0_00B0, 0)  # mov dword [0xfee000b0], 0
_TIMER: Final = {0xF0: 0x1FF, 0x3E0: 0b1011}
"""Registers of the local APIC → values: on; its timer counts nanoseconds."""
_TIMER_VECTOR: Final = 0x320
_TIMER_COUNT: Final = 0x380
_PERIODIC: Final = 1 << 17
_BODY: Final = b'{"vcpu_count": 2, "mem_size_mib": 1024, "smt": false, "track_dirty_pages": true, "huge_pages": "None"}'


class Case(NamedTuple):
    """What is measured."""

    tick: int
    """What the guest lets pass from exit to exit, in µs; 0 for nothing."""
    vcpus: int
    busy: bool
    """Whether the loop's thread has work."""
    interval: float
    """The switch interval, in seconds."""


class Run(NamedTuple):
    """What one run of a case has shown."""

    exits: Sequence[float]
    """How long each took, on all vCPUs, in µs."""
    done: int
    """How often the loop's thread has done its work meanwhile."""


class Figures(NamedTuple):
    """What all runs of a case have shown."""

    p50_us: float
    p99_us: float
    exits_per_s: float
    """Of all vCPUs."""
    loop: float
    """What the loop's thread gets done, as a part of what it does without vCPUs."""


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("tools/devtool bench lock")
    parser.add_argument("--n", type=int, default=5, help="runs of each case, in turn (5)")
    parser.add_argument("--seconds", type=float, default=0.25, help="how long a run takes (0.25)")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    options = parser.parse_args(arguments)
    if reason := KvmEngine().missing():
        raise Failure(f"bench: {reason}")
    figures = _measure(options.n, options.seconds)
    if options.json:
        print(json.dumps([case._asdict() | each._asdict() for case, each in figures.items()], indent=2))
    else:
        print(report(figures))
    return 0


def _measure(n: int, seconds: float) -> dict[Case, Figures]:
    khz = tsc_khz()
    alone: list[int] = []
    runs: dict[Case, list[Run]] = {Case(*each): [] for each in product(_TICKS, (1, 2), (False, True), INTERVALS)}
    for _ in range(n):
        alone.append(_decode_bodies(seconds))
        for case, each in runs.items():
            each.append(_first_telling(partial(_run, case, seconds, khz)))
    return {case: summary(case, each, seconds, median(alone)) for case, each in runs.items()}


def _first_telling(run: Callable[[], Run]) -> Run:
    """Run until there were exits: on a machine that others use, vCPUs may not get to make any in a short run."""
    for _ in range(_TRIES):
        found = run()
        if len(found.exits) > 1:
            break
    return found


def summary(case: Case, runs: Sequence[Run], seconds: float, alone: float) -> Figures:
    """Summarise runs of so many seconds; `alone` is what the loop gets done in one of them without vCPUs."""
    exits = [took for run in runs for took in run.exits]
    if len(exits) < 2:
        raise Failure(f"bench: a guest came to a standstill ({_situation(case)})")
    percentiles = quantiles(exits, n=100, method="inclusive")
    done = median(run.done for run in runs)
    return Figures(percentiles[49], percentiles[98], len(exits) / (len(runs) * seconds), done / alone)


def report(figures: Mapping[Case, Figures]) -> str:
    """Lay the figures out for people: a line for each situation, a column for each switch interval."""
    head = [f"{interval * 1e6:.0f} µs" for interval in INTERVALS]
    times, shares = [["an exit in µs, p50 / p99", *head]], [["exits per s / work the loop gets done", *head]]
    for what, group in groupby(figures.items(), lambda item: _situation(item[0])):
        cases, found = zip(*group, strict=True)
        times.append([what, *(f"{each.p50_us:.0f} / {each.p99_us:.0f}" for each in found)])
        if cases[0].busy:
            shares.append([what, *(f"{each.exits_per_s:.0f} / {each.loop:.0%}" for each in found)])
    return f"{table.render(times)}\n\n{table.render(shares)}"


def _situation(case: Case) -> str:
    often = f"every {case.tick} µs" if case.tick else "in a row"
    vcpus = "1 vCPU" if case.vcpus == 1 else f"{case.vcpus} vCPUs"
    return f"{often}, {vcpus}, loop {'busy' if case.busy else 'idle'}"


# --- one run ----------------------------------------------------------------------------------------------------------


class _Notes(Register):
    """A device that notes what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[int] = []

    def write(self, offset: int, size: int, value: int) -> None:
        self.values.append(value)


class _Vcpu(threading.Thread):
    """The thread of one vCPU."""

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self.stop: Stop | None = None
        self._runner = runner

    def run(self) -> None:
        self.stop = self._runner.run()


def _run(case: Case, seconds: float, khz: int) -> Run:
    bus = GuestBus()
    notes = [_Notes() for _ in range(case.vcpus)]
    for index, each in enumerate(notes):
        bus.ports.insert(_PORT + index, 1, each)
    with _guest(case.vcpus, bus, case.tick) as vm, _switching(case.interval), _running(vm):
        if case.busy:
            done = _decode_bodies(seconds)
        else:
            done = 0
            time.sleep(seconds)
    # The first OUT has none before it to tell of.
    return Run([ticks / khz * 1000 for each in notes for ticks in each.values[1:]], done)


@contextmanager
def _guest(vcpus: int, bus: GuestBus, tick: int) -> Iterator[KvmVm]:
    memory = GuestMemory(MIB)
    vm = KvmEngine().create_vm(memory, vcpus, bus)
    try:
        for index, vcpu in enumerate(vm.vcpus):
            at, vector = START + index * _APART, _VECTOR + index
            state = started(vcpu.save(), at)
            if tick:
                state.lapic = _ticking(state.lapic, vector, tick)
                memory.write(vector * 4, pack("<HH", at + len(_HALT), 0))
                memory.write(at, _HALT + _at_tick(_PORT + index, at))
            else:
                memory.write(at, _again(_note(_PORT + index)))
            vcpu.load(state)
        yield vm
    finally:
        vm.close()
        memory.close()


def _ticking(lapic: bytes, vector: int, tick: int) -> bytes:
    """Let the timer of a local APIC raise an interrupt every so many µs."""
    page = bytearray(lapic)
    for register, value in {**_TIMER, _TIMER_VECTOR: _PERIODIC | vector, _TIMER_COUNT: tick * 1000}.items():
        pack_into("<I", page, register, value)
    return bytes(page)


def _note(port: int) -> bytes:
    """Write to the port how long the last time took."""
    # rdtsc; mov ebx, eax; mov eax, esi; out PORT, eax; rdtsc; sub eax, ebx; mov esi, eax
    return bytes.fromhex("0f31 6689c3 6689f0 66e7") + bytes((port,)) + bytes.fromhex("0f31 6629d8 6689c6")


def _at_tick(port: int, at: int) -> bytes:
    """Handle the interrupt of a program at `at`, which never returns to where it came from: its stack begins anew."""
    # mov sp, AT; …; mov dword [EOI], 0; and again from the beginning, which is to halt
    return _again(_HALT + b"\xbc" + pack("<H", at) + _note(port) + _END_OF_INTERRUPT)[len(_HALT) :]


def _again(program: bytes) -> bytes:
    """End a program with a jump to its beginning."""
    return program + b"\xeb" + pack("<b", -len(program) - 2)


@contextmanager
def _switching(interval: float) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def _running(vm: KvmVm) -> Iterator[None]:
    threads = [_Vcpu(runner) for runner in vm.runners]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for runner in vm.runners:
            runner.kick()
        for thread in threads:
            thread.join()
    for thread in threads:
        if thread.stop is not KICKED:
            raise Failure(f"the kvm engine ended the program: {thread.stop}")


def _decode_bodies(seconds: float) -> int:
    """Work without a pause for so long; give how often it was done."""
    end = time.perf_counter_ns() + int(seconds * 1e9)
    done = 0
    while time.perf_counter_ns() < end:
        decode(_BODY, MachineConfig)
        done += 1
    return done
