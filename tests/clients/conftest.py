"""A server process for clients to talk to."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

HERE = os.path.dirname(__file__)
SOURCE = os.path.join(HERE, "..", "..", "src")


class ApiProcess(NamedTuple):
    """The server under test."""

    path: str
    process: "subprocess.Popen[bytes]"

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(self.path)
        return client

    def memory_kib(self, field: str) -> int:
        """Read VmRSS, or VmHWM for the greatest so far."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(field))


@pytest.fixture
def api(tmp_path: os.PathLike[str]) -> Iterator[ApiProcess]:
    path = os.path.join(tmp_path, "api.sock")
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    command = [sys.executable, os.path.join(HERE, "fake_vmm.py"), path]
    with open(os.path.join(tmp_path, "log"), "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log)
    while not os.path.exists(path):
        assert process.poll() is None, "the server did not start"
        time.sleep(0.01)
    time.sleep(0.01)  # the file exists a moment before somebody listens
    yield ApiProcess(path, process)
    process.kill()
    process.wait()
