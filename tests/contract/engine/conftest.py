"""The engines every test of this folder runs on, and a way to boot a tiny guest on them."""

import importlib
import importlib.util
from collections.abc import Iterator
from typing import Final

import pytest
from hibana.engine.interface import Engine

from tests.contract.engine.deviations import DEVIATIONS
from tests.contract.engine.harness import Boot, Guest

ENGINES: Final = {
    "kvm": ("hibana.engine.kvm.engine", "KvmEngine"),
    "soft": ("hibana.engine.soft.engine", "SoftEngine"),
}


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even its package
        return False


@pytest.fixture(scope="session", params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    """Give each engine that can run here; the others skip and say why."""
    module, name = ENGINES[request.param]
    if not _exists(module):
        pytest.skip(f"the {request.param} engine does not exist yet")
    found: Engine = getattr(importlib.import_module(module), name)()
    if reason := found.missing():
        pytest.skip(reason)
    return found


@pytest.fixture(autouse=True)
def _deviation(request: pytest.FixtureRequest, engine: Engine) -> None:
    """Expect the failures that deviations.py explains, and only those."""
    case = request.node.name.replace(f"[{engine.name}]", "").replace(f"[{engine.name}-", "[")
    if reason := DEVIATIONS.get(engine.name, {}).get(case):
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.fixture
def boot(engine: Engine) -> Iterator[Boot]:
    """Boot guests on the engine under test."""
    living: list[Guest] = []

    def boot_one(source: str, *, memory_mib: int = 16, vcpus: int = 1) -> Guest:
        guest = Guest(engine, source, memory_mib=memory_mib, vcpus=vcpus)
        living.append(guest)
        return guest

    yield boot_one
    for guest in living:
        guest.close()
