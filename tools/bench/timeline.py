"""When a booting guest said what: its console, with the time of every line."""

import os
import select
import time
from collections.abc import Callable, Mapping
from typing import IO, Final, NamedTuple

# What the kernel prints on its way, in this order, on every machine of ours; the phase that ends there.
KERNEL_MILESTONES: Final[Mapping[str, str]] = {
    "Linux version": "start, early kernel",  # said when the console opens, with all that was said before
    "smpboot: Total of": "clock, CPUs",
    "clocksource: Switched to": "subsystems",
    "Freeing initrd memory": "initramfs unpacked",
    "Run /init": "drivers, certificates",
}
TO_INIT: Final = "Run /init"
SCRIPT_END: Final = "MARK perl"
LAST_MARK: Final = "MARK forks-500"
_CPUCLOCK_SCHED: Final = 2
HANGS: Final = "Unable to calibrate against PIT"
"""What the kernel says when QEMU has lost the calibration of its clock; it will not go on."""


class Hung(Exception):
    """The guest will not go on: QEMU's microvm lost the calibration of its clock, or time is up."""


class Timeline(NamedTuple):
    """Milestones of one run, seconds since the process was spawned, and the lines the script printed."""

    at: dict[str, float]
    printed: tuple[str, ...]
    worked: dict[str, float]
    """The same milestones, seconds of processor time: what stays comparable on a busy machine."""


def processor_clock(pid: int) -> Callable[[], float]:
    """Give the clock of the processor time that a process has used, all threads together (clock_getcpuclockid(3))."""
    clock = ~pid << 3 | _CPUCLOCK_SCHED
    return lambda: time.clock_gettime(clock)


def record(console: IO[bytes], spawned: float, limit: float, worked: Callable[[], float]) -> Timeline:
    """Read the console until it closes. Raises Hung."""
    at: dict[str, float] = {}
    at_work: dict[str, float] = {}
    printed: list[str] = []
    rest = b""
    while piece := read(console, spawned + limit):
        now = time.monotonic() - spawned
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            if HANGS in text:
                raise Hung(text)
            _note(text, now, at, printed)
        if at.keys() - at_work.keys():
            at_work |= dict.fromkeys(at.keys() - at_work.keys(), worked())
    return Timeline(at, tuple(printed), at_work)


def read(console: IO[bytes], give_up: float) -> bytes:
    """Read what there is; nothing at the end. Raises Hung when the time has come to give up."""
    ready, _, _ = select.select([console], [], [], max(0, give_up - time.monotonic()))
    if not ready:
        raise Hung("time is up")
    return os.read(console.fileno(), 65536)


def _note(text: str, now: float, at: dict[str, float], printed: list[str]) -> None:
    if text.startswith("MARK "):
        at[text] = now
    elif text.startswith("["):
        for milestone in KERNEL_MILESTONES:
            if milestone in text:
                at.setdefault(milestone, now)
    elif TO_INIT in at and not text.startswith("\036"):
        printed.append(text)


def phases(at: Mapping[str, float]) -> dict[str, float]:
    """Turn moments into durations: each phase from the end of the one before."""
    moments = {phase: at[milestone] for milestone, phase in KERNEL_MILESTONES.items()}
    moments |= {mark.removeprefix("MARK "): moment for mark, moment in at.items() if mark.startswith("MARK ")}
    durations: dict[str, float] = {}
    before = 0.0
    for phase, moment in sorted(moments.items(), key=lambda item: item[1]):
        durations[phase] = moment - before
        before = moment
    return durations
