"""Fixtures of the guest tests: an engine, and `boot`, which stops what it started."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from hibana.engine.kvm.engine import KvmEngine
from tests.guest.microvm import MicroVm, start
from tools.dev import places

ASKED_FOR = os.environ.get("HIBANA_GUEST_ENGINES", "")
ENGINES = (ASKED_FOR or "soft,kvm").split(",")


class Boot(Protocol):
    """`boot(kernel=…, initrd=…, vcpus=…, mem=…, smt=…, cmdline=…, shell=…, prepare=…)`."""

    def __call__(self, **wanted: Any) -> MicroVm: ...


@pytest.fixture(scope="session", autouse=True)
def artefacts() -> None:
    for path, command in ((places.FIRECRACKER, "build"), (places.GUEST / "vmlinux", "guest")):
        if not path.exists():
            pytest.skip(f"{path.relative_to(places.ROOT)} is not there: run tools/devtool {command}")


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "kvm" and (reason := KvmEngine().missing() or KvmEngine().emulates()):
        why = f"no kernel boots on KVM here, only in the box (tools/devtool kvmbox): {reason}"
        pytest.fail(why) if ASKED_FOR else pytest.skip(why)
    return str(request.param)


@pytest.fixture
def boot(engine: str, tmp_path: Path) -> Iterator[Boot]:
    running: list[MicroVm] = []

    def boot_one(**wanted: Any) -> MicroVm:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        running.append(start(folder, engine, **wanted))
        return running[-1]

    yield boot_one
    for vm in running:
        vm.stop()
