"""The last words of a process (api.md §8.1, §8.3)."""

import os
import re
import signal
import subprocess
import sys

import pytest

from hibana.cli import exits
from hibana.errors import ApiSocketInUse, InvalidLogLevel

SRC = os.path.join(os.path.dirname(__file__), "..", "..", "..", "src")

PANICKING = """
from hibana.cli import exits, flags
from hibana.observe import metrics
import os

metrics.configure(os.devnull)
try:
    {what}
except Exception as error:
    exits.panic(error)
"""


def messages(text: str) -> list[str]:
    return [line.partition("] ")[2] or line for line in text.splitlines()]


def test_success_is_said_last(capfd: pytest.CaptureFixture[str]) -> None:
    assert exits.succeeded() == 0
    assert messages(capfd.readouterr().out) == ["Firecracker exiting successfully. exit_code=0"]


def test_failure_is_said_in_the_log_and_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    assert exits.failed(ApiSocketInUse(path="a.sock")) == 1
    out, err = capfd.readouterr()
    sentence = "RunWithApiError error: Failed to open the API socket at: a.sock. Check that it is not already used."
    assert messages(out) == [sentence, "Firecracker exiting with error. exit_code=1"]
    assert err == f"Error: {sentence}\n"


def test_an_error_may_have_an_exit_code_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    assert exits.failed(InvalidLogLevel(level="x")) == 152
    assert messages(capfd.readouterr().out)[-1] == "Firecracker exiting with error. exit_code=152"


def panic(what: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": os.path.abspath(SRC)}
    command = [sys.executable, "-c", PANICKING.format(what=what)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


def test_a_users_mistake_that_panics_aborts_with_two_lines_and_no_traceback() -> None:
    done = panic('flags.parse(["--id", "a_b"]).instance_id()')
    assert done.returncode == -signal.SIGABRT
    first, second = messages(done.stdout)
    assert re.fullmatch(r"Firecracker panicked at src/hibana/cli/flags\.py:\d+:\d+:", first)
    assert second == "Invalid instance ID: InvalidChar('_', 1)"
    assert done.stderr == ""


def test_a_mistake_of_ours_aborts_with_a_traceback() -> None:
    done = panic("1 / 0")
    assert done.returncode == -signal.SIGABRT
    assert messages(done.stdout)[1] == "division by zero"
    assert "ZeroDivisionError: division by zero" in done.stderr
