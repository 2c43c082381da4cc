"""Who runs in benchmarks of whole guests: one of our engines in some setting, and QEMU with the same of everything."""

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
from tools.bench.tsc import tsc_khz
from tools.dev import places
from tools.dev.say import Failure, say
from tools.microvm.job import Job
from tools.microvm.network import Network
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


class Hardware(NamedTuple):
    """What a microVM has besides kernel and memory, and what its kernel is told."""

    vcpus: int = 1
    drive: Path | None = None
    """The root file system, which the guest may change."""
    network: Network | None = None
    quiet: bool = False
    """Whether the kernel keeps its messages to itself."""

    @property
    def cmdline(self) -> str:
        """What the kernel is told of it by whoever starts it."""
        words = [CMDLINE, *(["quiet"] if self.quiet else []), *([self.network.cmdline] if self.network else [])]
        return " ".join(words)


class Contender(Protocol):
    """Something that can boot a benchmark's microVM."""

    name: str
    environment: Mapping[str, str]

    def command(self, folder: Path, initrd: Path, hardware: Hardware) -> Sequence[str]:
        """Say how to start it."""


class Hibana:
    """One of Hibana's engines, configured by a file: one process from spawn to exit."""

    def __init__(self, name: str, engine: str = "soft", setting: str = "") -> None:
        self.name = name
        self.environment: Mapping[str, str] = {switch.VARIABLE: setting}
        self._engine = engine

    def command(self, folder: Path, initrd: Path, hardware: Hardware) -> Sequence[str]:
        source = {
            "kernel_image_path": str(places.GUEST / "vmlinux"),
            "initrd_path": str(initrd),
            "boot_args": hardware.cmdline,
        }
        machine = {"vcpu_count": hardware.vcpus, "mem_size_mib": MEM_MIB}
        config = folder / "vm.json"
        wanted = {"boot-source": source, "machine-config": machine, **_our_devices(hardware)}
        config.write_text(json.dumps(wanted))
        log = ("--log-path", str(folder / "log"), "--level", "Debug")
        return [str(places.FIRECRACKER), "--no-api", "--config-file", str(config), "--engine", self._engine, *log]


class Qemu:
    """QEMU on its lightest machine; without `reboot=t` it would not notice the end of the guest."""

    environment: Mapping[str, str] = {}

    def __init__(self, accelerator: str) -> None:
        self.name = f"QEMU {accelerator.upper()}"
        self._accelerator = accelerator

    def command(self, folder: Path, initrd: Path, hardware: Hardware) -> Sequence[str]:
        machine = "microvm,x-option-roms=off,pic=off,rtc=on,isa-serial=on"
        bare = ("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot")
        engine: tuple[str, ...] = ("-M", machine, "-accel", self._accelerator, "-cpu", "max", "-m", str(MEM_MIB))
        engine += ("-smp", str(hardware.vcpus))
        cmdline = hardware.cmdline.replace("reboot=k", "reboot=t")
        if hardware.drive:
            # Only where the boot itself is not measured: it spares the guest the comparison of its clocks.
            cmdline += f" root=/dev/vda rw tsc=reliable tsc_early_khz={tsc_khz()}"
        guest = ("-kernel", str(places.GUEST / "vmlinux"), "-initrd", str(initrd), "-append", cmdline)
        return ["qemu-system-x86_64", *engine, *bare, *guest, *_qemu_devices(hardware)]


def _our_devices(hardware: Hardware) -> dict[str, object]:
    drive, network = hardware.drive, hardware.network
    drives = [{"drive_id": "rootfs", "is_root_device": True, "path_on_host": str(drive)}] if drive else []
    interface = network and {"iface_id": "eth0", "host_dev_name": network.tap, "guest_mac": network.guest_mac}
    return {"drives": drives, "network-interfaces": [interface] if interface else []}


def _qemu_devices(hardware: Hardware) -> list[str]:
    devices: list[str] = []
    if drive := hardware.drive:
        devices += ["-drive", f"id=root,file={drive},format=raw,if=none", "-device", "virtio-blk-device,drive=root"]
    if network := hardware.network:
        devices += ["-netdev", f"tap,id=net,ifname={network.tap},script=no,downscript=no"]
        devices += ["-device", f"virtio-net-device,netdev=net,mac={network.guest_mac}"]
    return devices


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
        command = contender.command(folder, initrd, Hardware())
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
