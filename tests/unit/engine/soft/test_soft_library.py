"""Finding and recognising the one library the engine is made for."""

import os
import subprocess
import sys
from typing import Final

import pytest

from hibana.engine.soft import library
from hibana.engine.soft.offsets import BUILD_ID

SOURCES: Final = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 4, "src"))


@pytest.fixture
def installed() -> str:
    """Give the path of the real library."""
    if reason := library.missing():
        pytest.skip(reason)
    path = library.find()
    assert path
    return path


def _install(directory: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    where = os.path.join(directory, "unicorn", "lib")
    os.makedirs(where)
    with open(os.path.join(where, "libunicorn.so.2"), "wb") as file:
        file.write(content)
    monkeypatch.setattr(sys, "path", [directory])


def test_without_the_package_the_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/nowhere"])
    reason = library.missing()
    assert reason == "the unicorn package is not installed; `pip install unicorn==2.1.4` brings it."


def test_another_build_is_refused_by_its_build_id(
    installed: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(installed, "rb") as file:
        start = file.read(4096)
    other = start.replace(bytes.fromhex(BUILD_ID), bytes.fromhex("00" * 20))
    assert other != start
    _install(str(tmp_path), other, monkeypatch)
    reason = library.missing()
    assert reason and f"has build-id {'00' * 20}" in reason and BUILD_ID in reason


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(100), b"#!/bin/sh\n" * 20])
def test_a_file_that_is_no_such_library_is_refused(
    content: bytes, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(str(tmp_path), content, monkeypatch)
    reason = library.missing()
    assert reason and "has build-id none" in reason


def test_other_machines_are_told_what_the_engine_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*machine[:4], "aarch64")))
    assert library.missing() == "the soft engine runs on x86-64 Linux only."


def test_the_engine_never_imports_the_package(installed: str) -> None:
    program = """
import sys
from hibana.engine.soft import engine, machine_code
machine_code.load()
sys.exit("unicorn" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": SOURCES}, check=False)
    assert done.returncode == 0
