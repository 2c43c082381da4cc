"""Who runs in the boot benchmark: our soft engine in several settings, and QEMU's TCG with the same kernel, initramfs
and memory."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple, Protocol

from hibana.engine.soft.fast import switch
from tools.bench.timeline import LAST_MARK, Hung, Timeline, processor_clock, record
from tools.dev import places
from tools.dev.say import Failure, say
from tools.microvm.job import Job
from tools.microvm.process import CMDLINE

MEM_MIB: Final = 512
_LIMIT: Final = 120.0
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
    environment: Mapping[str, str]

    def command(self, folder: Path, initrd: Path) -> Sequence[str]:
        """Say how to start it."""


class Soft:
    """Hibana's soft engine, configured by a file: one process from spawn to exit."""

    def __init__(self, name: str, setting: str) -> None:
        self.name = name
        self.environment: Mapping[str, str] = {switch.VARIABLE: setting}

    def command(self, folder: Path, initrd: Path) -> Sequence[str]:
        source = {
            "kernel_image_path": str(places.GUEST / "vmlinux"),
            "initrd_path": str(initrd),
            "boot_args": CMDLINE,
        }
        machine = {"vcpu_count": 1, "mem_size_mib": MEM_MIB}
        config = folder / "vm.json"
        config.write_text(json.dumps({"boot-source": source, "drives": [], "machine-config": machine}))
        log = ("--log-path", str(folder / "log"), "--level", "Debug")
        return [str(places.FIRECRACKER), "--no-api", "--config-file", str(config), "--engine", "soft", *log]


class Qemu:
    """QEMU's TCG on its lightest machine; without `reboot=t` it would not notice the end of the guest."""

    name = "QEMU TCG"
    environment: Mapping[str, str] = {}

    def command(self, folder: Path, initrd: Path) -> Sequence[str]:
        machine = "microvm,x-option-roms=off,pic=off,rtc=on,isa-serial=on"
        bare = ("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot")
        engine = ("-M", machine, "-accel", "tcg", "-cpu", "max", "-m", str(MEM_MIB))
        cmdline = CMDLINE.replace("reboot=k", "reboot=t")
        guest = ("-kernel", str(places.GUEST / "vmlinux"), "-initrd", str(initrd), "-append", cmdline)
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
            run = _spawn(command, os.environ | contender.environment, stderr)
        if LAST_MARK not in run.timeline.at:
            raise Failure(f"{contender.name} did not reach the end of the script:\n{complaints.read_text()}")
        log = folder / "log"
        return run._replace(log=log.read_text() if log.exists() else "")


def _spawn(command: Sequence[str], environment: Mapping[str, str], stderr: IO[bytes]) -> Run:
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    clock = time.time()
    spawned = time.monotonic()
    process = subprocess.Popen(command, stdin=null, stdout=pipe, stderr=stderr, bufsize=0, env=environment)
    assert process.stdout
    with process.stdout:
        try:
            timeline = record(process.stdout, spawned, _LIMIT, processor_clock(process.pid))
        except BaseException:
            process.kill()
            process.wait()
            raise
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    whole = time.monotonic() - spawned
    return Run(timeline, whole, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, clock, "")
