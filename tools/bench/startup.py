"""`bench startup`: from spawn to a listening socket, how fast calls are answered before boot, and what idling costs.

As root also from the spawn of the jailer to a listening socket inside the jail; the goal is 60 ms.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from tools.bench import table
from tools.bench.imports import Import, imports_of
from tools.dev import build, places

_POLL: Final = 0.0002
_CALLS: Final = 200
_JAILED_USER: Final = 123_456
_REQUEST: Final = b"GET / HTTP/1.1\r\n\r\n"


class Start(NamedTuple):
    """One process, from spawn to idle; times in seconds, memory in KiB."""

    to_socket: float
    cpu: float
    calls: list[float]
    rss_kib: int
    private_dirty_kib: int


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("tools/devtool bench startup")
    parser.add_argument("--n", type=int, default=20, help="processes (20)")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    options = parser.parse_args(arguments)
    build.ensure()
    bare = [_bare() for _ in range(options.n)]
    starts = [_start() for _ in range(options.n)]
    jailed = [_jailed(f"bench-{os.getpid()}-{number}") for number in range(options.n)] if os.geteuid() == 0 else []
    imports = imports_of("hibana.cli.firecracker")
    if options.json:
        figures = {"bare_python_s": bare, "jailed_s": jailed, "starts": [start._asdict() for start in starts]}
        print(json.dumps(figures, indent=2))
    else:
        print(_report(bare, starts, jailed, imports))
    return 0


def _bare() -> float:
    """Time an interpreter that does nothing: nothing can be faster."""
    began = time.monotonic()
    subprocess.run([os.path.realpath(sys.executable), "-I", "-S", "-c", "pass"], check=True)
    return time.monotonic() - began


def _start() -> Start:
    with tempfile.TemporaryDirectory(prefix="hibana-bench-") as folder:
        path = Path(folder) / "api.socket"
        began = time.monotonic()
        process = subprocess.Popen(
            [str(places.FIRECRACKER), "--api-sock", str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            with socket.socket(socket.AF_UNIX) as client:
                while client.connect_ex(str(path)):
                    time.sleep(_POLL)
                to_socket = time.monotonic() - began
                calls = [_call(client) for _ in range(_CALLS)]
            cpu = _cpu(process.pid)
            return Start(to_socket, cpu, calls, *_memory(process.pid))
        finally:
            process.kill()
            process.wait()


def _jailed(name: str) -> float:
    """Time a VMM that starts in a jail."""
    with tempfile.TemporaryDirectory(prefix="jails-") as base:
        path = Path(base) / "firecracker" / name / "root/run/firecracker.socket"
        command = [str(places.BIN / "jailer"), "--id", name, "--exec-file", str(places.FIRECRACKER)]
        user = ["--uid", str(_JAILED_USER), "--gid", str(_JAILED_USER), "--chroot-base-dir", base]
        began = time.monotonic()
        process = subprocess.Popen([*command, *user], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            with socket.socket(socket.AF_UNIX) as client:
                while client.connect_ex(str(path)):
                    time.sleep(_POLL)
                return time.monotonic() - began
        finally:
            process.kill()
            process.wait()


def _call(client: socket.socket) -> float:
    began = time.monotonic()
    client.sendall(_REQUEST)
    client.recv(4096)
    return time.monotonic() - began


def _cpu(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _memory(pid: int) -> tuple[int, int]:
    rows = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    sizes = {row[0]: int(row[1]) for row in rows}
    return sizes["Rss:"], sizes["Private_Dirty:"]


def _report(bare: Sequence[float], starts: Sequence[Start], jailed: Sequence[float], imports: Sequence[Import]) -> str:
    calls = sorted(call for start in starts for call in start.calls[1:])
    figures = [
        ["median (best)", "firecracker", "bare Python"],
        ["spawn → socket", table.milliseconds([start.to_socket for start in starts]), table.milliseconds(bare)],
        ["spawn → socket in a jail", table.milliseconds(jailed) if jailed else "needs root", ""],
        ["processor time, with calls", table.milliseconds([start.cpu for start in starts]), ""],
        ["first call", table.milliseconds([start.calls[0] for start in starts]), ""],
        ["GET /, median", f"{median(calls) * 1e6:.0f} µs", ""],
        ["GET /, p99", f"{calls[len(calls) * 99 // 100] * 1e6:.0f} µs", ""],
        ["resident at idle", f"{median(start.rss_kib for start in starts) / 1024:.1f} MiB", ""],
        ["… private and dirty", f"{median(start.private_dirty_kib for start in starts) / 1024:.1f} MiB", ""],
    ]
    slowest = sorted(imports, key=lambda one: -one.own_us)[:15]
    by_module = [["slowest imports", "own ms", "with all below"]] + [
        [one.module, f"{one.own_us / 1e3:.2f}", f"{one.with_below_us / 1e3:.2f}"] for one in slowest
    ]
    total = f"{len(imports)} modules, {sum(one.own_us for one in imports) / 1e3:.1f} ms with -X importtime"
    return f"{len(starts)} processes\n\n{table.render(figures)}\n\n{table.render(by_module)}\n{total}"
