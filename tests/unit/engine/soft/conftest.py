"""The soft engine, and tiny guests on it, for the tests of what lies below its interface."""

import shutil
from collections.abc import Iterator

import pytest

from hibana.engine.soft.engine import SoftEngine
from hibana.memory.guest import GuestMemory
from hibana.units import MIB
from tests.contract.engine.harness import Boot, Guest


@pytest.fixture
def engine() -> SoftEngine:
    """Give the engine, where it can run."""
    engine = SoftEngine()
    if reason := engine.missing():
        pytest.skip(reason)
    return engine


@pytest.fixture
def boot(engine: SoftEngine) -> Iterator[Boot]:
    """Boot guests written in assembly; one at a time, as the engine wants."""
    if not shutil.which("as"):
        pytest.skip("GNU as is not installed")
    living: list[Guest] = []

    def boot_one(source: str, *, memory_mib: int = 16, vcpus: int = 1) -> Guest:
        living.append(Guest(engine, source, memory_mib=memory_mib, vcpus=vcpus))
        return living[-1]

    yield boot_one
    for guest in living:
        guest.close()


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    """Give some guest RAM."""
    memory = GuestMemory(16 * MIB)
    yield memory
    memory.close()
