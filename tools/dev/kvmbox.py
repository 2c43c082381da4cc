"""`kvmbox [--smp N] [--timeout S] [--keep] -- CMD…`: run CMD where KVM works, whatever this machine can do.

The box is a machine that QEMU emulates, virtualization included. CMD runs there as root, in this checkout, with
build/bin, build/guest and build/venv; what is in build/box-in goes along. Its output is shown as it comes, and its exit
code is ours (124 when time is up); what it puts below build/box-out is then in build/box-out here. A box that breaks
down is started once more.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tools.box.checkout import checkout_disk
from tools.box.machine import FILES, Box, Broken, Disks
from tools.box.made import made_disk
from tools.dev import guest, places, system
from tools.dev.say import Failure, Step, say
from tools.guest.debian import DebianError
from tools.microvm.job import Job


def main(arguments: Sequence[str]) -> int:
    """Run the command, and show what it says."""
    options = _parse(arguments)
    return run(options.command, smp=options.smp, limit=options.timeout, keep=options.keep, show=_show)


def run(
    command: Sequence[str], *, limit: float, show: Callable[[bytes], None], smp: int = 1, keep: bool = False
) -> int:
    """Run a command in the box; give its exit code."""
    system.need("git", "qemu-system-x86_64")
    guest.ensure()
    guest.ensure_rootfs()
    guest.ensure_box()
    try:
        made = made_disk()
        try:
            return _start(command, made, smp, limit, keep, show)
        except Broken as broken:
            say(f"devtool: the box broke down and is started once more: {broken}")
            return _start(command, made, smp, limit, keep, show)
    except (Broken, DebianError) as error:
        raise Failure(f"kvmbox: {error}") from error


def _start(
    command: Sequence[str], made: Path, smp: int, limit: float, keep: bool, show: Callable[[bytes], None]
) -> int:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=places.BOX))
        if not keep:
            stack.callback(shutil.rmtree, folder)
        with Step("box: packing the checkout"):
            disks = Disks(places.GUEST / "box.ext4", checkout_disk(folder), made)
        with Step("box: starting"):
            box = Box(Job(command), disks, folder, smp)
            stack.callback(box.stop)
            if keep:
                say(f"devtool: kept in {folder}; started by: {shlex.join(box.command)}")
            said = box.boot()
        show(said)
        code = box.relay(show, limit)
        _bring_back(folder / FILES)
        return code


def _bring_back(files: Path) -> None:
    """Unpack what the box has put out; nothing, if it was stopped before it could."""
    places.BOX_OUT.mkdir(exist_ok=True)
    if files.stat().st_size:
        subprocess.run(["tar", "-x", "--no-same-owner", "-f", str(files), "-C", str(places.BOX_OUT)], check=True)


def _show(said: bytes) -> None:
    os.write(sys.stdout.fileno(), said)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("tools/devtool kvmbox", description="Run a command where KVM works.")
    parser.add_argument("--smp", type=int, default=1, metavar="N", help="processors of the box (1)")
    parser.add_argument("--timeout", type=float, default=900, metavar="S", help="seconds for the command (900)")
    parser.add_argument("--keep", action="store_true", help="keep the box's disks and console log, and say where")
    parser.add_argument("command", nargs="+", metavar="CMD", help="what to run, behind `--`")
    return parser.parse_args(arguments)
