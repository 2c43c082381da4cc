"""One boot from spawn to exit: what the guest printed, or how it failed."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from hibana.engine.soft.fast import switch
from tools.dev import places
from tools.microvm.job import Job, Output
from tools.microvm.process import CMDLINE

_SMALL_BUFFER: Final = (sys.executable, "-m", "tests.endurance.small_buffer_vmm")


class Guest(NamedTuple):
    """What boots, and in which setting of the engine."""

    script: str
    vcpus: int = 1
    mem_mib: int = 256
    initrd: str = "initrd.cpio"
    setting: str = switch.FAST
    small_buffer: bool = False
    """Translate into 16 MiB, which is full several times in a boot."""


class Failed(Exception):
    """A guest hung, died or did not get to its end; the text is what is known."""


def run(guest: Guest, patience_s: float) -> str:
    """Boot a guest and give what its script printed. Raises Failed."""
    with tempfile.TemporaryDirectory(prefix="hibana-endurance-") as name:
        folder = Path(name)
        job = Job(["sh", "-c", guest.script])
        config = _configuration(guest, job.initrd(places.GUEST / guest.initrd, folder))
        (folder / "vm.json").write_text(json.dumps(config))
        program = _SMALL_BUFFER if guest.small_buffer else (str(places.FIRECRACKER),)
        options = ("--no-api", "--config-file", str(folder / "vm.json"), "--engine", "soft")
        command = [*program, *options, "--log-path", str(folder / "log")]
        return _ending(command, guest.setting, patience_s, Output(job.word))


def _configuration(guest: Guest, initrd: Path) -> dict[str, object]:
    source = {
        "kernel_image_path": str(places.GUEST / "vmlinux"),
        "initrd_path": str(initrd),
        "boot_args": CMDLINE,
    }
    machine = {"vcpu_count": guest.vcpus, "mem_size_mib": guest.mem_mib}
    return {"boot-source": source, "drives": [], "machine-config": machine}


def _ending(command: list[str], setting: str, patience_s: float, output: Output) -> str:
    """Run to the end."""
    environment = os.environ | {switch.VARIABLE: setting, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience_s, check=False,
            env=environment, cwd=places.ROOT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        raise Failed(f"hangs; the last words: {_tail(late.stdout)}") from None
    printed = output.feed(done.stdout).decode(errors="replace")
    if done.returncode or output.exit_code != 0:
        ends = f"exit code {done.returncode}, the guest's {output.exit_code}"
        raise Failed(f"{ends}: {_tail(done.stdout)} {_tail(done.stderr)}")
    return printed


def _tail(text: bytes | None) -> str:
    return (text or b"")[-400:].decode(errors="replace")
