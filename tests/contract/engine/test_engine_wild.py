"""A guest of random bytes ends in a documented way or runs on and can be stopped; the process never dies."""

import os
import subprocess
import sys
from typing import Final

import pytest

from hibana.engine.interface import Engine

SEEDS: Final = 200 if os.environ.get("HIBANA_NIGHTLY") else 20
TOGETHER: Final = 5
ROOT: Final = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))
CHILD: Final = [sys.executable, "-X", "faulthandler", "-m", "tests.contract.engine.wild_child"]


@pytest.mark.parametrize("first", range(0, SEEDS, TOGETHER))
def test_a_guest_that_runs_wild_harms_nobody(engine: Engine, first: int) -> None:
    done = subprocess.run(
        [*CHILD, engine.name, str(first), str(TOGETHER)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.path.join(ROOT, "src")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    assert done.stdout.count(" accesses") == TOGETHER
