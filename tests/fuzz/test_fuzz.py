"""Random programs end the same on the plain and on the accelerated engine, and the comparison sees what is wrong.

HIBANA_NIGHTLY=1 runs 50 000 programs instead of 1 000.
"""

import os
import subprocess
import sys
from typing import Final

import pytest

from hibana.engine.soft.engine import SoftEngine

PROGRAMS: Final = 50_000 if os.environ.get("HIBANA_NIGHTLY") else 1_000


def fuzz(*options: str) -> subprocess.CompletedProcess[str]:
    if reason := SoftEngine().missing():
        pytest.skip(reason)
    command = [sys.executable, "-m", "tests.fuzz", "--jobs", "1", *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(("src", "."))}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_accelerated_engine_ends_every_program_as_the_plain_one_does() -> None:
    run = fuzz("--programs", str(PROGRAMS), "--with", "accelerated")
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert f"{PROGRAMS} programs" in run.stdout
    assert "0 end differently" in run.stdout


@pytest.mark.parametrize("mutant", ["code changes unnoticed", "devices change code unnoticed", "interrupts come twice"])
def test_an_engine_with_a_fault_is_found_out(mutant: str) -> None:
    run = fuzz("--programs", "150", "--with", "plain", "--mutant", mutant)
    assert run.returncode == 1, run.stdout
