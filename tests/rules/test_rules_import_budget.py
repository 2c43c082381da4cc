"""What may be loaded before a client is answered (style.md §2.2).

The budget is counted in modules, which is the same on every machine; `tools/devtool bench startup` has the
milliseconds.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.dev import launcher, places

IMPORTTIME = (sys.executable, "-I", "-S", "-X", "importtime")

# Not in this list, though forbidden too: msgspec tries to import typing_extensions, and the report names that as well.
NEVER_BEFORE_THE_FIRST_ANSWER = {
    *("asyncio", "logging", "rich", "unicorn", "dataclasses", "inspect", "h11", "lz4", "backports", "email", "http"),
    *("urllib", "ssl"),
}
NEVER_FOR_A_VERSION = NEVER_BEFORE_THE_FIRST_ANSWER | {"msgspec"}

MODULES_FOR_A_VERSION = 70
MODULES_BEFORE_THE_FIRST_ANSWER = 190


@pytest.fixture
def program() -> list[str]:
    """Give the program as it runs where it is a script: Python's report on imports has to be asked for."""
    if not places.RUNTIME.exists():
        pytest.skip("build/runtime is not there: run tools/devtool build")
    return ["-c", launcher.statements("hibana.cli.firecracker")]


def imported(importtime: str) -> set[str]:
    """Read the module names out of what `-X importtime` printed."""
    rows = (line for line in importtime.splitlines() if line.startswith("import time:"))
    return {row.rpartition("|")[2].strip() for row in rows} - {"imported package"}


def bare_interpreter() -> set[str]:
    return imported(subprocess.run([*IMPORTTIME, "-c", "pass"], check=True, capture_output=True, text=True).stderr)


def first_parts(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.fixture
def modules_before_the_first_answer(program: list[str], tmp_path: Path) -> Iterator[set[str]]:
    path = tmp_path / "api.socket"
    with open(tmp_path / "imports", "w+") as report:
        vmm = subprocess.Popen(
            [*IMPORTTIME, *program, "--api-sock", str(path)], stdin=subprocess.DEVNULL, stderr=report
        )
        try:
            ask(path)
        finally:
            vmm.kill()
            vmm.wait()
        report.seek(0)
        yield imported(report.read()) - bare_interpreter()


def ask(path: Path) -> None:
    """Wait for the socket, and for the answer to the cheapest request."""
    give_up = time.monotonic() + 60
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        while client.connect_ex(str(path)):
            assert time.monotonic() < give_up, "the socket does not appear"
            time.sleep(0.01)
        client.sendall(b"GET /version HTTP/1.1\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_version_is_printed_without_loading_the_vmm(program: list[str]) -> None:
    done = subprocess.run([*IMPORTTIME, *program, "--version"], check=True, capture_output=True, text=True)
    modules = imported(done.stderr) - bare_interpreter()
    assert done.stdout.startswith("Firecracker v")
    assert not NEVER_FOR_A_VERSION & first_parts(modules)
    assert len(modules) <= MODULES_FOR_A_VERSION, sorted(modules)


def test_the_first_request_is_answered_before_the_engine_is_loaded(modules_before_the_first_answer: set[str]) -> None:
    modules = modules_before_the_first_answer
    assert "hibana.api.server" in modules
    assert not NEVER_BEFORE_THE_FIRST_ANSWER & first_parts(modules)
    assert not [module for module in modules if module.startswith(("hibana.engine.soft", "hibana.engine.kvm"))]
    assert len(modules) <= MODULES_BEFORE_THE_FIRST_ANSWER, sorted(modules)


def test_the_programs_own_packages_bring_no_typing_extensions(program: list[str]) -> None:
    assert not list(places.RUNTIME.glob("typing_extensions*"))
