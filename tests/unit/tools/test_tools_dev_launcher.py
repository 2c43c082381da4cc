"""How a module becomes a program."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.dev import launcher, places
from tools.dev.launcher import Link

TELL = """
import os, sys, threading
def entry():
    print(sys.argv, sys.executable, "site" in sys.modules, sys.flags.isolated, sys.flags.utf8_mode)
    print(open("/proc/self/comm").read().strip(), open("/proc/self/cmdline").read().split("\\0")[0])
    print("nothing imported from the folder:", "" not in sys.path and os.getcwd() not in sys.path)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(places, "BUILD", tmp_path)
    monkeypatch.setattr(places, "SOURCE", tmp_path)
    (tmp_path / "tell.py").write_text(TELL)
    yield tmp_path


@pytest.fixture
def link() -> Link:
    link = next(launcher.links(), None)
    if link is None:
        pytest.skip(f"no native launchers on this machine: {launcher.HOW_TO_GET_ONE}")
    return link


def said(program: Path, *words: str) -> list[str]:
    environment = {"PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere", "LANG": "C"}
    done = subprocess.run([program, *words], check=True, capture_output=True, text=True, env=environment)
    return done.stdout.splitlines()


def test_a_native_program_looks_like_what_it_is(link: Link, folder: Path) -> None:
    program = folder / "firecracker"
    assert launcher.make(program, "tell") == f"native, {link.name}"
    assert said(program, "--id", "é") == [
        f"['{program}', '--id', 'é'] {program} False 1 1",
        f"firecracker {program}",
        "nothing imported from the folder: True",
    ]


def test_a_native_program_is_made_once(link: Link, folder: Path) -> None:
    program = folder / "firecracker"
    launcher.make(program, "tell")
    first = program.stat()
    launcher.make(program, "tell")
    assert program.stat().st_ino == first.st_ino
    launcher.make(program, "tell.other")
    assert program.stat().st_ino != first.st_ino


def test_a_program_that_is_found_by_a_link_knows_its_own_file(link: Link, folder: Path) -> None:
    launcher.make(folder / "firecracker", "tell")
    (folder / "link").symlink_to("firecracker")
    assert said(folder / "link")[0].startswith(f"['{folder}/firecracker']")


def test_an_error_is_reported_and_fails(link: Link, folder: Path) -> None:
    program = folder / "firecracker"
    launcher.make(program, "nowhere")
    done = subprocess.run([program], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "No module named 'nowhere'" in done.stderr


def test_where_nothing_can_be_compiled_a_script_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    program = folder / "firecracker"
    assert launcher.make(program, "tell") == "a script"
    first, *_ = program.read_text().splitlines()
    assert first == f"#!{os.path.realpath(places.VENV / 'bin/python')} -IS"
    assert said(program, "x")[0].startswith(f"['{program}', 'x'] ")
    assert said(program)[1].startswith("firecracker ")
