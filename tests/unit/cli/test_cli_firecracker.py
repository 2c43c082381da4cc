"""The table of contents of the VMM: in which order things are looked at, and what the session gets of them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from hibana.bus.loop import Loop
from hibana.cli import firecracker, session, signals
from hibana.cli.firecracker import main
from hibana.cli.flags import Numbers, Options
from hibana.errors import (
    ArgumentsError,
    EnablePciNotHere,
    FileUnreadable,
    InvalidInstanceId,
    InvalidLogLevel,
    InvalidNumber,
    LoggerInitError,
    MetricsStartError,
    SeccompError,
    SnapshotFormatNotHere,
    UnknownEngine,
    VmmError,
)
from hibana.observe import log, metrics
from hibana.seccomp.filters import Choice


class Started(NamedTuple):
    """What a session was given."""

    engine: str
    numbers: Numbers
    listener: object
    config: bytes | None
    metadata: bytes | None


class World:
    """Stands in for all that the program changes outside itself; notes what happened in which order."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.started: list[Started] = []
        self.loops: list[Loop] = []

    def listen(self, path: str) -> str:
        self.story.append(f"listen {path}")
        return "listener"

    def install(self, loop: Loop) -> None:
        self.story.append("signals")
        self.loops.append(loop)

    def note(self, what: str) -> Any:
        return lambda *_: self.story.append(what)

    def session(
        self, options: Options, engine: str, numbers: Numbers, filters: Choice, loop: Loop, listener: object
    ) -> "World":
        self._given = (engine, numbers, listener)
        return self

    def run(self, config: bytes | None, metadata: bytes | None) -> None:
        self.story.append("run")
        self.started.append(Started(*self._given, config, metadata))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World()
    monkeypatch.delenv("HIBANA_ENGINE", raising=False)
    monkeypatch.setattr(firecracker, "listen", world.listen)
    monkeypatch.setattr(signals, "install", world.install)
    monkeypatch.setattr(session, "Session", world.session)
    monkeypatch.setattr(log, "configure", world.note("log"))
    monkeypatch.setattr(log, "info", world.note("hello"))
    monkeypatch.setattr(metrics, "configure", world.note("metrics"))
    former = log.instance()
    yield world
    log.set_instance(former)
    for loop in world.loops:
        loop.close()


def test_the_life_of_a_process_in_the_order_in_which_others_see_it(world: World) -> None:
    main(["--metrics-path", "m", "--id", "my-id"])
    assert world.story == ["log", "hello", "signals", "metrics", "listen /run/firecracker.socket", "run"]
    assert world.started == [Started("auto", Numbers(51200, 51200), "listener", None, None)]
    assert log.instance() == "my-id"


def test_files_are_read_before_anybody_can_connect(world: World, tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(b"{}")
    (tmp_path / "metadata").write_bytes(b"[]")
    main(["--config-file", str(tmp_path / "config"), "--metadata", str(tmp_path / "metadata"), "--api-sock", "s"])
    assert world.story[-2:] == ["listen s", "run"]
    assert world.started[0][3:] == (b"{}", b"[]")


def test_without_an_api_nobody_listens(world: World, tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(b"{}")
    main(["--no-api", "--config-file", str(tmp_path / "config"), "--engine", "soft"])
    assert world.started == [Started("soft", Numbers(51200, 51200), None, b"{}", None)]
    assert not [event for event in world.story if event.startswith("listen")]


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["--foo"], ArgumentsError),
        (["--describe-snapshot", "f"], SnapshotFormatNotHere),
        (["--id", "_"], InvalidInstanceId),
        (["--level", "loud"], InvalidLogLevel),
        (["--seccomp-filter", "f"], SeccompError),
        (["--enable-pci"], EnablePciNotHere),
        (["--engine", "qvm"], UnknownEngine),
        (["--config-file", "/nowhere"], FileUnreadable),
        (["--config-file", "/tmp"], FileUnreadable),
        (["--metadata", "/nowhere"], FileUnreadable),
        (["--mmds-size-limit", "x"], InvalidNumber),
    ],
)
def test_every_mistake_is_found_before_anybody_can_connect(
    argv: list[str], error: type[VmmError], world: World
) -> None:
    with pytest.raises(error):
        main(argv)
    assert not world.started
    assert not [event for event in world.story if event.startswith("listen")]


def test_destinations_that_cannot_be_opened_have_sentences_of_the_starts_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "install", lambda loop: loop.close())
    with pytest.raises(LoggerInitError, match=r"^Could not initialize logger: Failed to open target file: No such"):
        main(["--log-path", "/nowhere/log"])
    with pytest.raises(MetricsStartError, match=r"^Could not initialize metrics: Cannot initialize the metrics system"):
        main(["--metrics-path", "/nowhere/metrics"])


@pytest.mark.parametrize(
    ("flag", "first_line"), [("--version", "Firecracker v1.17.0-dev"), ("--snapshot-version", "v11.0.0")]
)
def test_a_question_is_answered_without_even_a_log(
    flag: str, first_line: str, world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    main([flag])
    assert capfd.readouterr().out.splitlines()[0] == first_line
    assert world.story == []


def test_growing_the_table_of_descriptors_leaves_open_ones_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = os.pipe()
    try:
        monkeypatch.setattr(os, "sysconf", lambda _: pipe[0] + 1)
        firecracker._grow_descriptor_table()
        os.write(pipe[1], b"still there")
        assert os.read(pipe[0], 20) == b"still there"
    finally:
        for fd in pipe:
            os.close(fd)


@pytest.mark.parametrize("limit", [-1, 1, 2, 256, 1 << 30])
def test_growing_the_table_of_descriptors_opens_none(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "sysconf", lambda _: limit)
    firecracker._grow_descriptor_table()
    assert os.listdir("/proc/self/fd") == before


def test_a_jail_has_no_dev_null_and_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "devnull", "/nowhere")
    firecracker._open_closed_standard_streams()


# Threads take memory in pieces too small for mappings of their own and give all of it back, under the filter of a vCPU.
TAKE_AND_GIVE_BACK: Final = """
import ctypes, threading
from hibana.cli import firecracker
from hibana.seccomp import builtin, container
from hibana.seccomp.install import install

firecracker._allocate_in_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)
FILTER = container.read(builtin.FILTERS["x86_64"]["soft"])["vcpu"].code

def take_and_give_back():
    install([FILTER])
    for piece in reversed([libc.malloc(100_000) for _ in range(300)]):
        libc.free(piece)
    print("done")

threads = [threading.Thread(target=take_and_give_back) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_taking_memory_and_giving_it_back_opens_no_file() -> None:
    command = [sys.executable, "-c", TAKE_AND_GIVE_BACK]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.count("done")) == (0, 3)
