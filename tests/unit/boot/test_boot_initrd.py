"""The initrd: its place at the top of low RAM, and what can go wrong with its file."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hibana.boot.initrd import Initrd, load_initrd
from hibana.errors import InitrdLoadError
from hibana.memory.guest import GuestMemory
from hibana.units import MIB
from tests.unit.boot.images import close_files, file_of


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    memory = GuestMemory(16 * MIB)
    yield memory
    memory.close()


def test_the_initrd_ends_in_the_last_page_of_low_ram(memory: GuestMemory) -> None:
    content = b"070701" + os.urandom(5000)
    assert load_initrd(memory, file_of(content)) == Initrd(16 * MIB - 0x2000, len(content))
    assert memory.read(16 * MIB - 0x2000, 0x2000) == content.ljust(0x2000, b"\0")


def test_low_ram_ends_at_3_gib() -> None:
    memory = GuestMemory(5 << 30)
    assert load_initrd(memory, file_of(b"x" * 4096)) == Initrd((3 << 30) - 4096, 4096)


@given(size=st.integers(0, 2 * MIB))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_an_initrd_of_any_size_is_page_aligned_and_whole(memory: GuestMemory, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    initrd = load_initrd(memory, file_of(content[:size]))
    close_files()
    assert initrd.addr % 4096 == 0
    assert 16 * MIB - 4096 < initrd.addr + size <= 16 * MIB
    assert memory.read(initrd.addr, size) == content[:size]


def test_the_engine_hears_of_it(memory: GuestMemory) -> None:
    writes: list[tuple[int, int]] = []
    memory.on_write = lambda addr, size: writes.append((addr, size))
    load_initrd(memory, file_of(b"x" * 10))
    assert writes == [(16 * MIB - 4096, 10)]


def test_an_initrd_larger_than_low_ram_has_no_place(memory: GuestMemory) -> None:
    fd = os.memfd_create("initrd")
    os.truncate(fd, 16 * MIB + 1)
    with pytest.raises(InitrdLoadError) as caught:
        load_initrd(memory, fd)
    assert str(caught.value) == "Error with initrd initialization: Failed to compute the initrd address.."


def test_a_closed_descriptor_has_no_size(memory: GuestMemory) -> None:
    fd = os.memfd_create("initrd")
    os.close(fd)
    with pytest.raises(InitrdLoadError) as caught:
        load_initrd(memory, fd)
    sentence = "Error with initrd initialization: Cannot image metadata: Bad file descriptor (os error 9)."
    assert str(caught.value) == sentence


def test_a_directory_has_no_content(memory: GuestMemory) -> None:
    fd = os.open("/", os.O_RDONLY)
    with pytest.raises(InitrdLoadError) as caught:
        load_initrd(memory, fd)
    os.close(fd)
    assert str(caught.value) == (
        "Error with initrd initialization: Cannot load initrd due to an invalid image: Is a directory (os error 21)."
    )


def test_a_file_that_shrinks_meanwhile_is_refused(memory: GuestMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = file_of(b"x" * 100)
    as_it_was = os.fstat(fd)
    os.truncate(fd, 99)
    monkeypatch.setattr(os, "fstat", lambda _: as_it_was)
    with pytest.raises(InitrdLoadError, match="invalid image: failed to fill whole buffer"):
        load_initrd(memory, fd)
