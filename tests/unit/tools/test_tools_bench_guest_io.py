"""The guest benchmark: both sides get the same hardware, and what their guests print becomes a table."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tools.bench import guest_io
from tools.bench.contenders import Hardware, Hibana, Qemu
from tools.bench.timeline import HANGS, Hung
from tools.dev import places
from tools.dev.say import Failure
from tools.microvm.job import Job
from tools.microvm.network import Network

FIGURES: Final = dict.fromkeys((*guest_io._THROUGHPUT, *guest_io._LATENCY), 100.0)


class FakeNetwork(Network):
    tap = "hib7"
    guest_mac = "06:00:ac:1d:00:1e"
    cmdline = "ip=172.29.0.30::172.29.0.29"

    def __init__(self) -> None: ...


class Said:
    """Stands in for a guest: says what it is told to, with the job's marks around it."""

    name = "a guest"
    environment: Mapping[str, str] = {}

    def __init__(self, job: Job, *lines: str, exit_code: int = 0) -> None:
        marks = (f"\036{job.word} begin", *lines, f"\036{job.word} exit {exit_code}")
        self._script = f"printf '%s\\n' {shlex.join(marks)}"

    def command(self, folder: Path, initrd: Path, hardware: Hardware) -> Sequence[str]:
        return ["sh", "-c", self._script]


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Job:
    (tmp_path / "initrd.cpio").write_bytes(b"")
    monkeypatch.setattr(places, "GUEST", tmp_path)
    return Job(["true"])


def test_both_get_the_same_drive_tap_and_cpus(tmp_path: Path) -> None:
    hardware = Hardware(2, tmp_path / "drive.ext4", FakeNetwork())
    Hibana("hibana").command(tmp_path, tmp_path / "initrd", hardware)
    ours = json.loads((tmp_path / "vm.json").read_bytes())
    theirs = shlex.join(Qemu("tcg").command(tmp_path, tmp_path / "initrd", hardware))
    assert ours["machine-config"]["vcpu_count"] == 2
    assert "-smp 2" in theirs
    for device in (ours["drives"][0]["path_on_host"], *list(ours["network-interfaces"][0].values())[1:]):
        assert device in theirs
    assert FakeNetwork.cmdline in ours["boot-source"]["boot_args"]
    assert f"{FakeNetwork.cmdline} root=/dev/vda rw" in theirs


def test_what_the_job_prints_is_what_counts(job: Job) -> None:
    said = guest_io._run(Said(job, "[    1.0] noise", '{"a": 1}'), job, Hardware())
    assert said == b'[    1.0] noise\n{"a": 1}\n'


def test_a_guest_that_lost_its_clock_is_given_up(job: Job) -> None:
    with pytest.raises(Hung):
        guest_io._run(Said(job, HANGS), job, Hardware())


def test_a_job_that_fails_is_shown(job: Job) -> None:
    with pytest.raises(Failure, match="no such program"):
        guest_io._run(Said(job, "no such program", exit_code=127), job, Hardware())


def test_a_guest_that_hung_gets_another_chance(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    answers: Iterator[bytes | Hung] = iter([Hung("no clock"), b'[ 1.0] noise\n{"a": 1}\n'])

    def run(*_: object) -> bytes:
        answer = next(answers)
        if isinstance(answer, Hung):
            raise answer
        return answer

    @contextmanager
    def copy(image: Path) -> Iterator[Path]:
        yield image

    monkeypatch.setattr(guest_io, "_run", run)
    monkeypatch.setattr(guest_io, "copy_on_write", copy)
    assert guest_io._measure(Hibana("hibana"), ("latency", "1"), 2, None) == {"a": 1}
    assert "hung, once more: no clock" in capfd.readouterr().err


def test_people_get_two_tables_and_an_explanation() -> None:
    twice = {name: 2 * figure for name, figure in FIGURES.items()}
    report = guest_io._report({"ours": [twice], "theirs": [FIGURES]})
    rows = [line for line in report.splitlines() if line.endswith("2.00")]
    assert len(rows) == len(FIGURES)
    assert report.endswith(guest_io._NOTE)


def test_without_a_tap_there_is_nothing_about_the_network() -> None:
    without = {name: figure for name, figure in FIGURES.items() if "mbit" not in name}
    assert "iperf3" not in guest_io._report({"ours": [without], "theirs": [without]})


def test_a_peer_without_a_clock_has_no_ratio() -> None:
    assert "—" in guest_io._report({"ours": [FIGURES], "theirs": [FIGURES | {"alone_p50_us": 0.0}]})
