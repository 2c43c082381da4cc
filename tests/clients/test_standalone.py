"""The standalone folder runs where there is nothing else: no Python, no libraries, not even /proc."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.clients.process import config
from tests.clients.tiny_guests import RESET, kernel, say
from tests.privileges import missing_for_jails
from tools.dev import build, launcher, standalone
from tools.dev.say import Failure

VMM = ("--no-api", "--config-file", "/vm.json", "--engine", "soft", "--level", "Off")


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """Make an empty root directory with the folder in it, and /dev/null."""
    if reason := missing_for_jails():
        pytest.skip(reason)
    if next(launcher.links(), None) is None:
        pytest.skip(f"no native launchers on this machine: {launcher.HOW_TO_GET_ONE}")
    with TemporaryDirectory(prefix="room-") as path:
        try:
            standalone.build(Path(path) / "hibana", build.PROGRAMS)
        except Failure as failure:
            pytest.skip(f"no standalone folder can be made here: {failure}")
        os.mkdir(f"{path}/dev")
        os.mknod(f"{path}/dev/null", 0o20666, os.makedev(1, 3))
        yield Path(path)


def run(room: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [shutil.which("chroot") or "chroot", str(room), *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, env={})


@pytest.mark.parametrize(
    ("name", "beginning"), [("firecracker", "Firecracker v"), ("jailer", "Jailer v"), ("hibana", "Hibana ")]
)
def test_every_program_runs_in_an_otherwise_empty_chroot(room: Path, name: str, beginning: str) -> None:
    done = run(room, f"/hibana/bin/{name}", "--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(beginning)


def test_a_guest_runs_in_an_otherwise_empty_chroot(room: Path) -> None:
    (room / "kernel").write_bytes(kernel(say("spark") + RESET))
    (room / "vm.json").write_text(json.dumps(config("/kernel")))
    done = run(room, "/hibana/bin/firecracker", *VMM)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "spark" in done.stdout


def test_a_process_is_found_by_its_name_and_by_its_first_word(room: Path) -> None:
    program = room / "hibana/bin/firecracker"
    with subprocess.Popen([program, "--api-sock", room / "api.socket"], stdout=subprocess.DEVNULL) as vmm:
        try:
            while not (room / "api.socket").exists():
                assert vmm.poll() is None
            assert Path(f"/proc/{vmm.pid}/comm").read_text() == "firecracker\n"
            first, *rest = Path(f"/proc/{vmm.pid}/cmdline").read_text().split("\0")
            assert os.path.basename(first) == "firecracker"
            assert rest[-3:] == ["--api-sock", f"{room}/api.socket", ""]
        finally:
            vmm.kill()


def test_a_standalone_jailer_jails_the_program_beside_it(room: Path) -> None:
    programs = room / "hibana/bin"
    with TemporaryDirectory(prefix="jails-") as base:
        root = Path(base) / "firecracker/one/root"
        root.mkdir(parents=True)
        (root / "kernel").write_bytes(kernel(say("spark") + RESET))
        (root / "vm.json").write_text(json.dumps(config("/kernel")))
        jail = ["--id", "one", "--exec-file", str(programs / "firecracker"), "--uid", "123456", "--gid", "123456"]
        words = [str(programs / "jailer"), *jail, "--chroot-base-dir", base, "--", *VMM]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "spark" in done.stdout
