"""Who is told to go leaves in order."""

import signal
import subprocess
import sys

import pytest

from tools.dev import places

SCRIPT = """
import signal, sys
from tools.dev.leaving import leave_in_order
if sys.argv[1:]:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
leave_in_order()
try:
    print("ready", flush=True)
    sys.stdin.read()
finally:
    print("tidied up", flush=True)
"""


def ending(number: signal.Signals, *words: str) -> tuple[int, str]:
    """Send a signal to somebody who has something to tidy up, then let them end by themselves if they still can."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words],
        cwd=places.ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        if words:
            process.stdin.close()
        said = process.stdout.read()
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_means_go_lets_everything_be_tidied_up(number: signal.Signals) -> None:
    assert ending(number) == (128 + number, "tidied up\n")


def test_who_shall_outlive_the_terminal_does() -> None:
    assert ending(signal.SIGHUP, "nohup") == (0, "tidied up\n")
