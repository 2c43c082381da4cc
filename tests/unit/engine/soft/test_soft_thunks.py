"""The generated tables belong to their sources, and the machine code lies where it should."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from typing import Final

import pytest

from hibana.engine.soft import library, machine_code, relocations
from hibana.engine.soft.slots import BUILD_ID, SLOTS
from hibana.engine.soft.thunks import CELLS, CELLS_AT, CELLS_SIZE, CODE, ENTRIES

ROOT: Final = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 4))


@pytest.fixture(autouse=True)
def _installed() -> None:
    if reason := library.missing():
        pytest.skip(reason)


def _check(tool: str) -> str:
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, "tools", tool), "--check"],
        env={**os.environ, "PYTHONPATH": os.path.join(ROOT, "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_assembling_again_gives_the_same_tables() -> None:
    if not shutil.which("as"):
        pytest.skip("GNU as is not installed")
    assert _check("assemble_thunks.py") == ""


def test_searching_the_library_again_gives_the_same_slots() -> None:
    assert _check("find_slots.py") == ""


def test_the_slots_are_those_of_the_expected_build() -> None:
    path = library.find()
    assert path and library.build_id(path) == BUILD_ID


def test_every_thunk_named_after_a_function_replaces_it() -> None:
    path = library.find()
    assert path
    with_slots = {name for name, slots in relocations.find(path, ENTRIES).items() if slots}
    assert with_slots == set(SLOTS)


def _permissions(address: int) -> str:
    with open("/proc/self/maps") as maps:
        for line in maps:
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line)
            if found and int(found[1], 16) <= address < int(found[2], 16):
                return found[3]
    raise AssertionError(f"{address:#x} is not mapped")


def test_no_page_is_writable_and_executable_at_once() -> None:
    _, code = machine_code.load()
    assert _permissions(code.entry("poke")) == "r-xp"
    assert _permissions(code.cell("wanted")) == "rw-p"
    assert len(CODE) <= CELLS_AT and max(CELLS.values()) < CELLS_SIZE <= 4096


def test_redirected_slots_hold_the_thunk_and_are_read_only_again() -> None:
    loaded, code = machine_code.load()
    for name, slots in SLOTS.items():
        for offset, kind in slots:
            address = loaded.base + offset
            assert kind == relocations.CALL or _permissions(address)[1] == "-", name
            replaced = not (name.startswith("helper_") and kind == relocations.CALL)
            assert (ctypes.c_uint64.from_address(address).value == code.entry(name)) == replaced, name


def test_cells_hold_the_functions_they_are_named_after() -> None:
    loaded, code = machine_code.load()
    functions = [cell for cell in CELLS if cell.startswith("lib_")]
    assert functions
    for cell in functions:
        assert code.get(cell) == loaded.address(cell.removeprefix("lib_"))
