"""Who runs in the boot benchmarks: one of our engines, and QEMU with the same kernel, initramfs and memory."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple, Protocol

from tools.bench.timeline import LAST_MARK, Hung, Timeline, record
from tools.dev import places
from tools.dev.say import Failure, say
from tools.microvm.job import Job
from tools.microvm.process import CMDLINE

MEM_MIB: Final = 512
_LIMIT: Final = 60.0
_TRIES: Final = 20


class Run(NamedTuple):
    """One boot, one script, one power-off."""

    timeline: Timeline
    whole: float
    peak_rss_mib: float
    cpu: float
    clock: float
    """When it was spawned, in the time of the log."""
    log: str


class Contender(Protocol):
    """Something that can boot the benchmark's microVM."""

    name: str

    def command(self, folder: Path, initrd: Path) -> Sequence[str]:
        """Say how to start it."""


class Hibana:
    """One of Hibana's engines, configured by a file: one process from spawn to exit."""

    def __init__(self, engine: str, cmdline: str = CMDLINE) -> None:
        self.name = f"hibana {engine}"
        self._engine = engine
        self._cmdline = cmdline

    def command(self, folder: Path, initrd: Path) -> Sequence[str]:
        source = {
            "kernel_image_path": str(places.GUEST / "vmlinux"),
            "initrd_path": str(initrd),
            "boot_args": self._cmdline,
        }
        machine = {"vcpu_count": 1, "mem_size_mib": MEM_MIB}
        config = folder / "vm.json"
        config.write_text(json.dumps({"boot-source": source, "drives": [], "machine-config": machine}))
        log = ("--log-path", str(folder / "log"), "--level", "Debug")
        return [str(places.FIRECRACKER), "--no-api", "--config-file", str(config), "--engine", self._engine, *log]


class Qemu:
    """QEMU on its lightest machine; without `reboot=t` it would not notice the end of the guest."""

    def __init__(self, accelerator: str, cmdline: str = CMDLINE) -> None:
        self.name = f"QEMU {accelerator.upper()}"
        self._accelerator = accelerator
        self._cmdline = cmdline.replace("reboot=k", "reboot=t")

    def command(self, folder: Path, initrd: Path) -> Sequence[str]:
        machine = "microvm,x-option-roms=off,pic=off,rtc=on,isa-serial=on"
        bare = ("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot")
        engine = ("-M", machine, "-accel", self._accelerator, "-cpu", "max", "-m", str(MEM_MIB))
        guest = ("-kernel", str(places.GUEST / "vmlinux"), "-initrd", str(initrd), "-append", self._cmdline)
        return ["qemu-system-x86_64", *engine, *bare, *guest]


def measure(contender: Contender) -> Run:
    """Run the script once; a run that hangs is said and repeated."""
    for _ in range(_TRIES):
        try:
            return _measure_once(contender)
        except Hung as hung:
            say(f"  {contender.name} hung, once more: {hung}")
    raise Failure(f"{contender.name} hung {_TRIES} times in a row")


def _measure_once(contender: Contender) -> Run:
    with tempfile.TemporaryDirectory(prefix="hibana-bench-") as name:
        folder = Path(name)
        initrd = Job(["sh", "/bench/phases.sh"]).initrd(places.GUEST / "script.cpio", folder)
        command = contender.command(folder, initrd)
        complaints = folder / "stderr"
        with open(complaints, "wb") as stderr:
            run = _spawn(command, stderr)
        if LAST_MARK not in run.timeline.at:
            raise Failure(f"{contender.name} did not reach the end of the script:\n{complaints.read_text()}")
        log = folder / "log"
        return run._replace(log=log.read_text() if log.exists() else "")


def _spawn(command: Sequence[str], stderr: IO[bytes]) -> Run:
    clock = time.time()
    spawned = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, bufsize=0)
    assert process.stdout
    with process.stdout:
        try:
            timeline = record(process.stdout, spawned, _LIMIT)
        except BaseException:
            process.kill()
            process.wait()
            raise
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    whole = time.monotonic() - spawned
    return Run(timeline, whole, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, clock, "")
