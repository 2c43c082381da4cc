"""`bench guest-io`: disk and network as a guest sees them, against QEMU's TCG.

Both run the same kernel, the same Debian from a copy of the same image, and the same tap; runs alternate, so that both
see the same machine. The host's page cache holds the drive: what is measured is the way to it, and not a disk.

The second table is the attack on the interpreter lock: how long a guest of two CPUs waits for a single read while its
other CPU spins.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from tools.bench import guest_io_job, table
from tools.bench.contenders import Contender, Hardware, Hibana, Qemu
from tools.bench.timeline import HANGS, Hung, read
from tools.dev import build, guest, places, system
from tools.dev.say import Failure, say
from tools.microvm.drive import copy_on_write
from tools.microvm.job import Job, Output
from tools.microvm.network import Network

_CONTENDERS: Final[tuple[Contender, ...]] = (Hibana("hibana soft"), Qemu("tcg"))
_LIMIT: Final = 180.0
_TRIES: Final = 5
_PORT: Final = "5201"
_THROUGHPUT: Final = {
    "random_read_iops": "4 KiB random reads, one at a time, per s",
    "random_read_32_iops": "4 KiB random reads, 32 at a time, per s",
    "sequential_mb_s": "1 MiB sequential reads, MB/s",
    "to_host_mbit_s": "iperf3, guest to host, Mbit/s",
    "to_guest_mbit_s": "iperf3, host to guest, Mbit/s",
}
_LATENCY: Final = {
    "alone_p50_us": "other CPU idle: p50",
    "alone_p99_us": "other CPU idle: p99",
    "spinning_p50_us": "other CPU spins: p50",
    "spinning_p99_us": "other CPU spins: p99",
}
_NOTE: Final = """From the system call to its return, in µs (fio's clat). On soft, both CPUs and the devices are one
thread, so there is no lock to wait for: a notification is served inside the access that makes it (`bench devices` has
what that costs), and what the spinning CPU takes away is its turns."""

Figures = Mapping[str, float]


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("tools/devtool bench guest-io")
    parser.add_argument("--n", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--seconds", type=int, default=4, help="how long each figure is measured in a run (4)")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    options = parser.parse_args(arguments)
    system.need("qemu-system-x86_64", "iperf3", "ip")
    build.ensure()
    guest.ensure()
    guest.ensure_rootfs()
    with _network() as network:
        runs = _rounds(options.n, str(options.seconds), network)
    print(json.dumps(runs, indent=2) if options.json else _report(runs))
    return 0


@contextmanager
def _network() -> Iterator[Network | None]:
    """Make a tap with a server behind it; nothing without root."""
    if os.geteuid():
        say("bench: without root there is no tap, and nothing about the network")
        yield None
        return
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        address = network.cmdline.split(":")[2]
        command = ("iperf3", "--server", "--bind", address, "--port", _PORT)
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        stack.callback(server.kill)
        yield network


def _rounds(n: int, seconds: str, network: Network | None) -> dict[str, list[Figures]]:
    peer = (network.cmdline.split(":")[2], _PORT) if network else ()
    runs: dict[str, list[Figures]] = {contender.name: [] for contender in _CONTENDERS}
    for number in range(1, n + 1):
        for contender in _CONTENDERS:
            figures = _measure(contender, ("throughput", seconds, *peer), 1, network)
            figures |= _measure(contender, ("latency", seconds), 2, None)
            runs[contender.name].append(figures)
            say(f"  {number}/{n} {contender.name:<12} {figures['random_read_iops']:.0f} reads/s")
    return runs


def _measure(contender: Contender, what: Sequence[str], vcpus: int, network: Network | None) -> dict[str, float]:
    """Run the job once; a run that hangs is said and repeated."""
    job = Job(["python3", "-c", Path(guest_io_job.__file__).read_text(), *what])
    for _ in range(_TRIES):
        with copy_on_write(places.GUEST / "rootfs.ext4") as drive:
            try:
                printed = _run(contender, job, Hardware(vcpus, drive, network))
            except Hung as hung:
                say(f"  {contender.name} hung, once more: {hung}")
                continue
        figures: dict[str, float] = json.loads(printed[printed.index(b"{") :])
        return figures
    raise Failure(f"{contender.name} hung {_TRIES} times in a row")


def _run(contender: Contender, job: Job, hardware: Hardware) -> bytes:
    """Boot, run the job, power off; give what the job printed. Raises Hung."""
    with tempfile.TemporaryDirectory(prefix="hibana-bench-") as name:
        folder = Path(name)
        command = contender.command(folder, job.initrd(places.GUEST / "initrd.cpio", folder), hardware)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0)
        assert process.stdout
        output, printed, said = Output(job.word), b"", b""
        give_up = time.monotonic() + _LIMIT
        with process, process.stdout:
            try:
                while piece := read(process.stdout, give_up):
                    said += piece
                    printed += output.feed(piece)
                    if HANGS.encode() in said:
                        raise Hung(HANGS)
            finally:
                process.kill()
    if output.exit_code != 0:
        raise Failure(f"{contender.name}: the job did not succeed:\n{said[-3000:].decode(errors='replace')}")
    return printed


def _report(runs: Mapping[str, Sequence[Figures]]) -> str:
    throughput = table.render([["median (best), 1 vCPU", *runs, "ratio"], *_rows(runs, _THROUGHPUT, max)])
    latency = table.render([["a single 4 KiB read, 2 vCPUs", *runs, "ratio"], *_rows(runs, _LATENCY, min)])
    return f"{throughput}\n\n{latency}\n\n{_NOTE}"


def _rows(
    runs: Mapping[str, Sequence[Figures]], names: Mapping[str, str], best: Callable[[Sequence[float]], float]
) -> Iterator[list[str]]:
    for key, name in names.items():
        sides = [[run[key] for run in rounds if key in run] for rounds in runs.values()]
        if all(sides):
            yield [name, *(f"{median(side):.0f} ({best(side):.0f})" for side in sides), table.ratio(*sides)]
