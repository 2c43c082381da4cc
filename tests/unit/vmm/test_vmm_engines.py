"""Which engine is taken, and what is said when there is none."""

import pytest

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


@pytest.mark.parametrize(("name", "why"), [("auto", "this build has no kvm engine yet"), ("soft", "it was asked for")])
def test_what_works_here_is_taken_and_the_log_says_why(
    name: str, why: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SoftEngine, "missing", lambda engine: None)
    assert choose_engine(name).name == "soft"
    assert capfd.readouterr().out.endswith(f"] Running guest code on the soft engine: {why}.\n")


@pytest.mark.parametrize("name", ["auto", "soft"])
def test_an_engine_that_cannot_run_here_says_why(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SoftEngine, "missing", lambda engine: "unicorn is not installed.")
    with pytest.raises(EngineError, match=r"^Kvm error: The soft engine cannot run here: unicorn is not installed\.$"):
        choose_engine(name)


def test_an_engine_of_the_future_is_refused_with_a_way_out() -> None:
    with pytest.raises(EngineError, match=r"no kvm engine yet\. Use --engine soft"):
        choose_engine("kvm")
