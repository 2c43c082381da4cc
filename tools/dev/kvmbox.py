"""`kvmbox [--smp N] [--timeout S] [--silence S] [--keep] [-- CMD…]`: run CMD where KVM works, even if it does not here.

The box is a machine that QEMU emulates, virtualization included. CMD runs there as root, in this checkout, with
build/bin, build/guest and build/venv; what is in build/box-in goes along. Its output is shown as it comes, and its exit
code is ours (124 when time is up); what it puts below build/box-out is then in build/box-out here. A box that breaks
down, or of which nothing is heard for the seconds of --silence, is started once more.

On a terminal and without CMD: a shell in the box, for as long as its user likes.
"""

import argparse
import math
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from tools.box.checkout import checkout_disk
from tools.box.machine import FILES, TERMINAL, Box, Broken, Disks
from tools.box.made import made_disk
from tools.dev import guest, places, system
from tools.dev.leaving import leave_in_order
from tools.dev.say import Failure, Step, say
from tools.guest.debian import DebianError
from tools.microvm.job import Job, own_terminal
from tools.microvm.relay import Left, RawTerminal

Show = Callable[[bytes], None]
_SHELL: Final = ("bash",)


class Order(NamedTuple):
    """What to run, and on what; without a command, a shell for the person at our terminal."""

    command: Sequence[str]
    smp: int = 1
    limit_s: float = 900
    silence_s: float = math.inf
    keep: bool = False


def main(arguments: Sequence[str]) -> int:
    """Run the command, and show what it says."""
    leave_in_order()
    return run(_parse(arguments), _show)


def run(order: Order, show: Show) -> int:
    """Run a command in the box; give its exit code."""
    system.need("git", "qemu-system-x86_64")
    guest.ensure()
    guest.ensure_rootfs()
    guest.ensure_box()
    try:
        made = made_disk()
        try:
            return _start(order, made, show)
        except Broken as broken:
            say(f"devtool: the box broke down and is started once more: {broken}")
            return _start(order, made, show)
    except (Broken, DebianError) as error:
        raise Failure(f"kvmbox: {error}") from error


def _start(order: Order, made: Path, show: Show) -> int:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=places.BOX))
        if not order.keep:
            stack.callback(shutil.rmtree, folder)
        with Step("box: packing the checkout"):
            disks = Disks(places.GUEST / "box.ext4", checkout_disk(folder), made)
        terminal = None if order.command else own_terminal(TERMINAL.path)
        box = Box(Job(order.command or _SHELL, terminal), disks, folder, order.smp)
        stack.callback(box.stop)
        if order.keep:
            say(f"devtool: the box is kept in {folder}; it was started by\n    {shlex.join(box.command)}")
        with Step("box: starting"):
            said = box.boot()
        show(said)
        try:
            code = _converse(box, stack) if terminal else box.relay(show, order.limit_s, order.silence_s)
        except Left:
            return 0
        _bring_back(folder / FILES)
        return code


def _converse(box: Box, stack: ExitStack) -> int:
    say("The box is up; Ctrl-A x leaves it, and what is in build/box-out there.")
    keyboard = sys.stdin.fileno()
    stack.enter_context(RawTerminal(keyboard))
    return box.converse(keyboard)


def _bring_back(files: Path) -> None:
    """Unpack what the box has put out; nothing, if it was stopped before it could."""
    places.BOX_OUT.mkdir(exist_ok=True)
    if files.stat().st_size:
        subprocess.run(["tar", "-x", "--no-same-owner", "-f", str(files), "-C", str(places.BOX_OUT)], check=True)


def _show(said: bytes) -> None:
    sys.stdout.buffer.write(said)
    sys.stdout.buffer.flush()


def _parse(arguments: Sequence[str]) -> Order:
    parser = argparse.ArgumentParser("tools/devtool kvmbox", description="Run a command where KVM works.")
    parser.add_argument("--smp", type=int, default=1, metavar="N", help="processors of the box (1)")
    parser.add_argument("--timeout", type=float, default=900, metavar="S", help="seconds for the command (900)")
    parser.add_argument("--silence", type=float, default=math.inf, metavar="S", help="seconds without a word (any)")
    parser.add_argument("--keep", action="store_true", help="keep the box's disks and console log, and say where")
    parser.add_argument("command", nargs="*", metavar="CMD", help="what to run, behind `--` (on a terminal: a shell)")
    options = parser.parse_args(arguments)
    if not options.command and not own_terminal():
        parser.error("say what to run, behind `--`: a shell needs a terminal")
    return Order(options.command, options.smp, options.timeout, options.silence, options.keep)
