"""A VMM that strangers have taken over cannot leave its process: everything they try is trapped, on every thread.

The table of what they try is in escapee.py. Here no jail is around them: what holds them are the filters alone.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hibana.engine.kvm.engine import KvmEngine
from tests.clients.conftest import Start
from tests.clients.process import ROOT, Vmm, interpreted
from tests.clients.tiny_guests import HALT, say

TAKEN_OVER = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport tests.clients.escapee"
PLACES = {"loop": "/version", "vcpu": "/mmds"}


@pytest.fixture
def victim() -> Iterator["subprocess.Popen[bytes]"]:
    """Somebody else's process."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def prey(tmp_path: Path) -> Path:
    """Somebody else's file."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "prey").write_text("precious")
    return folder / "prey"


@pytest.fixture(params=["soft", "kvm"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "kvm" and (reason := KvmEngine().missing()):
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture
def taken_over(engine: str, start: Start, victim: "subprocess.Popen[bytes]", prey: Path) -> Vmm:
    environment = {"HIBANA_TEST_VICTIM": str(victim.pid), "HIBANA_TEST_PREY": str(prey)}
    vmm = start("--engine", engine, guest=say("!") + HALT, program=interpreted(TAKEN_OVER), environment=environment)
    vmm.wait_for("!")
    return vmm


def expected(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    monkeypatch.setenv("HIBANA_TEST_VICTIM", "0")
    monkeypatch.setenv("HIBANA_TEST_PREY", "")
    command = (
        "import json, tests.clients.escapee as e\n"
        "print(json.dumps({name: [*e.OTHER_NAMES.get(call, {call})] for name, (_, call) in e.ATTACKS.items()}))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    return {name: set(numbers) for name, numbers in json.loads(done.stdout).items()}


@pytest.mark.parametrize("thread", PLACES)
def test_everything_an_escaped_guest_tries_is_trapped(
    thread: str, taken_over: Vmm, victim: "subprocess.Popen[bytes]", prey: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_over.ask("GET", PLACES[thread])
    taken_over.wait_for("that was all")
    said = dict(line.split(": ", 1) for line in taken_over.out.splitlines() if ": trapped " in line or ": got " in line)
    table = expected(monkeypatch)
    assert said.keys() == table.keys()
    assert {name: outcome for name, outcome in said.items() if outcome not in _trapped(table[name])} == {}
    assert victim.poll() is None
    assert (prey.read_text(), [path.name for path in prey.parent.iterdir()]) == ("precious", ["prey"])


def _trapped(numbers: set[int]) -> set[str]:
    return {f"trapped {number}" for number in numbers}
