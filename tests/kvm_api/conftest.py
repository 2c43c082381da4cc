"""Guests of a few instructions on the kvm engine, whatever stands behind /dev/kvm."""

from collections.abc import Iterator
from typing import Protocol

import pytest

from hibana.engine.kvm.engine import KvmEngine
from hibana.engine.kvm.host import Host
from tests.kvm_api.machine import KvmGuest


class Boot(Protocol):
    """Makes a guest, which is freed when the test is over (the fixture `boot`)."""

    def __call__(self, source: str, *, memory_mib: int = 16, vcpus: int = 1) -> KvmGuest: ...


@pytest.fixture(scope="session", autouse=True)
def _kvm() -> None:
    if reason := KvmEngine().missing():
        pytest.skip(reason)


@pytest.fixture
def host() -> Iterator[Host]:
    opened = Host()
    yield opened
    opened.close()


@pytest.fixture
def boot() -> Iterator[Boot]:
    living: list[KvmGuest] = []

    def boot_one(source: str, *, memory_mib: int = 16, vcpus: int = 1) -> KvmGuest:
        living.append(KvmGuest(source, memory_mib=memory_mib, vcpus=vcpus))
        return living[-1]

    yield boot_one
    for guest in living:
        guest.close()
