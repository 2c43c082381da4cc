"""The vocabulary of the guest tests: `vm = boot(…)`, `vm.wait_for("login:")`, `vm.run("nproc")`, `vm.exit_code`."""

import os
import secrets
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from hibana.sdk.machine import Machine
from tests.guest import jailed
from tests.guest.console import Console
from tools.dev import places
from tools.guest.cpio import Archive
from tools.microvm.process import CMDLINE, Firecracker, Wanted

# One boot takes 2 s on an idle machine, twice that inside the box; a loaded CI machine may be twenty times slower.
PATIENCE: Final = 240.0 if "HIBANA_BOX" in os.environ else 120.0

# Every byte of the kernel's messages costs two exits, which inside the box take longer than the boot itself.
_CMDLINE: Final = f"{CMDLINE} quiet"

# A shell that is spoken to by a program: no echo, and no prompt, because it takes the line for a script.
_SHELL: Final = """#!/bin/sh
stty -echo -opost
printf '\\036listening\\n'
setsid -c sh /dev/ttyS0 <>/dev/ttyS0 >&0 2>&1
"""


def _nothing(_api: Machine) -> None:
    """Leave the machine without devices."""


class MicroVm:
    """One running microVM."""

    def __init__(self, vmm: Firecracker) -> None:
        self.vmm = vmm
        self.console = Console(vmm.stdout, vmm.stdin)

    @property
    def api(self) -> Machine:
        """The VMM's API."""
        return self.vmm.api

    @property
    def exit_code(self) -> int:
        """How the VMM ended; waits for it."""
        return self.vmm.process.wait(PATIENCE)

    @property
    def is_running(self) -> bool:
        """Whether the VMM's process lives."""
        return self.vmm.process.poll() is None

    def wait_for(self, text: str, timeout: float = PATIENCE) -> str:
        """Wait until the console says `text`; return everything since the last wait."""
        return self.console.wait_for(text, timeout)

    def send(self, text: str) -> None:
        """Type on the serial line."""
        self.console.send(text)

    def run(self, command: str, timeout: float = PATIENCE, exit_code: int = 0) -> str:
        """Run a command in the guest's shell, expect its exit code, return its output without the last line end."""
        word = secrets.token_hex(8)
        # In a shell of its own, so that what it does to its shell does not outlive it.
        self.send(f"sh -c {shlex.quote(command)} </dev/null 2>&1; printf '\\036{word} %d\\n' $?\n")
        output = self.wait_for(f"\036{word} ", timeout).removesuffix(f"\036{word} ")
        code = int(self.wait_for("\n", timeout))
        assert code == exit_code, f"{command!r} ended with {code}:\n{output}"
        return output.removesuffix("\n")

    def stop(self) -> None:
        """End it, however it is."""
        self.vmm.process.kill()
        self.vmm.process.wait()
        self.console.join()
        self.vmm.stop()


def start(
    folder: Path,
    engine: str,
    *,
    kernel: str | Path = "vmlinux",
    initrd: str = "initrd.cpio",
    vcpus: int = 1,
    mem: int = 256,
    smt: bool = False,
    cmdline: str = "",
    shell: bool = True,
    prepare: Callable[[Machine], None] = _nothing,
    launcher: Sequence[str] = (),
) -> MicroVm:
    """Boot a microVM; with `shell` wait until `run` works, without it the guest does what its /init does.

    `prepare` may ask the API for devices before the start. `launcher` locks the VMM up.
    """
    image = places.GUEST / initrd
    if shell:
        image = folder / "initrd.cpio"
        image.write_bytes((places.GUEST / initrd).read_bytes() + _shell_archive())
    if jailed.EVERYTHING_JAILED:
        launcher = launcher or jailed.launcher(folder)
    vm = MicroVm(Firecracker(places.FIRECRACKER, folder, "--engine", engine, launcher=launcher))
    try:
        prepare(vm.api)
        arguments = f"{_CMDLINE} {cmdline}".strip()
        vm.vmm.boot(Wanted(places.GUEST / kernel, image, arguments, vcpus, mem, smt=smt))
        if shell:
            vm.wait_for("\036listening\n")
    except BaseException:
        vm.stop()
        raise
    return vm


def _shell_archive() -> bytes:
    archive = Archive()
    archive.file("job/run", _SHELL.encode(), 0o755)
    return archive.to_bytes()
