"""Whatever a guest does, the process lives, the guest can be kicked, and the engine's tables are in order."""

import os
import subprocess
import sys
from typing import Final

import pytest

from hibana.engine.soft import library

ROOT: Final = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 4))
PROGRAM: Final = os.path.join(os.path.dirname(__file__), "wild_guest.py")
SEEDS: Final = 200 if os.environ.get("HIBANA_NIGHTLY") == "1" else 20
BATCH: Final = 10


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_a_guest_that_runs_wild_neither_kills_the_process_nor_ignores_kicks(first: int) -> None:
    if reason := library.missing():
        pytest.skip(reason)
    seeds = [str(seed) for seed in range(first, first + BATCH)]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", PROGRAM, *seeds],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((os.path.join(ROOT, "src"), ROOT))},
        capture_output=True,
        text=True,
        check=False,
    )
    outcome = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, outcome
    first_words = [line.split()[0] for line in done.stdout.splitlines()]
    assert [word for word in first_words if word.isdigit()] == seeds, outcome  # between lines of the log
