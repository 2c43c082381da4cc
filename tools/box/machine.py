"""One start of the box: QEMU, the stream of the command's output, and how both ended.

The command's output and its end come by a port of their own, marked as tools/microvm/job.py does; so the kernel's
messages cannot get between, and no byte is changed. A box that QEMU or the kernel inside lets down is `Broken`; a
command that fails is not.
"""

import math
import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tools.dev import places
from tools.guest.cpio import Archive
from tools.microvm.job import Job, Output
from tools.microvm.process import DIES_WITH_US
from tools.microvm.relay import Console, relay

CONSOLE: Final = "console.log"
FILES: Final = "files.tar"
_TIME_IS_UP: Final = 124  # as timeout(1) says it
_MEM_MIB: Final = 3072
_CMDLINE: Final = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check random.trust_cpu=on"
_BOOT_LIMIT: Final = 240.0
_END_LIMIT: Final = 120.0


class Broken(Exception):
    """The box itself failed, not the command; the text says how."""


class Disks(NamedTuple):
    """Images, in the order in which /init expects them."""

    system: Path
    checkout: Path
    made: Path


class Port(NamedTuple):
    """A way out of the box."""

    device: str
    end: str
    """On this side."""
    path: str
    """On the other side."""


# Not `stdio`, where there is no input: its end would disconnect the port.
PORT: Final = Port("virtserialport,nr=1", "file,path=/dev/fd/1", "/dev/vport0p1")
TERMINAL: Final = Port("virtconsole,nr=0", "stdio,signal=off", "/dev/hvc0")
"""What the command's output comes by, and a person's keys go."""


class Box:
    """A box that has been switched on; what it leaves behind is in `folder`."""

    def __init__(self, job: Job, disks: Disks, folder: Path, smp: int) -> None:
        self._folder = folder
        self._output = Output(job.word)
        initrd = folder / "initrd.cpio"
        initrd.write_bytes((places.GUEST / "box.cpio").read_bytes() + _errand(job))
        port = TERMINAL if job.terminal else PORT
        self.command = qemu(places.GUEST / "box.bzImage", initrd, disks, folder, smp, port)
        self._process = subprocess.Popen(
            [*DIES_WITH_US, *self.command],
            stdin=subprocess.PIPE if job.terminal else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )

    def boot(self) -> bytes:
        """Wait until the command runs; give what it has said by then. Raises Broken."""
        give_up = time.monotonic() + _BOOT_LIMIT
        while True:
            said = self._read(give_up)
            if said is None:
                raise Broken(f"it did not boot in {_BOOT_LIMIT:.0f} s{self._last_words()}")
            if self._output.began:
                return said

    def relay(self, show: Callable[[bytes], None], limit: float, silence: float = math.inf) -> int:
        """Pass on what the command says until the box is off; give its exit code.

        Raises Broken, also when it has been silent for too long: emulated machines have been seen to freeze.
        """
        give_up = time.monotonic() + limit
        while self._output.exit_code is None:
            said = self._read(min(give_up, time.monotonic() + silence))
            if said is None and time.monotonic() < give_up:
                raise Broken(f"nothing has been heard of it for {silence:.0f} s{self._last_words()}")
            if said is None:
                return _TIME_IS_UP
            show(said)
        try:
            self._process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            raise Broken(f"the command ended, but not the box{self._last_words()}") from None
        return self._output.exit_code

    def converse(self, keyboard: int) -> int:
        """Let a person at a raw terminal speak with the command until the box is off; give its exit code.

        Raises Broken, and Left if the person goes away.
        """
        assert self._process.stdin
        assert self._process.stdout
        console = Console(self._process.stdout.fileno(), self._process.stdin.fileno())
        relay(console, self._output, keyboard, verbose=False)
        self._process.wait()
        if self._output.exit_code is None:
            raise self._went_off()
        return self._output.exit_code

    def stop(self) -> None:
        """End it, however it is."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream:
                stream.close()

    def _read(self, give_up: float) -> bytes | None:
        """Give the command's part of what arrives next; None when time is up. Raises Broken at an early end."""
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], max(0, give_up - time.monotonic()))
        if not ready:
            return None
        arrived = os.read(self._process.stdout.fileno(), 1 << 16)
        if not arrived:
            self._process.wait()
            raise self._went_off()
        return self._output.feed(arrived)

    def _went_off(self) -> Broken:
        return Broken(f"it went off before the command had ended{self._last_words()}")

    def _last_words(self) -> str:
        """Quote QEMU, if it is dead, and the kernel."""
        assert self._process.stderr
        said = self._process.stderr.read().decode() if self._process.poll() is not None else ""
        console = self._folder / CONSOLE
        log = console.read_text(errors="replace") if console.exists() else ""
        return "".join(f"\n    {line}" for line in [*said.splitlines(), *log.splitlines()[-20:]])


def qemu(kernel: Path, initrd: Path, disks: Disks, folder: Path, smp: int, output: Port) -> list[str]:
    """Write QEMU's command line: not `-M microvm`, whose clock cannot be calibrated on a busy host."""
    machine = ("-M", "q35", "-accel", "tcg,tb-size=512", "-cpu", "EPYC,+svm", "-smp", str(smp))
    bare = ("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
    guest = ("-m", str(_MEM_MIB), "-kernel", str(kernel), "-initrd", str(initrd), "-append", _CMDLINE)
    # What is written to the disks is gone with the box, so several boxes can use one image.
    drives = [word for path in disks for word in ("-drive", f"if=virtio,format=raw,snapshot=on,file={_quoted(path)}")]
    files = Port("virtserialport,nr=2", f"file,path={_quoted(folder / FILES)}", "/dev/vport0p2")
    ports = ["-serial", f"file:{_quoted(folder / CONSOLE)}", "-device", "virtio-serial-pci"]
    for name, port in (("output", output), ("files", files)):
        ports += ["-chardev", f"{port.end},id={name}", "-device", f"{port.device},chardev={name}"]
    return ["qemu-system-x86_64", *machine, *bare, *guest, *drives, *ports]


def _quoted(path: Path) -> str:
    return str(path).replace(",", ",,")


def _errand(job: Job) -> bytes:
    """Write the part of the initramfs that says what to do, and where."""
    archive = Archive()
    archive.file("job/run", job.script().encode(), 0o755)
    archive.file("job/checkout", f"{places.ROOT}\n".encode())
    archive.file("job/port", f"{(TERMINAL if job.terminal else PORT).path}\n".encode())
    return archive.to_bytes()
