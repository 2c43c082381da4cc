"""`tools/devtool kvmbox`: its arguments, its second try, and what it brings back."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.box.machine import Broken
from tools.box.suites import LEFT_OUT, SUITES
from tools.dev import guest, kvmbox, places, system
from tools.dev.kvmbox import Order
from tools.dev.say import Failure


def ignore(said: bytes) -> None:
    """Show nothing."""


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int | Broken]]:
    """How the starts of the box end, one after the other."""
    endings: list[int | Broken] = []

    def start(order: Order, made: Path, show: kvmbox.Show) -> int:
        ending = endings.pop(0)
        if isinstance(ending, Broken):
            raise ending
        return ending

    for module, name in ((system, "need"), (guest, "ensure"), (guest, "ensure_rootfs"), (guest, "ensure_box")):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(kvmbox, "made_disk", lambda: Path("/made"))
    monkeypatch.setattr(kvmbox, "_start", start)
    yield endings
    assert not endings


def test_a_command_keeps_its_own_options() -> None:
    order = kvmbox._parse(["--smp", "2", "--keep", "--", "ls", "--smp", "-l", "--", "x"])
    assert order == Order(["ls", "--smp", "-l", "--", "x"], smp=2, keep=True)


@pytest.mark.parametrize("arguments", [[], ["--smp", "2"], ["--"]])
def test_without_a_command_and_a_terminal_there_is_nothing_to_do(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        kvmbox._parse(arguments)
    assert end.value.code == 2
    assert "say what to run, behind `--`: a shell needs a terminal" in capsys.readouterr().err


def test_a_command_that_fails_is_not_run_again(starts: list[int | Broken]) -> None:
    starts += [3]
    assert kvmbox.run(Order(["false"]), ignore) == 3


def test_a_box_that_breaks_down_is_started_once_more(
    starts: list[int | Broken], capsys: pytest.CaptureFixture[str]
) -> None:
    starts += [Broken("no power"), 0]
    assert kvmbox.run(Order(["true"]), ignore) == 0
    assert "no power" in capsys.readouterr().err


def test_a_box_that_breaks_down_twice_is_a_failure(starts: list[int | Broken]) -> None:
    starts += [Broken("no power"), Broken("no power again")]
    with pytest.raises(Failure, match="no power again"):
        kvmbox.run(Order(["true"]), ignore)


def test_files_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "BOX_OUT", tmp_path / "out")
    with tarfile.open(tmp_path / "files.tar", "w") as tar:
        member = tarfile.TarInfo("./a/report")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"green"))
    kvmbox._bring_back(tmp_path / "files.tar")
    assert (tmp_path / "out/a/report").read_bytes() == b"green"


def test_a_box_that_was_stopped_brings_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "BOX_OUT", tmp_path / "out")
    (tmp_path / "files.tar").touch()
    kvmbox._bring_back(tmp_path / "files.tar")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("options", SUITES.values(), ids=SUITES)
def test_the_suites_are_orders_that_kvmbox_understands(options: list[str]) -> None:
    assert "pytest" in kvmbox._parse(options).command


def test_what_the_suites_leave_out_exists() -> None:
    for name in LEFT_OUT:
        path, _, test = name.partition("::")
        assert f"def {test.partition('[')[0]}" in (places.ROOT / path).read_text()
