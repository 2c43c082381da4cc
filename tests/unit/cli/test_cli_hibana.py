"""The friendly program."""

import json

import pytest

from hibana.cli import hibana
from hibana.doctor.finding import ERROR, OK, WARN, Finding
from hibana.errors import UnexpectedArgument, UnknownCommand

FINDINGS = [Finding("one", OK, "fine"), Finding("another", WARN, "not so fine", "mend it")]


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    found = list(FINDINGS)
    monkeypatch.setattr(hibana, "examine", lambda _host: found)
    return found


def test_help_names_the_commands(capfd: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert hibana.main(words) == 0
        assert "  doctor   " in capfd.readouterr().out
    assert hibana.main(["--version"]) == 0
    assert capfd.readouterr().out.startswith("Hibana ")


def test_a_command_that_is_none() -> None:
    with pytest.raises(UnknownCommand, match="There is no command 'nurse'"):
        hibana.main(["nurse"])
    with pytest.raises(UnexpectedArgument):
        hibana.main(["doctor", "--pain"])


def test_a_finding_is_a_line_with_its_remedy(findings: list[Finding], capfd: pytest.CaptureFixture[str]) -> None:
    assert hibana.main(["doctor"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[:2] == ["   ok  one      fine", " warn  another  not so fine  →  mend it"]
    assert "What no program can see:" in lines


def test_programs_get_json(findings: list[Finding], capfd: pytest.CaptureFixture[str]) -> None:
    assert hibana.main(["doctor", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == [finding._asdict() for finding in FINDINGS]


def test_what_cannot_work_is_a_failure(findings: list[Finding], capfd: pytest.CaptureFixture[str]) -> None:
    findings.append(Finding("third", ERROR, "broken"))
    assert hibana.main(["doctor"]) == 1
    assert "error  third    broken" in capfd.readouterr().out


def test_the_doctor_explains_himself(capfd: pytest.CaptureFixture[str]) -> None:
    assert hibana.main(["doctor", "--help"]) == 0
    assert "--json" in capfd.readouterr().out
