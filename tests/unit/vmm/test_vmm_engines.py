"""Which engine is taken, and what is said when there is none."""

import pytest

from hibana.engine.kvm.engine import KvmEngine
from hibana.engine.soft.engine import SoftEngine
from hibana.errors import EngineError, UnknownEngine
from hibana.vmm.engines import choose_engine, wanted_engine


@pytest.mark.parametrize(
    ("option", "environment", "engine"),
    [
        (None, None, "auto"),
        (None, "", "auto"),
        (None, "soft", "soft"),
        ("kvm", None, "kvm"),
        ("kvm", "soft", "kvm"),
        ("auto", "nonsense", "auto"),
    ],
)
def test_the_command_line_decides_then_the_environment(
    option: str | None, environment: str | None, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, environment)
    assert wanted_engine(option) == engine


@pytest.mark.parametrize(("option", "environment"), [("qvm", None), (None, "qvm"), ("qvm", "soft")])
def test_an_engine_that_does_not_exist_is_refused(
    option: str | None, environment: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, environment)
    with pytest.raises(UnknownEngine, match=r"^There is no engine 'qvm'\. Choose one of auto, kvm, soft\.$"):
        wanted_engine(option)


def set_environment(monkeypatch: pytest.MonkeyPatch, engine: str | None) -> None:
    monkeypatch.delenv("HIBANA_ENGINE", raising=False)
    if engine is not None:
        monkeypatch.setenv("HIBANA_ENGINE", engine)


class Host:
    """What the two engines say about this host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kvm_misses: str | None = None
        self.kvm_emulates: str | None = None
        self.soft_misses: str | None = None
        monkeypatch.setattr(KvmEngine, "missing", lambda engine: self.kvm_misses)
        monkeypatch.setattr(KvmEngine, "emulates", lambda engine: self.kvm_emulates)
        monkeypatch.setattr(SoftEngine, "missing", lambda engine: self.soft_misses)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def logged(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [line.partition("] ")[2] for line in capfd.readouterr().out.splitlines()]


def test_auto_takes_kvm_where_it_runs_guest_code_on_the_cpu(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    assert choose_engine("auto").name == "kvm"
    assert logged(capfd) == ["Running guest code on the kvm engine: the host runs it at the speed of its CPU."]


def test_auto_takes_soft_where_there_is_no_kvm(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    host.kvm_misses = "this host has no /dev/kvm."
    assert choose_engine("auto").name == "soft"
    assert logged(capfd) == ["Running guest code on the soft engine: this host has no /dev/kvm."]


def test_auto_takes_soft_where_kvm_is_an_emulator(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    host.kvm_emulates = "/dev/kvm emulates guest code (1200 ns for a loop of two instructions)."
    assert choose_engine("auto").name == "soft"
    assert logged(capfd) == [f"Running guest code on the soft engine: {host.kvm_emulates}"]


def test_soft_is_taken_when_asked_for_whatever_kvm_can_do(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    assert choose_engine("soft").name == "soft"
    assert logged(capfd) == ["Running guest code on the soft engine: it was asked for."]


def test_kvm_that_was_asked_for_runs_even_as_an_emulator_but_warns(
    host: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    host.kvm_emulates = "/dev/kvm emulates guest code (1200 ns for a loop of two instructions)."
    assert choose_engine("kvm").name == "kvm"
    assert logged(capfd) == [
        "Running guest code on the kvm engine: it was asked for.",
        f"The soft engine would be faster here: {host.kvm_emulates}",
    ]


def test_kvm_that_was_asked_for_and_is_not_there_is_an_error_with_a_way_out(host: Host) -> None:
    host.kvm_misses = "this host has no /dev/kvm."
    with pytest.raises(
        EngineError,
        match=r"^Kvm error: The kvm engine cannot run here: this host has no /dev/kvm\. Use --engine soft, or leave",
    ):
        choose_engine("kvm")


@pytest.mark.parametrize("name", ["auto", "soft"])
def test_a_soft_engine_that_cannot_run_here_says_why(host: Host, name: str) -> None:
    host.kvm_misses = "this host has no /dev/kvm."
    host.soft_misses = "unicorn is not installed."
    with pytest.raises(EngineError, match=r"^Kvm error: The soft engine cannot run here: unicorn is not installed\.$"):
        choose_engine(name)
