"""The box, with a QEMU that is a shell script: what counts as the command's end, and what as the box's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.box.machine import PORT, Box, Broken, Disks, qemu
from tools.dev import places
from tools.guest import cpio
from tools.microvm.job import Job, Terminal
from tools.microvm.relay import Left

DISKS = Disks(Path("/system"), Path("/check,out"), Path("/made"))
Start = Callable[..., Box]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    """Start a box whose QEMU is a script; `begin` and `end CODE` write the marks of the job."""
    started: list[Box] = []

    def start_one(script: str, terminal: Terminal | None = None) -> Box:
        job = Job(["true"], terminal)
        program = tmp_path / "qemu-system-x86_64"
        marks = (
            f"begin() {{ printf '\\036{job.word} begin\\n'; }}\nend() {{ printf '\\036{job.word} exit %d\\n' $1; }}\n"
        )
        program.write_text(f"#!/bin/sh\n{marks}{script}\n")
        program.chmod(0o755)
        started.append(Box(job, DISKS, tmp_path, 1))
        return started[-1]

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(places, "GUEST", tmp_path)
    (tmp_path / "box.cpio").write_bytes(cpio.Archive().to_bytes())
    yield start_one
    for box in started:
        box.stop()


def run(box: Box, limit: float = 60) -> tuple[int, bytes]:
    said = [box.boot()]
    code = box.relay(said.append, limit)
    return code, b"".join(said)


def test_the_commands_output_and_exit_code_arrive(start: Start) -> None:
    assert run(start("echo kernel; begin; echo one; echo two; end 7; echo off")) == (7, b"one\ntwo\n")


def test_an_exit_code_that_qemu_could_not_carry_arrives(start: Start) -> None:
    assert run(start("begin; end 255")) == (255, b"")


def test_a_box_that_goes_off_before_the_command_begins_is_broken_and_says_why(start: Start, tmp_path: Path) -> None:
    box = start(f"echo no such machine >&2; echo kernel panic >{tmp_path}/console.log; exit 1")
    with pytest.raises(Broken, match=r"(?s)went off.*no such machine.*kernel panic"):
        box.boot()


def test_a_box_that_goes_off_while_the_command_runs_is_broken(start: Start) -> None:
    box = start("begin; echo one")
    with pytest.raises(Broken, match="before the command had ended"):
        run(box)


def test_a_command_that_takes_too_long_ends_as_timeout_would_end_it(start: Start) -> None:
    assert run(start("begin; echo one; exec sleep 600"), limit=0.1)[0] == 124


def test_a_box_of_which_nothing_is_heard_is_broken(start: Start) -> None:
    box = start("begin; echo one; exec sleep 600")
    box.boot()
    with pytest.raises(Broken, match=r"nothing has been heard of it for 1 s"):
        box.relay(lambda said: None, 60, silence=1)


def test_a_box_that_speaks_now_and_then_is_not(start: Start) -> None:
    box = start("begin; for word in one two three; do echo $word; sleep 0.4; done; end 0")
    box.boot()
    assert box.relay(lambda said: None, 60, silence=30) == 0


def test_a_box_that_does_not_boot_is_broken(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.box.machine._BOOT_LIMIT", 0.1)
    with pytest.raises(Broken, match="did not boot"):
        start("exec sleep 600").boot()


def test_a_box_that_stays_on_after_its_command_is_broken(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.box.machine._END_LIMIT", 0.1)
    with pytest.raises(Broken, match="the command ended, but not the box"):
        run(start("begin; end 0; exec sleep 600"))


@pytest.mark.parametrize(("terminal", "port"), [(None, b"/dev/vport0p1\n"), (Terminal("vt", 2, 3), b"/dev/hvc0\n")])
def test_the_box_knows_what_to_do_and_where(
    start: Start, tmp_path: Path, terminal: Terminal | None, port: bytes
) -> None:
    run(start("begin; end 0", terminal))
    initrd = (tmp_path / "initrd.cpio").read_bytes()
    assert b"job/run\0" in initrd
    assert f"{places.ROOT}\n".encode() in initrd
    assert port in initrd


# --- a person ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def keyboard() -> Iterator[Callable[[bytes], int]]:
    """Type something, and give the descriptor from which it can be read; the person stays there."""
    ends: list[int] = []

    def typed(keys: bytes) -> int:
        ends.extend(os.pipe())
        os.write(ends[-1], keys)
        return ends[-2]

    yield typed
    for fd in ends:
        os.close(fd)


def test_a_person_speaks_with_the_command_until_the_box_is_off(
    start: Start, keyboard: Callable[[bytes], int], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    box = start("begin; read -r line; echo you said $line; end 5; echo off", Terminal("vt", 2, 3))
    box.boot()
    assert box.converse(keyboard(b"hello\n")) == 5
    assert capfdbinary.readouterr().out == b"you said hello\n"


def test_a_person_may_leave(start: Start, keyboard: Callable[[bytes], int]) -> None:
    box = start("begin; exec sleep 600", Terminal("vt", 2, 3))
    box.boot()
    with pytest.raises(Left):
        box.converse(keyboard(b"ls\x01x"))


def test_a_box_that_goes_off_under_a_persons_hands_is_broken(start: Start, keyboard: Callable[[bytes], int]) -> None:
    box = start("begin; read -r line", Terminal("vt", 2, 3))
    box.boot()
    with pytest.raises(Broken, match="before the command had ended"):
        box.converse(keyboard(b"\n"))


# --- the end of those who wait for it ---------------------------------------------------------------------------------

OWNER = """
import sys, time
from pathlib import Path
from tools.box.machine import Box, Disks
from tools.dev import places
from tools.microvm.job import Job
places.GUEST = Path(sys.argv[1])
Box(Job(["true"]), Disks(Path(), Path(), Path()), places.GUEST, 1)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_the_box_ends_with_those_who_started_it_however_they_end(tmp_path: Path, number: signal.Signals) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 600\n")
    program.chmod(0o755)
    (tmp_path / "box.cpio").touch()
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], cwd=places.ROOT, env=os.environ | path)
    try:
        wait_for((tmp_path / "pid").exists)
    finally:
        owner.send_signal(number)
        owner.wait()
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    """Look whether a process runs; who has ended may wait for its new parent to notice."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(is_so: Callable[[], object]) -> None:
    for _ in range(3000):
        if is_so():
            return
        time.sleep(0.02)
    raise AssertionError("it never happens")


# --- QEMU's command line ----------------------------------------------------------------------------------------------


def test_disks_come_in_the_order_that_init_expects_and_are_never_written(tmp_path: Path) -> None:
    command = qemu(Path("/kernel"), Path("/initrd"), DISKS, tmp_path, 2, PORT)
    drives = [word for word in command if word.startswith("if=virtio")]
    assert [drive.rpartition("file=")[2] for drive in drives] == ["/system", "/check,,out", "/made"]
    assert all("snapshot=on" in drive for drive in drives)
    assert command[command.index("-smp") + 1] == "2"
