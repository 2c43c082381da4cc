"""The engines every test of this folder runs on, and a way to boot a tiny guest on them."""

import os
from collections.abc import Iterator

import pytest

from hibana.engine.interface import Engine
from tests.contract.engine.deviations import BOX, DEVIATIONS, EMULATING_KVM
from tests.contract.engine.engines import ENGINES, emulates, find
from tests.contract.engine.harness import Boot, Guest


@pytest.fixture(scope="session", params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    """Give each engine that can run here; the others skip and say why."""
    found, reason = find(request.param)
    if found is None:
        pytest.skip(reason)
    return found


@pytest.fixture(autouse=True)
def _deviation(request: pytest.FixtureRequest, engine: Engine) -> None:
    """Expect the failures that deviations.py explains, and only those."""
    case = request.node.name.replace(f"[{engine.name}]", "").replace(f"[{engine.name}-", "[")
    if reason := DEVIATIONS.get(engine.name, {}).get(case):
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    elif emulates(engine.name) and (reason := EMULATING_KVM.get(case)):
        reason = f"this host's KVM emulates guest code: {reason}"
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=False))
    elif engine.name == "kvm" and "HIBANA_BOX" in os.environ and (reason := _in_the_box(case)):
        request.node.add_marker(pytest.mark.xfail(reason=f"QEMU is the CPU of the box: {reason}", strict=False))


def _in_the_box(case: str) -> str | None:
    return BOX.get(case) or BOX.get(case.partition("[")[0])


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
