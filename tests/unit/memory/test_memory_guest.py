"""Guest RAM: windows, and where there are none."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hibana.errors import GuestFault, MemoryRegionError
from hibana.memory.guest import GuestMemory
from hibana.units import GIB, MIB


@pytest.fixture(scope="module")
def split() -> Iterator[GuestMemory]:
    """RAM with a page above the hole."""
    memory = GuestMemory(3 * GIB + 4096)
    yield memory
    memory.close()


EDGES = st.sampled_from([0, 3 * GIB, 4 * GIB, 4 * GIB + 4096, 1 << 64])
ADDRS = st.builds(lambda edge, step: edge + step, EDGES, st.integers(-9000, 9000))


@given(addr=ADDRS, size=st.integers(-10, 9000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_window_is_all_ram_or_a_fault(split: GuestMemory, addr: int, size: int) -> None:
    below = addr >= 0 and addr + size <= 3 * GIB
    above = addr >= 4 * GIB and addr + size <= 4 * GIB + 4096
    if size >= 0 and (below or above):
        assert len(split.window(addr, size)) == size
    else:
        with pytest.raises(GuestFault, match="is outside guest memory"):
            split.window(addr, size)


@given(addr=ADDRS, content=st.binary(min_size=1, max_size=64))
def test_what_was_written_is_read(split: GuestMemory, addr: int, content: bytes) -> None:
    try:
        split.write(addr, content)
    except GuestFault:
        with pytest.raises(GuestFault):
            split.read(addr, len(content))
    else:
        assert split.read(addr, len(content)) == content
        assert split.window(addr, len(content)) == content


def test_the_hole_takes_no_room_in_the_reservation(split: GuestMemory) -> None:
    split.write(3 * GIB - 2, b"ab")
    split.write(4 * GIB, b"cd")
    offsets = [region.offset for region in split.regions]
    assert offsets == [0, 3 * GIB]
    assert split.read(3 * GIB - 2, 2) + split.read(4 * GIB, 2) == b"abcd"


def test_writing_through_a_window_changes_ram() -> None:
    memory = GuestMemory(MIB)
    window = memory.window(0x1000, 4)
    window[:] = b"text"
    assert memory.read(0x1000, 4) == b"text"


def test_fresh_ram_is_zero_and_aligned_for_huge_pages() -> None:
    memory = GuestMemory(MIB)
    assert memory.host_addr % (2 * MIB) == 0
    assert memory.read(0, MIB) == bytes(MIB)


def test_the_engine_hears_of_writes_of_every_kind() -> None:
    memory = GuestMemory(MIB)
    heard: list[tuple[int, int]] = []
    memory.on_write = lambda addr, size: heard.append((addr, size))
    fd = os.memfd_create("content")
    os.write(fd, b"0123456789")
    memory.write(0x10, b"abc")
    memory.touched(0x20, 4)
    memory.fill(0x30, 5, fd, 2)
    assert heard == [(0x10, 3), (0x20, 4), (0x30, 5)]
    assert memory.read(0x30, 6) == b"23456\0"


def test_a_file_is_read_to_the_last_byte_however_little_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = GuestMemory(MIB)
    fd = os.memfd_create("content")
    os.write(fd, bytes(range(100)))
    whole = os.preadv

    def three_bytes_at_once(fd: int, buffers: list[memoryview], offset: int) -> int:
        return whole(fd, [buffers[0][:3]], offset)

    monkeypatch.setattr(os, "preadv", three_bytes_at_once)
    memory.fill(0, 90, fd, 10)
    assert memory.read(0, 91) == bytes(range(10, 100)) + b"\0"


@pytest.mark.parametrize(
    ("size", "offset"), [(11, 0), (10, 1), (1, 10), (1, 1 << 40), (1, (1 << 63) - 1), (1, 1 << 64)]
)
def test_a_file_that_is_too_short_is_noticed(size: int, offset: int) -> None:
    fd = os.memfd_create("content")
    os.write(fd, b"0123456789")
    with pytest.raises(EOFError):
        GuestMemory(MIB).fill(0, size, fd, offset)


def test_a_file_cannot_be_read_beyond_ram() -> None:
    fd = os.memfd_create("content")
    os.truncate(fd, 2 * MIB)
    with pytest.raises(GuestFault):
        GuestMemory(MIB).fill(0x1000, MIB, fd, 0)


@pytest.mark.parametrize("size", [1 << 60, 1 << 70])
def test_more_ram_than_addresses_is_the_users_error(size: int) -> None:
    with pytest.raises(MemoryRegionError, match=r"^Cannot create mmap region: Out of memory \(os error 12\)$"):
        GuestMemory(size)


def test_huge_pages_that_the_host_does_not_have_are_the_users_error() -> None:
    """Otherwise the first access would be a SIGBUS."""
    if any(Path(f"/proc/sys/vm/{name}").read_text() != "0\n" for name in ("nr_hugepages", "nr_overcommit_hugepages")):
        pytest.skip("this host has huge pages")
    with pytest.raises(MemoryRegionError, match=r"^Cannot create mmap region: Out of memory \(os error 12\)$"):
        GuestMemory(4 * MIB, "2M")


def test_closed_memory_cannot_be_reached() -> None:
    memory = GuestMemory(MIB)
    memory.close()
    with pytest.raises(ValueError, match="released"):
        memory.read(0, 1)
