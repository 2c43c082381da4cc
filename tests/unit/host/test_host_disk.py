"""The Sync engine on real files: in memory, on a disk, full, cut off, not even files."""

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from struct import pack
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibana.devices.rate_limiter import RateLimiter
from hibana.devices.virtio.block import Block, Request
from hibana.devices.virtio.block_request import FLUSH, IN, IOERR, OK, OUT
from hibana.host.disk import FileDisk, disk_id
from hibana.testing.fakes import FakeTimers
from hibana.testing.virtio import Driver, Offer
from hibana.units import KIB

SIZE: Final = 16 * KIB
CONTENT: Final = bytes(at * 31 % 253 for at in range(SIZE))
REQUEST: Final[Request] = (0, IN, 0, 0, 0, [])
STATUS: Final[Offer] = ("w", 1)


@pytest.fixture(params=["/dev/shm", "/tmp"])
def fd(request: pytest.FixtureRequest) -> Iterator[int]:
    """A file of 16 KiB without a name, in memory and on the file system of /tmp."""
    fd = os.open(request.param, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)
    os.pwrite(fd, CONTENT, 0)
    yield fd
    os.close(fd)


@pytest.fixture
def opened() -> Iterator[list[int]]:
    """Descriptors to be closed at the end."""
    fds: list[int] = []
    yield fds
    for fd in fds:
        os.close(fd)


class Guest:
    """A guest whose drive is a real file."""

    def __init__(self, fd: int, size: int) -> None:
        self.driver = Driver()
        self.driver.start(Block("real", FileDisk(fd, size), RateLimiter(None, None, FakeTimers())))

    def ask(self, kind: int, sector: int, *data: Offer) -> tuple[int, list[bytes]]:
        """Make a request; give the used length and what lies in the writable buffers."""
        head = self.driver.offer(("r", pack("<IIQ", kind, 0, sector)), *data, STATUS)
        self.driver.kick()
        ((_, written),) = self.driver.completions()
        return written, self.driver.written(head)


# --- the file alone ---------------------------------------------------------------------------------------------------


def test_it_reads_and_writes_at_an_offset(fd: int) -> None:
    disk = FileDisk(fd, SIZE)
    room = memoryview(bytearray(100))
    assert disk.read(1000, room, REQUEST) == 100
    assert room == CONTENT[1000:1100]
    assert disk.write(5000, memoryview(b"w" * 10), REQUEST) == 10
    assert os.pread(fd, SIZE, 0) == CONTENT[:5000] + b"w" * 10 + CONTENT[5010:]
    assert disk.flush(REQUEST) == 0
    assert disk.drain() == ()


def test_the_end_of_the_file_is_where_bytes_end(fd: int) -> None:
    disk = FileDisk(fd, SIZE)
    room = memoryview(bytearray(100))
    assert disk.read(SIZE - 7, room, REQUEST) == 7
    assert disk.read(SIZE, room, REQUEST) == 0


def test_a_flush_reaches_the_file(opened: list[int]) -> None:
    opened += os.pipe()
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        FileDisk(opened[1], 0).flush(REQUEST)  # what cannot be synchronised says so


def test_a_file_is_known_by_its_numbers(fd: int) -> None:
    status = os.fstat(fd)
    name = f"{status.st_dev}{status.st_rdev}{status.st_ino}".encode()
    assert FileDisk(fd, SIZE).id == (name + bytes(20))[:20]


def test_a_file_that_cannot_be_asked_has_no_name(opened: list[int]) -> None:
    fd = os.dup(0)
    os.close(fd)
    assert disk_id(fd) == bytes(20)


@given(operations=st.lists(st.tuples(st.booleans(), st.integers(0, SIZE + 100), st.binary(max_size=2000)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_it_is_an_array_of_bytes(operations: list[tuple[bool, int, bytes]]) -> None:
    fd = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, CONTENT, 0)
        disk, model = FileDisk(fd, SIZE), bytearray(CONTENT)
        for is_write, offset, content in operations:
            if is_write:
                assert disk.write(offset, memoryview(content), REQUEST) == len(content)
                if content:
                    model.extend(bytes(max(0, offset - len(model))))
                    model[offset : offset + len(content)] = content
            else:
                room = memoryview(bytearray(len(content)))
                count = disk.read(offset, room, REQUEST)
                assert room[:count] == model[offset : offset + len(content)]
                assert count == len(model[offset : offset + len(content)])
        assert os.pread(fd, 2 * SIZE, 0) == model
    finally:
        os.close(fd)


# --- what the guest sees of it ----------------------------------------------------------------------------------------


def test_a_guest_reads_what_it_has_written(fd: int) -> None:
    guest = Guest(fd, SIZE)
    assert guest.ask(OUT, 3, ("r", b"guest" * 512)) == (1, [bytes([OK])])
    assert guest.ask(IN, 3, ("w", 2560)) == (2561, [b"guest" * 512, bytes([OK])])
    assert guest.ask(FLUSH, 0) == (1, [bytes([OK])])


def test_a_file_that_was_cut_off_is_an_error_with_what_is_left(fd: int) -> None:
    guest = Guest(fd, SIZE)
    os.ftruncate(fd, 700)
    written, (content, status) = guest.ask(IN, 1, ("w", 512))
    assert (written, status, content[:188]) == (189, bytes([IOERR]), CONTENT[512:700])
    assert guest.ask(IN, 8, ("w", 512))[1][1] == bytes([IOERR])
    assert guest.ask(OUT, 8, ("r", bytes(512))) == (1, [bytes([OK])]), "a write makes the file grow again"


def test_a_file_of_no_size_has_no_sectors(fd: int) -> None:
    os.ftruncate(fd, 0)
    guest = Guest(fd, 0)
    assert guest.ask(IN, 0, ("w", 512))[1][1] == bytes([IOERR])
    assert guest.ask(OUT, 0, ("r", bytes(512)))[1] == [bytes([IOERR])]
    assert os.fstat(fd).st_size == 0


def test_a_read_only_file_cannot_be_written(fd: int, opened: list[int]) -> None:
    opened.append(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))
    guest = Guest(opened[0], SIZE)
    assert guest.ask(OUT, 0, ("r", bytes(512))) == (1, [bytes([IOERR])])
    assert guest.ask(IN, 0, ("w", 512))[1] == [CONTENT[:512], bytes([OK])]


def test_a_device_without_space_is_an_error(opened: list[int]) -> None:
    opened.append(os.open("/dev/full", os.O_RDWR))
    guest = Guest(opened[0], SIZE)
    assert guest.ask(OUT, 0, ("r", bytes(512))) == (1, [bytes([IOERR])])


def test_a_medium_that_fails_is_an_error(opened: list[int]) -> None:
    opened.append(os.open("/proc/self/mem", os.O_RDONLY))  # nothing is mapped at 0: EIO
    guest = Guest(opened[0], SIZE)
    assert guest.ask(IN, 0, ("w", 512))[1][1] == bytes([IOERR])


def test_a_write_that_fits_in_part_is_an_error(fd: int) -> None:
    """A limit on the size of files makes the kernel write the first part, and then refuse the rest."""
    guest = Guest(fd, SIZE + KIB)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE + 100, former[1]))
    try:
        assert guest.ask(OUT, SIZE // 512, ("r", b"!" * 512)) == (1, [bytes([IOERR])])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert os.pread(fd, KIB, SIZE) == b"!" * 100


def test_a_full_file_system_is_an_error_and_reads_go_on(tmp_path: Path, opened: list[int]) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "hibana-test", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here: not root, or not allowed")
    try:
        image = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        os.ftruncate(image, 1024 * KIB)  # a sparse image, larger than what the file system can hold
        guest = Guest(image, 1024 * KIB)
        statuses = [guest.ask(OUT, 8 * at, ("r", b"f" * 4096))[1][0] for at in range(32)]
        assert statuses[:8] == [bytes([OK])] * 8
        assert statuses[-1] == bytes([IOERR])
        assert guest.ask(IN, 8, ("w", 512))[1] == [b"f" * 512, bytes([OK])]
        os.close(image)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
