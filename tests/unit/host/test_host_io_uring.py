"""The ring itself, against the real kernel, and against kernels that refuse."""

import ctypes
import errno
import os
import select
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

import pytest

from hibana.errors import (
    IoUringEnableError,
    IoUringEventFdError,
    IoUringFileError,
    IoUringProbeError,
    IoUringRestrictionsError,
    IoUringSetupError,
    MissingIoUringFeature,
    MissingIoUringOperation,
    VmmError,
)
from hibana.host import io_uring
from hibana.host.io_uring import FSYNC, READ, WRITE, Ring

CONTENT: Final = b"0123456789"


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.open("/tmp", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)
    os.pwrite(fd, CONTENT, 0)
    yield fd
    os.close(fd)


@pytest.fixture
def make_ring(file: int) -> Iterator[Callable[..., Ring]]:
    rings: list[Ring] = []

    def make(*operations: int, entries: int = 4) -> Ring:
        try:
            rings.append(Ring(entries, file, operations or (READ, WRITE, FSYNC)))
        except IoUringSetupError as error:
            pytest.skip(f"this host has no io_uring for us: {error}")
        return rings[-1]

    yield make
    for ring in rings:
        ring.close()


class Room:
    """Memory that the kernel can be told about."""

    def __init__(self, content: bytes) -> None:
        self._buffer = ctypes.create_string_buffer(content, len(content))
        self.addr = ctypes.addressof(self._buffer)

    @property
    def content(self) -> bytes:
        return self._buffer.raw


def test_results_carry_what_the_request_was_marked_with(make_ring: Callable[..., Ring]) -> None:
    ring, room = make_ring(), Room(bytes(4))
    assert ring.push(READ, 3, room.addr, 4, 1 << 63)
    ring.submit(wait_for=1)
    assert ring.reap() == [(1 << 63, 4)]
    assert room.content == b"3456"
    assert ring.reap() == []


def test_the_rings_go_round_and_round(make_ring: Callable[..., Ring], file: int) -> None:
    ring = make_ring()
    for number in range(100):
        room = Room(b"%02d" % number)
        assert ring.push(WRITE, 2 * number, room.addr, 2, number)
        ring.submit(wait_for=1)
        assert ring.reap() == [(number, 2)]
    assert os.pread(file, 200, 0) == b"".join(b"%02d" % number for number in range(100))


def test_a_full_queue_says_so_until_it_is_handed_over(make_ring: Callable[..., Ring]) -> None:
    ring, room = make_ring(), Room(bytes(1))
    assert [ring.push(READ, at, room.addr, 1, at) for at in range(5)] == [True] * 4 + [False]
    ring.submit(wait_for=4)
    assert ring.push(READ, 4, room.addr, 1, 4)
    ring.submit(wait_for=5)
    assert sorted(ring.reap()) == [(at, 1) for at in range(5)]


def test_results_are_announced(make_ring: Callable[..., Ring]) -> None:
    ring, room = make_ring(), Room(bytes(1))
    with pytest.raises(BlockingIOError):
        os.eventfd_read(ring.eventfd)
    ring.push(READ, 0, room.addr, 1, 7)
    ring.submit(wait_for=1)
    assert os.eventfd_read(ring.eventfd) == 1


def test_a_failure_is_a_negative_number(make_ring: Callable[..., Ring]) -> None:
    ring = make_ring()
    ring.push(READ, 0, 8, 1, 1)  # nothing is mapped there
    ring.push(FSYNC, 0, 0, 0, 2)
    ring.submit(wait_for=2)
    assert sorted(ring.reap()) == [(1, -errno.EFAULT), (2, 0)]


def test_an_operation_that_is_not_on_the_list_is_refused(make_ring: Callable[..., Ring], file: int) -> None:
    ring, room = make_ring(READ), Room(b"!")
    ring.push(WRITE, 0, room.addr, 1, 1)
    ring.submit(wait_for=1)
    assert ring.reap() == [(1, -errno.EACCES)]
    assert os.pread(file, 1, 0) == b"0"


def test_another_file_takes_the_place_of_the_first(make_ring: Callable[..., Ring]) -> None:
    ring, room = make_ring(), Room(bytes(5))
    for content in (b"OTHER", b"THIRD"):
        exchange_for(ring, content)
        ring.push(READ, 0, room.addr, 5, 1)
        ring.submit(wait_for=1)
        assert (ring.reap(), room.content) == ([(1, 5)], content)


def exchange_for(ring: Ring, content: bytes) -> None:
    """Give a ring a file with some content, which nobody else has open."""
    other = os.memfd_create("other")
    os.write(other, content)
    ring.exchange(other)
    os.close(other)


def test_a_file_that_is_not_open_is_refused_and_the_ring_keeps_its_own(make_ring: Callable[..., Ring]) -> None:
    ring, room = make_ring(), Room(bytes(5))
    for _ in range(3):
        with pytest.raises(IoUringFileError, match=r"Could not register file: Bad file descriptor \(os error 9\)"):
            ring.exchange(999)
        ring.push(READ, 0, room.addr, 5, 1)
        ring.submit(wait_for=1)
        assert (ring.reap(), room.content) == ([(1, 5)], CONTENT[:5])


def test_a_file_that_cannot_be_let_go_does_not_keep_the_next_one_away(
    make_ring: Callable[..., Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    ring, room, real, calls = make_ring(), Room(bytes(5)), io_uring._call, count()

    def exhausted_at_the_second_call(number: int, fd: int, *arguments: object) -> int:
        if next(calls):
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return real(number, fd, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(io_uring, "_call", exhausted_at_the_second_call)
        exchange_for(ring, b"OTHER")
    assert next(calls) == 2
    ring.push(READ, 0, room.addr, 5, 1)
    ring.submit(wait_for=1)
    assert (ring.reap(), room.content) == ([(1, 5)], b"OTHER")


def test_a_file_that_was_exchanged_is_let_go(make_ring: Callable[..., Ring]) -> None:
    """As the reader of a pipe finds out when the last of its writers is gone."""
    ring = make_ring()
    reader, writer = os.pipe2(os.O_NONBLOCK)
    ring.exchange(writer)
    os.close(writer)
    exchange_for(ring, b"OTHER")
    wait_for(lambda: select.select([reader], [], [], 0.1)[0])
    assert os.read(reader, 1) == b""
    os.close(reader)


def wait_for(is_so: Callable[[], object]) -> None:
    """The kernel takes its time to let go."""
    for _ in range(200):
        if is_so():
            return
    raise AssertionError("it never happens")


@pytest.mark.parametrize(
    "code", [0, 2, 4, 9, 11, 13]
)  # buffers, files, eventfd, credentials, restrictions, files again
def test_a_ring_can_be_taught_nothing_more(code: int, make_ring: Callable[..., Ring], file: int) -> None:
    ring = make_ring()
    with pytest.raises(PermissionError):
        io_uring._call(427, ring._fd, code, file.to_bytes(16, "little"), 1)


def test_it_gives_everything_back(file: int) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    try:
        ring = Ring(4, file, (READ,))
    except IoUringSetupError as error:
        pytest.skip(f"this host has no io_uring for us: {error}")
    ring.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


# --- hosts that refuse ------------------------------------------------------------------------------------------------


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, code: int | None) -> None:
    """Let the kernel refuse one system call, or one way to use it."""
    real = io_uring._call

    def call(called: int, fd: int, *arguments: object) -> int:
        if called == number and (code is None or arguments[0] == code):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return real(called, fd, *arguments)

    monkeypatch.setattr(io_uring, "_call", call)


@pytest.mark.parametrize(
    ("number", "code", "error", "text"),
    [
        (425, None, IoUringSetupError, "Error calling io_uring_setup: Operation not permitted (os error 1)"),
        (427, 8, IoUringProbeError, "Error probing the io_uring subsystem: Operation not permitted (os error 1)"),
        (427, 4, IoUringEventFdError, "Could not register eventfd: Operation not permitted (os error 1)"),
        (427, 11, IoUringRestrictionsError, "Could not register restrictions: Operation not permitted (os error 1)"),
        (427, 2, IoUringFileError, "Could not register file: Operation not permitted (os error 1)"),
        (427, 12, IoUringEnableError, "Could not enable the ring: Operation not permitted (os error 1)"),
    ],
)
def test_a_host_that_refuses_is_quoted(
    make_ring: Callable[..., Ring],
    file: int,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int | None,
    error: type[VmmError],
    text: str,
) -> None:
    make_ring()  # or skip
    before = sorted(os.listdir("/proc/self/fd"))
    refuse(monkeypatch, number, code)
    with pytest.raises(error) as refused:
        Ring(4, file, (READ,))
    assert str(refused.value) == text
    assert sorted(os.listdir("/proc/self/fd")) == before, "and nothing is left behind"


def test_a_kernel_without_an_operation_is_refused() -> None:
    with pytest.raises(MissingIoUringOperation) as refused:
        io_uring._check_operations(bytes(4096), (WRITE,))
    assert str(refused.value) == "Required operation is not supported on the host kernel: Write"


def test_a_kernel_that_may_lose_results_is_refused() -> None:
    with pytest.raises(MissingIoUringFeature) as refused:
        io_uring._check_features(1)
    assert str(refused.value) == "Required feature is not supported on the host kernel: IORING_FEAT_NODROP"


def test_without_descriptors_there_is_no_ring(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "eventfd", none_left)
    with pytest.raises(IoUringEventFdError, match="No file descriptors available"):
        Ring(4, file, (READ,))
