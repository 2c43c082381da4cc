"""What a program imports until it answers its first request, and how long each module takes (`-X importtime`)."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tools.dev import launcher


class Import(NamedTuple):
    """One module; times in microseconds, dearer than without the measuring."""

    module: str
    own_us: int
    with_below_us: int


def imports_of(module: str) -> list[Import]:
    """Start the program whose `entry` is in a module, ask it one thing, and read what it imported."""
    with tempfile.TemporaryDirectory(prefix="hibana-bench-") as folder:
        path, report = Path(folder) / "api.socket", Path(folder) / "imports"
        command = [os.path.realpath(sys.executable), "-I", "-S", "-X", "importtime", "-c", launcher.statements(module)]
        with open(report, "wb") as stderr:
            process = subprocess.Popen(
                [*command, "--api-sock", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
            try:
                with socket.socket(socket.AF_UNIX) as client:
                    while client.connect_ex(str(path)):
                        time.sleep(0.01)
                    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    client.recv(4096)
            finally:
                process.kill()
                process.wait()
        return parse(report.read_text())


def parse(report: str) -> list[Import]:
    """Read the table that Python prints."""
    rows = [line.removeprefix("import time:").split("|") for line in report.splitlines() if "|" in line]
    return [Import(name.strip(), int(own), int(below)) for own, below, name in rows[1:]]
