"""The switch: which accelerations run, and that the engine is whole without them."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hibana.engine.soft import machine_code, selfcheck
from hibana.engine.soft.engine import SoftEngine
from hibana.engine.soft.fast import switch
from hibana.engine.soft.fast.switch import UNITS, wanted
from hibana.engine.soft.slots import SLOTS
from hibana.errors import EngineError
from hibana.memory.guest import GuestMemory
from hibana.units import MIB
from tests.contract.engine.harness import GuestBus


@pytest.mark.parametrize("setting", ["", "fast"])
def test_all_of_them_are_on_unless_something_is_left_out(setting: str) -> None:
    assert wanted(setting) == tuple(UNITS)


def test_plain_takes_none_of_them() -> None:
    assert wanted("plain") == ()


@pytest.mark.parametrize("setting", ["fast,-dirty", "fast,-dirty,-block-cache", " fast , -dirty , -block-cache "])
def test_a_list_leaves_out_what_it_names(setting: str) -> None:
    names = wanted(setting)
    assert "dirty" not in names
    assert ("block-cache" in names) == ("block-cache" not in setting)
    assert set(names) < set(UNITS)


@pytest.mark.parametrize("setting", ["dirty", "-dirty", "fast,-quick", "plain,-dirty", "fast,--dirty"])
def test_a_setting_that_means_nothing_is_refused(setting: str) -> None:
    with pytest.raises(EngineError, match=r"HIBANA_SOFT may be plain, or fast and a list of -dirty, .*; not '"):
        wanted(setting)


@pytest.fixture
def accelerated() -> Iterator[None]:
    """Come back to what the environment asks for, after a test that fell back."""
    if reason := SoftEngine().missing():
        pytest.skip(reason)
    if not switch.load().names:
        pytest.skip("the accelerations are switched off")
    yield
    switch.load.cache_clear()


def test_when_the_self_check_fails_the_plain_engine_runs_and_a_line_says_why(
    accelerated: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ", ".join(switch.load().names)
    results = iter(("HLT does not halt", ""))
    monkeypatch.setattr(selfcheck, "broken", lambda processor, memory: next(results))
    memory = GuestMemory(16 * MIB)
    vm = SoftEngine().create_vm(memory, 1, GuestBus(lambda value: None))
    vm.close()
    memory.close()
    assert switch.load().names == ()
    (line,) = capfd.readouterr().out.splitlines()
    assert f"The soft engine runs without {names}: HLT does not halt." in line


def test_after_falling_back_the_library_is_as_the_plain_engine_wants_it_and_works(accelerated: None) -> None:
    library, plain = machine_code.load()
    replaced = {name for code in switch.load().on.values() for name in code.entries} & SLOTS.keys()
    switch.load().fall_back()
    for name in replaced:
        target = plain.entries.get(name) or library.address(name)
        assert {ctypes.c_uint64.from_address(library.base + offset).value for offset, _ in SLOTS[name]} == {target}
    memory = GuestMemory(16 * MIB)
    SoftEngine().create_vm(memory, 1, GuestBus(lambda value: None)).close()
    memory.close()


@pytest.mark.parametrize(("setting", "left_out"), [("plain", ", ".join(UNITS)), ("fast,-dirty", "dirty")])
def test_a_line_says_what_was_left_out(setting: str, left_out: str) -> None:
    if reason := SoftEngine().missing():
        pytest.skip(reason)
    run = subprocess.run(
        [sys.executable, "-c", "from hibana.engine.soft.fast import switch; switch.load()"],
        env={**os.environ, "HIBANA_SOFT": setting, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = run.stdout.splitlines()
    assert line.endswith(f"The soft engine runs without {left_out}: HIBANA_SOFT={setting}.")
