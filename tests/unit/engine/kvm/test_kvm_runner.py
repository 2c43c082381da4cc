"""The runner against a kernel that the test plays: every way in which KVM_RUN comes back, without a /dev/kvm."""

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from itertools import cycle
from threading import Lock

import pytest

from hibana.engine.interface import KICKED, SHUTDOWN, Reason, Stop
from hibana.engine.kvm import abi, kick, runner
from hibana.engine.kvm.runner import KvmRunner
from hibana.testing.fakes import RecordingBus

PAGE_SIZE = 3 * mmap.PAGESIZE
DATA = mmap.PAGESIZE
IN, OUT = 0, 1

Step = Callable[[], None]


class Kernel:
    """What happens in each KVM_RUN, one step after the other; then there is a signal, and the page says why."""

    def __init__(self, answers: dict[tuple[str, int], int] | None = None) -> None:
        self.fd = os.memfd_create("vcpu")
        os.truncate(self.fd, PAGE_SIZE)
        self.page = mmap.mmap(self.fd, PAGE_SIZE)
        self.bus = RecordingBus(answers)
        self.lock = Lock()
        self.runner = KvmRunner(self.fd, PAGE_SIZE, self.bus, self.lock)
        self.steps: list[Step] = []
        self.entries = 0

    def run(self, *steps: Step) -> Stop:
        self.steps = list(steps)
        return self.runner.run()

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        assert (fd, request, argument) == (self.fd, abi.KVM_RUN, 0)
        self.entries += 1
        if self.page[abi.RUN_IMMEDIATE_EXIT]:
            raise OSError(errno.EINTR, "Interrupted system call")
        if self.steps:
            self.steps.pop(0)()
        else:
            self.runner.kick()
            raise OSError(errno.EINTR, "Interrupted system call")
        return 0

    def exit(self, reason: int, detail: bytes = b"") -> Step:
        def step() -> None:
            self.page[abi.RUN_EXIT_REASON : abi.RUN_EXIT_REASON + 4] = reason.to_bytes(4, "little")
            self.page[abi.RUN_UNION : abi.RUN_UNION + len(detail)] = detail

        return step

    def port(self, direction: int, size: int, port: int, content: bytes) -> Step:
        def step() -> None:
            record = abi.EXIT_IO.pack(direction, size, port, len(content) // size, DATA)
            self.exit(abi.KVM_EXIT_IO, record)()
            self.page[DATA : DATA + len(content)] = content

        return step

    def mmio(self, addr: int, size: int, content: bytes = bytes(8), is_write: int = 0) -> Step:
        record = bytearray(abi.EXIT_MMIO.pack(addr, size, is_write))
        at = abi.RUN_MMIO_DATA - abi.RUN_UNION
        record[at : at + len(content)] = content
        return self.exit(abi.KVM_EXIT_MMIO, bytes(record))

    def error(self, number: int) -> Step:
        def step() -> None:
            raise OSError(number, os.strerror(number))

        return step

    def close(self) -> None:
        self.runner.close()
        self.page.close()
        os.close(self.fd)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel({("port", 0x60): 0x11223344, ("mmio", 0xD0000000): 0x8877665544332211})
    monkeypatch.setattr(runner, "ioctl", kernel.ioctl)
    monkeypatch.setattr(kick, "poke", lambda thread: None)
    yield kernel
    kernel.close()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_port_write_brings_its_value_to_the_bus(kernel: Kernel, size: int) -> None:
    assert kernel.run(kernel.port(OUT, size, 0x3F8, b"\x81\x82\x83\x84"[:size])) == KICKED
    assert kernel.bus.writes == [("port", 0x3F8, size, 0x84838281 & (1 << 8 * size) - 1)]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_port_read_takes_its_answer_into_the_page(kernel: Kernel, size: int) -> None:
    kernel.run(kernel.port(IN, size, 0x60, bytes(size)))
    assert kernel.bus.reads == [("port", 0x60, size)]
    assert kernel.page[DATA : DATA + size] == b"\x44\x33\x22\x11"[:size]


def test_a_string_is_as_many_accesses_in_order(kernel: Kernel) -> None:
    kernel.run(kernel.port(OUT, 2, 0x70, b"aabbcc"))
    assert [value.to_bytes(2, "little") for *_, value in kernel.bus.writes] == [b"aa", b"bb", b"cc"]


def test_a_string_of_reads_fills_the_page(kernel: Kernel) -> None:
    kernel.run(kernel.port(IN, 2, 0x60, bytes(6)))
    assert kernel.page[DATA : DATA + 6] == b"\x44\x33" * 3


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_memory_write_brings_its_value_to_the_bus(kernel: Kernel, size: int) -> None:
    kernel.run(kernel.mmio(0xD0000004, size, b"\x11\x22\x33\x44\x55\x66\x77\x88", 1))
    assert kernel.bus.writes == [("mmio", 0xD0000004, size, 0x8877665544332211 & (1 << 8 * size) - 1)]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_memory_read_takes_its_answer_into_the_page(kernel: Kernel, size: int) -> None:
    kernel.run(kernel.mmio(0xD0000000, size))
    answer = kernel.page[abi.RUN_MMIO_DATA : abi.RUN_MMIO_DATA + 8]
    assert answer == b"\x11\x22\x33\x44\x55\x66\x77\x88"[:size] + bytes(8 - size)


@pytest.mark.parametrize("size", [3, 5, 6, 7])
def test_an_odd_part_of_an_access_is_carried_out_byte_by_byte(kernel: Kernel, size: int) -> None:
    kernel.run(kernel.mmio(0xD0000FF9, size, b"ABCDEFGH", 1), kernel.mmio(0xD0000000, size))
    assert kernel.bus.writes == [("mmio", 0xD0000FF9 + at, 1, b"ABCDEFGH"[at]) for at in range(size)]
    assert kernel.page[abi.RUN_MMIO_DATA] == 0x11
    assert [addr for _, addr, _ in kernel.bus.reads] == [0xD0000000 + at for at in range(size)]


class Wide(RecordingBus):
    """A bus whose devices answer with more bits than were asked for."""

    def port_read(self, port: int, size: int) -> int:
        return -1

    def mmio_read(self, addr: int, size: int) -> int:
        return 1 << 64 | 0x5A


def test_what_a_device_answers_too_much_is_cut_off(kernel: Kernel) -> None:
    kernel.runner._bus = Wide()
    kernel.run(kernel.port(IN, 1, 0x60, b"\0\0"), kernel.mmio(0, 8), kernel.mmio(0, 3))
    assert kernel.page[DATA : DATA + 3] == b"\xff\xff\x00"
    assert kernel.page[abi.RUN_MMIO_DATA] == 0x5A


@pytest.mark.parametrize(
    ("reason", "detail", "stop"),
    [
        (abi.KVM_EXIT_SHUTDOWN, b"", SHUTDOWN),
        (abi.KVM_EXIT_SYSTEM_EVENT, b"\x01", Stop(Reason.POWERED_OFF)),
        (abi.KVM_EXIT_SYSTEM_EVENT, b"\x02", Stop(Reason.POWERED_OFF)),
        (abi.KVM_EXIT_SYSTEM_EVENT, b"\x03", Stop(Reason.ABORTED, "Unexpected exit reason on vcpu run: SystemEvent")),
        (
            abi.KVM_EXIT_FAIL_ENTRY,
            abi.EXIT_FAIL_ENTRY.pack(0x80000021, 3),
            Stop(Reason.ABORTED, "Received KVM_EXIT_FAIL_ENTRY signal: 2147483681 on cpu 3"),
        ),
        (abi.KVM_EXIT_INTERNAL_ERROR, b"\x01", Stop(Reason.ABORTED, "Received KVM_EXIT_INTERNAL_ERROR signal")),
        (abi.KVM_EXIT_HLT, b"", Stop(Reason.ABORTED, "Unexpected exit reason on vcpu run: Hlt")),
        (3, b"", Stop(Reason.ABORTED, "Unexpected exit reason on vcpu run: Hypercall")),
        (999, b"", Stop(Reason.ABORTED, "Unexpected exit reason on vcpu run: Unsupported(999)")),
    ],
)
def test_every_end_is_told(kernel: Kernel, reason: int, detail: bytes, stop: Stop) -> None:
    assert kernel.run(kernel.exit(reason, detail)) == stop
    assert kernel.entries == 1


@pytest.mark.parametrize(
    ("number", "stop"),
    [
        (errno.ENOSYS, Stop(Reason.ABORTED, "Received ENOSYS error because KVM failed to emulate an instruction.")),
        (errno.EFAULT, Stop(Reason.FAILED, "Bad address (os error 14)")),
        (errno.EIO, Stop(Reason.FAILED, "I/O error (os error 5)")),
    ],
)
def test_an_error_of_the_kernel_is_told(kernel: Kernel, number: int, stop: Stop) -> None:
    assert kernel.run(kernel.error(number)) == stop


@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN])
def test_a_signal_without_a_kick_and_a_cpu_that_has_just_started_change_nothing(kernel: Kernel, number: int) -> None:
    assert kernel.run(kernel.error(number), kernel.exit(abi.KVM_EXIT_INTR), kernel.error(number)) == KICKED
    assert kernel.entries == 4


def test_a_kick_during_an_access_lets_the_kernel_finish_it(kernel: Kernel) -> None:
    kicks = cycle([kernel.runner.kick])
    kernel.bus.port_write = lambda *_: next(kicks)()  # type: ignore[method-assign]
    assert kernel.run(kernel.port(OUT, 1, 0x3F8, b"x"), kernel.exit(abi.KVM_EXIT_SHUTDOWN)) == KICKED
    assert kernel.entries == 2
    assert kernel.run(kernel.exit(abi.KVM_EXIT_SHUTDOWN)) == SHUTDOWN


def test_a_kick_before_run_enters_the_kernel_once_and_no_guest(kernel: Kernel) -> None:
    kernel.runner.kick()
    assert kernel.run(kernel.exit(abi.KVM_EXIT_SHUTDOWN)) == KICKED
    assert kernel.entries == 1


def test_the_lock_is_held_on_the_bus_and_nowhere_else(kernel: Kernel) -> None:
    held: list[bool] = []

    def in_the_kernel() -> None:
        held.append(kernel.lock.locked())
        kernel.exit(abi.KVM_EXIT_INTR)()

    kernel.bus.port_write = lambda *_: held.append(kernel.lock.locked())  # type: ignore[method-assign]
    kernel.bus.mmio_write = lambda *_: held.append(kernel.lock.locked())  # type: ignore[method-assign]
    kernel.run(
        kernel.port(OUT, 1, 0x3F8, b"x"),
        in_the_kernel,
        kernel.mmio(0xD0000000, 4, bytes(8), 1),
    )
    assert held == [True, False, True]
    assert not kernel.lock.locked()


def test_a_bug_in_a_device_is_told_with_its_traceback(kernel: Kernel) -> None:
    kernel.bus.port_write = lambda *_: 1 // 0  # type: ignore[method-assign,assignment]
    stop = kernel.run(kernel.port(OUT, 1, 0x3F8, b"x"))
    assert stop.reason is Reason.FAILED
    assert "ZeroDivisionError" in stop.detail
    assert not kernel.lock.locked()


def test_a_kick_after_the_end_does_no_harm(kernel: Kernel) -> None:
    other = KvmRunner(kernel.fd, PAGE_SIZE, kernel.bus, kernel.lock)
    other.close()
    other.kick()
