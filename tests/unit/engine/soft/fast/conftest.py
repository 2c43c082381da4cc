"""Guests for the accelerations, which a unit that is switched off skips."""

import ctypes
import shutil
from collections.abc import Callable, Iterator

import pytest

from hibana.engine.soft import machine_code, relocations
from hibana.engine.soft.engine import SoftEngine
from hibana.engine.soft.fast import switch
from hibana.engine.soft.machine_code import MachineCode
from hibana.engine.soft.slots import SLOTS
from tests.contract.engine.harness import Boot, Guest


@pytest.fixture
def unit() -> Callable[[str], MachineCode]:
    """Give the machine code of a unit; skip where it is switched off."""
    if reason := SoftEngine().missing():
        pytest.skip(reason)

    def find(name: str) -> MachineCode:
        if name not in switch.load().on:
            pytest.skip(f"{switch.VARIABLE} leaves out {name}")
        return switch.load().on[name]

    return find


@pytest.fixture
def boot() -> Iterator[Boot]:
    """Boot guests written in assembly; one at a time, as the engine wants."""
    if not shutil.which("as"):
        pytest.skip("GNU as is not installed")
    living: list[Guest] = []

    def boot_one(source: str, *, memory_mib: int = 16, vcpus: int = 1) -> Guest:
        living.append(Guest(SoftEngine(), source, memory_mib=memory_mib, vcpus=vcpus))
        return living[-1]

    yield boot_one
    for guest in living:
        guest.close()


@pytest.fixture
def own() -> Iterator[Callable[[str], None]]:
    """Lead calls of a function back to the library's own until the test is over."""
    library, _ = machine_code.load()
    before: list[tuple[relocations.Slot, int]] = []

    def lead_back(function: str) -> None:
        before.extend((slot, ctypes.c_uint64.from_address(library.base + slot[0]).value) for slot in SLOTS[function])
        relocations.redirect(library.base, SLOTS[function], library.address(function))

    yield lead_back
    for slot, target in before:
        relocations.redirect(library.base, (slot,), target)
