"""Random programs end the same on the plain and on the accelerated engine, and the comparison sees what is wrong.

So do those on which two CPUs must agree, on /dev/kvm where there is one: `cpus.py` says which, and why not the others.
HIBANA_NIGHTLY=1 runs 50 000 programs instead of 1 000, and 10 000 instead of 200 on kvm.
"""

import os
import subprocess
import sys
from typing import Final

import pytest

from hibana.engine.soft.engine import SoftEngine
from tests.fuzz.variants import VARIANTS

_NIGHTLY: Final = bool(os.environ.get("HIBANA_NIGHTLY"))
PROGRAMS: Final = 50_000 if _NIGHTLY else 1_000
ON_KVM: Final = 10_000 if _NIGHTLY else 40 if "HIBANA_BOX" in os.environ else 200
"""In the box, Python is emulated too."""


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
    run = fuzz("--programs", "150", "--with", "plain", "--mutant", mutant, "--enough", "1")
    assert run.returncode == 1, run.stdout


@pytest.fixture
def _kvm() -> None:
    if reason := VARIANTS["kvm"].missing():
        pytest.skip(reason)


@pytest.mark.usefixtures("_kvm")
@pytest.mark.parametrize("ring", [0, 3])
def test_kvm_ends_every_program_as_the_soft_engine_does(ring: int) -> None:
    run = fuzz("--programs", str(ON_KVM), "--with", "kvm", "--ring", str(ring))
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert f"{ON_KVM} programs" in run.stdout
    assert "0 end differently" in run.stdout


@pytest.mark.usefixtures("_kvm")
@pytest.mark.parametrize("ring", [0, 3])
def test_a_machine_whose_devices_write_nothing_is_found_out(ring: int) -> None:
    mutant = ("--mutant", "devices write nothing", "--enough", "1")
    run = fuzz("--programs", "50", "--with", "kvm", "--ring", str(ring), *mutant)
    assert run.returncode == 1, run.stdout
