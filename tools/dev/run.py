"""`run [--engine E] [--vcpus N] [--mem MIB] [--rootfs] [--net] [--verbose] [-- CMD…]`: boot a microVM.

On a terminal and without CMD: a shell in the guest. Otherwise CMD runs there, or a short report; then the guest powers
off and CMD's exit code is ours. Without `--rootfs` the guest is busybox in memory; with it, Debian on a drive, of which
each microVM gets a copy of its own. `--net` gives it a network card, and needs root.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from hibana.config.net import NetworkInterfaceConfig
from hibana.sdk.machine import ApiError
from tools.dev import build, guest, places, system
from tools.dev.leaving import leave_in_order
from tools.dev.say import Failure, say
from tools.microvm.drive import copy_on_write
from tools.microvm.job import REPORT, SHELL, Job, Output, own_terminal
from tools.microvm.network import Network, NetworkError
from tools.microvm.process import CMDLINE, DIES_WITH_US, Firecracker, VmmDied, Wanted
from tools.microvm.relay import Console, Left, RawTerminal, relay


def main(arguments: Sequence[str]) -> int:
    """Boot, run, power off."""
    own, command = _split(arguments)
    options = _parse(own)
    build.ensure()
    guest.ensure()
    if options.rootfs:
        guest.ensure_rootfs()
    leave_in_order()
    terminal = own_terminal()
    report = not command and not terminal
    job = Job(command or (["sh", "-c", REPORT] if report else SHELL), terminal)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hibana-run-")))
        wanted = _wanted(options, job.initrd(places.GUEST / "initrd.cpio", folder), stack)
        return _run(job, options, wanted, folder, terminal is not None, report)


def _wanted(options: argparse.Namespace, initrd: Path, stack: ExitStack) -> Wanted:
    """Make what the microVM needs of the host; it goes with `stack`."""
    cmdline = CMDLINE if options.verbose else f"{CMDLINE} quiet"
    rootfs = stack.enter_context(copy_on_write(places.GUEST / "rootfs.ext4")) if options.rootfs else None
    interface = None
    if options.net:
        if not os.geteuid():
            system.need("ip", *(() if shutil.which("iptables") else ("nft",)))
        try:
            network = stack.enter_context(Network())
        except NetworkError as error:
            raise Failure(f"--net: {error}") from error
        for note in network.notes:
            say(f"devtool: --net: {note}")
        interface = NetworkInterfaceConfig("eth0", network.tap, network.guest_mac)
        cmdline = f"{cmdline} {network.cmdline}"
    return Wanted(places.GUEST / "vmlinux", initrd, cmdline, options.vcpus, options.mem, rootfs, interface)


def _run(job: Job, options: argparse.Namespace, wanted: Wanted, folder: Path, on_terminal: bool, report: bool) -> int:
    output = Output(job.word)
    with ExitStack() as stack:
        launcher = (*DIES_WITH_US, str(places.FIRECRACKER))
        engine = ("--engine", options.engine) if options.engine else ()
        vmm = Firecracker(places.FIRECRACKER, folder, *engine, launcher=launcher)
        stack.callback(vmm.stop)
        try:
            vmm.boot(wanted)
            if on_terminal:
                say("microVM is starting; Ctrl-A x leaves it.")
                stack.enter_context(RawTerminal(sys.stdin.fileno()))
            console = Console(vmm.stdout.fileno(), vmm.stdin.fileno())
            relay(console, output, sys.stdin.fileno() if on_terminal else None, options.verbose)
        except (ApiError, VmmDied) as error:
            raise Failure(str(error)) from error
        except Left:
            return 0
        vmm.process.wait()
        if output.exit_code is None:
            raise Failure(f"the guest ended without an exit code. {vmm.last_words()}")
        if report:
            took = time.monotonic() - vmm.started
            print(f"{_engine(vmm.log)} engine; from start to power-off: {took:.2f} s")
    return output.exit_code


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Divide our options from the command behind `--`."""
    at = list(arguments).index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("tools/devtool run", description="Boot a microVM.", epilog="-- CMD…: what to run")
    parser.add_argument("--engine", choices=("auto", "kvm", "soft"))
    parser.add_argument("--vcpus", type=int, default=1, metavar="N")
    parser.add_argument("--mem", type=int, default=512, metavar="MIB")
    parser.add_argument("--rootfs", action="store_true", help="Debian on a drive instead of busybox in memory")
    parser.add_argument("--net", action="store_true", help="a network card; needs root")
    parser.add_argument("--verbose", action="store_true", help="show the kernel's own messages too")
    return parser.parse_args(arguments)


def _engine(log: Path) -> str:
    """Read the engine that was chosen out of the VMM's log."""
    found = re.search(r"on the (\w+) engine", log.read_text())
    return found[1] if found else "unknown"
