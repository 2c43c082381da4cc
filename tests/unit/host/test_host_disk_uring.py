"""The Async engine on real files: requests that the kernel works on while we look elsewhere."""

import errno
import gc
import os
from collections import deque
from collections.abc import Callable, Iterator
from struct import pack
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibana.bus.home import Home
from hibana.bus.loop import Loop
from hibana.devices.rate_limiter import RateLimiter
from hibana.devices.virtio.block import BUSY, SUBMITTED, Block, Completion, Request
from hibana.devices.virtio.block_request import FLUSH, IN, OK, OUT
from hibana.errors import IoEngineError
from hibana.host import io_uring
from hibana.host.disk import disk_id
from hibana.host.disk_uring import UringDisk, try_ring
from hibana.observe import log
from hibana.testing.fakes import FakeTimers
from hibana.testing.virtio import Driver, Offer
from hibana.units import KIB

SIZE: Final = 16 * KIB
CONTENT: Final = bytes(at * 31 % 253 for at in range(SIZE))


def request(number: int) -> Request:
    """A request that can be told from others."""
    return (number, IN, 0, 0, 0, [])


class Host:
    """A file, a ring, a loop, and a place where devices live."""

    def __init__(self) -> None:
        self.fd = os.open("/tmp", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)
        os.pwrite(self.fd, CONTENT, 0)
        self.loop = Loop()
        self.posted: deque[Callable[[], None]] = deque()
        try:
            self.disk = UringDisk(self.fd, SIZE, Home(self.loop, self.posted.append))
        except IoEngineError as error:
            pytest.skip(f"this host has no io_uring for us: {error}")

    def settle(self, is_done: Callable[[], object]) -> None:
        """Let loop and devices run, in turn, until something is the case; the kernel takes its time."""
        for _ in range(1000):
            if is_done():
                return
            self.loop.after(0.005, self.loop.stop)
            self.loop.run()
            while self.posted:
                self.posted.popleft()()
        raise AssertionError("nothing happens")

    def run_loop(self) -> None:
        """Let the loop do what it was asked for: a round for each watch, forget and close."""
        for _ in range(5):
            self.loop.after(0, self.loop.stop)
            self.loop.run()

    def close(self) -> None:
        self.disk.drain()
        self.disk.close()
        self.run_loop()
        self.loop.close()
        os.close(self.fd)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


def room(size: int) -> memoryview:
    return memoryview(bytearray(size))


# --- the disk alone ---------------------------------------------------------------------------------------------------


def test_requests_are_under_way_until_they_are_drained(host: Host) -> None:
    window = room(1000)
    assert host.disk.read(2000, window, request(1)) == SUBMITTED
    assert host.disk.write(100, memoryview(bytearray(b"written")), request(2)) == SUBMITTED
    assert host.disk.flush(request(3)) == SUBMITTED
    answers = sorted(host.disk.drain(), key=lambda each: each.request[0])
    assert [each[:2] for each in answers] == [(request(1), 1000), (request(2), 7), (request(3), 0)]
    assert [each.error for each in answers] == [None] * 3
    assert window == CONTENT[2000:3000]
    assert os.pread(host.fd, 7, 100) == b"written"
    assert host.disk.drain() == []


def test_it_is_known_by_the_same_name_as_any_file(host: Host) -> None:
    assert host.disk.id == disk_id(host.fd)


def test_what_the_kernel_can_do_at_once_is_answered_at_once_and_not_announced(host: Host) -> None:
    told: list[Completion] = []
    host.disk.listen(told.extend)
    host.disk.read(0, room(10), request(1))
    answers = host.disk.submit()
    while not answers:  # unless the file had to be fetched first
        answers = host.disk.submit()
    host.run_loop()
    assert (answers, told, list(host.posted)) == ([Completion(request(1), 10, None)], [], [])


class Slow:
    """A disk that is a pipe: it has nothing to read before the test says so."""

    def __init__(self, host: Host) -> None:
        self.told: list[Completion] = []
        reader, self._writer = os.pipe()
        self.disk = UringDisk(reader, SIZE, Home(host.loop, host.posted.append))
        os.close(reader)
        self.disk.listen(self.told.extend)

    def answer(self, content: bytes) -> None:
        os.write(self._writer, content)

    def close(self) -> None:
        os.close(self._writer)
        self.disk.drain()
        self.disk.close()


@pytest.fixture
def slow(host: Host) -> Iterator[Slow]:
    slow = Slow(host)
    yield slow
    slow.close()


def test_late_answers_are_announced_where_devices_live(host: Host, slow: Slow) -> None:
    for number in (1, 2):
        window = room(4)
        slow.disk.read(0, window, request(number))
        assert slow.disk.submit() == []
        slow.answer(b"late")
        host.settle(lambda: slow.told)
        assert slow.told == [Completion(request(number), 4, None)]
        slow.told.clear()
        assert window.tobytes() == b"late"


def test_an_announcement_may_come_when_the_answer_has_been_given(host: Host, slow: Slow) -> None:
    slow.disk.read(0, room(4), request(1))
    slow.disk.submit()
    slow.answer(b"late")
    while not host.posted:  # the announcement is on its way to where devices live
        host.run_loop()
    assert slow.disk.submit() == [Completion(request(1), 4, None)]
    host.posted.popleft()()
    assert slow.told == []


def test_what_was_drained_is_not_told_again(host: Host, slow: Slow) -> None:
    slow.disk.read(0, room(4), request(1))
    slow.disk.submit()
    slow.answer(b"soon")
    assert slow.disk.drain() == [Completion(request(1), 4, None)]
    slow.disk.read(0, room(4), request(2))
    slow.disk.submit()
    slow.answer(b"late")
    host.settle(lambda: slow.told)
    assert [each.request for each in slow.told] == [request(2)]


def test_the_end_of_the_file_is_where_bytes_end(host: Host) -> None:
    host.disk.read(SIZE - 7, room(100), request(1))
    host.disk.read(SIZE, room(100), request(2))
    assert sorted((each.request[0], each.moved) for each in host.disk.drain()) == [(1, 7), (2, 0)]


def test_nothing_is_done_at_once(host: Host) -> None:
    assert host.disk.read(0, room(0), request(1)) == 0


def test_a_failure_is_told_as_the_host_says_it(host: Host) -> None:
    fd = os.open(f"/proc/self/fd/{host.fd}", os.O_RDONLY)
    disk = UringDisk(fd, SIZE, Home(host.loop, host.posted.append))
    os.close(fd)  # the ring keeps the file
    disk.write(0, room(10), request(1))
    ((_, moved, error),) = disk.drain()
    assert moved == 0
    assert error is not None
    assert error.errno == errno.EBADF
    disk.close()


def test_more_requests_than_fit_into_a_submission_are_submitted_on_the_way(host: Host) -> None:
    windows = [room(16) for _ in range(200)]
    assert {host.disk.read(at, windows[at], request(at)) for at in range(200)} == {SUBMITTED}
    assert len(host.disk.drain()) == 200
    assert all(windows[at] == CONTENT[at : at + 16] for at in range(200))


def test_it_is_busy_when_there_is_no_place_for_more_results(host: Host) -> None:
    capacity = 256
    answers = [host.disk.read(0, room(16), request(at)) for at in range(capacity + 1)]
    assert answers == [SUBMITTED] * capacity + [BUSY]
    assert len(host.disk.drain()) == capacity
    assert host.disk.read(0, room(16), request(0)) == SUBMITTED


def test_memory_stays_where_it_is_until_the_kernel_is_done(slow: Slow) -> None:
    memory = bytearray(4)
    window = memoryview(memory)
    slow.disk.read(0, window, request(1))
    slow.disk.submit()
    window.release()
    with pytest.raises(BufferError):
        memory.extend(bytes(1 << 20))
    slow.answer(b"done")
    slow.disk.drain()
    memory.extend(b"free again")
    assert memory == b"donefree again"


def test_a_closed_disk_leaves_nothing_behind(host: Host) -> None:
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    for is_watched in (False, True):
        disk = UringDisk(host.fd, SIZE, Home(host.loop, host.posted.append))
        if is_watched:
            disk.listen(lambda _: None)
        disk.close()
        host.run_loop()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_host_that_forbids_it_says_so_in_the_words_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(io_uring, "_call", forbidden)
    with pytest.raises(IoEngineError) as refused:
        try_ring(0)
    assert str(refused.value) == (
        "Error coming from the IO engine: Async error: IoUring: Error calling io_uring_setup: "
        "Operation not permitted (os error 1)"
    )


def test_it_is_announced_as_a_preview(capfd: pytest.CaptureFixture[str]) -> None:
    assert log.enabled(log.WARN)
    host = Host()
    before = sorted(os.listdir("/proc/self/fd"))
    try_ring(host.fd)
    assert sorted(os.listdir("/proc/self/fd")) == before, "the ring was only tried"
    host.close()
    assert capfd.readouterr().out.count("[DevPreview] Async file IO is in development preview.") == 1


# --- what the guest sees of it ----------------------------------------------------------------------------------------


class Guest:
    """A guest whose drive is a real file."""

    def __init__(self, host: Host) -> None:
        self.driver = Driver()
        self.block = Block("uring", host.disk, RateLimiter(None, None, FakeTimers()))
        self.driver.start(self.block)

    def offer(self, kind: int, sector: int, *data: Offer) -> int:
        return self.driver.offer(("r", pack("<IIQ", kind, 0, sector)), *data, ("w", 1))


def test_a_guest_gets_its_answers(host: Host) -> None:
    guest = Guest(host)
    write = guest.offer(OUT, 3, ("r", b"w" * 512))
    guest.driver.kick()
    host.settle(lambda: guest.driver.rings[0].used_index == 1)
    read, flush = guest.offer(IN, 3, ("w", 512)), guest.offer(FLUSH, 0)
    guest.driver.kick()
    host.settle(lambda: guest.driver.rings[0].used_index == 3)
    assert sorted(guest.driver.completions()) == sorted([(write, 1), (read, 513), (flush, 1)])
    assert guest.driver.written(read) == [b"w" * 512, bytes([OK])]
    assert os.pread(host.fd, 512, 1536) == b"w" * 512


@given(
    batches=st.lists(
        st.lists(st.tuples(st.booleans(), st.integers(0, 31), st.integers(0, 255)), min_size=1, max_size=6), max_size=4
    )
)
@settings(max_examples=25, deadline=None)
def test_a_drive_is_an_array_of_sectors(batches: list[list[tuple[bool, int, int]]]) -> None:
    host = Host()
    try:
        guest, model = Guest(host), bytearray(CONTENT)
        for batch in batches:
            reads: dict[int, bytes] = {}
            touched: set[int] = set()
            for is_write, sector, fill in batch:
                if sector in touched:  # requests that are under way together have no order
                    continue
                touched.add(sector)
                if is_write:
                    guest.offer(OUT, sector, ("r", bytes([fill]) * 512))
                    model[sector * 512 : (sector + 1) * 512] = bytes([fill]) * 512
                else:
                    head = guest.offer(IN, sector, ("w", 512))
                    reads[head] = bytes(model[sector * 512 : (sector + 1) * 512])
            guest.driver.kick()
            guest.block.drain()
            assert len(guest.driver.completions()) == len(touched)
            assert {head: guest.driver.written(head)[0] for head in reads} == reads
        assert os.pread(host.fd, SIZE, 0) == model
    finally:
        host.close()
