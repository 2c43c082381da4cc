"""The test types on one side and plays the guest's driver on the other."""

import os
import select
import termios
import threading
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from hibana.bus.loop import Loop
from hibana.devices.uart16550 import DATA, FCR_CLEAR_RECEIVER, IER, IER_RECEIVED, IIR, LSR, LSR_DATA_READY, Uart16550
from hibana.host.serial_input import SerialInput
from hibana.testing.fakes import FakeIrq, ListSink


class Bench:
    """A loop, a chip, and the tasks that were posted to where devices live."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.irq = FakeIrq()
        self.uart = Uart16550(ListSink(), self.irq)
        self.posted: deque[Callable[[], None]] = deque()

    def listen(self, fd: int) -> None:
        SerialInput(fd, self.uart, self.loop, self.posted.append).start()

    def settle(self) -> None:
        """Let loop and devices run, in turn, until neither has anything to do."""
        while True:
            # The timer ends the round after what is ready now: a call to watch again, then the watched descriptor.
            for _ in range(3):
                self.loop.after(0, self.loop.stop)
                self.loop.run()
            if not self.posted:
                return
            while self.posted:
                self.posted.popleft()()

    def driver_reads(self) -> bytes:
        content = bytearray()
        while self.uart.read(LSR, 1) & LSR_DATA_READY:
            content.append(self.uart.read(DATA, 1))
        return bytes(content)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.loop.close()


@pytest.fixture
def fifo() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            pass


def wait_until_readable(terminal: int) -> None:
    """Wait for the kernel, which carries keys through a terminal in its own time."""
    select.select([terminal], [], [])


def test_what_is_typed_reaches_the_guest_with_an_interrupt(bench: Bench, fifo: tuple[int, int]) -> None:
    reader, writer = fifo
    bench.uart.write(IER, 1, IER_RECEIVED)
    bench.listen(reader)
    os.write(writer, b"ls\n")
    bench.settle()
    assert bench.irq.count == 1
    assert bench.driver_reads() == b"ls\n"
    os.write(writer, b"more")
    bench.settle()
    assert bench.driver_reads() == b"more"


def test_never_more_is_read_than_the_chip_can_take(bench: Bench, fifo: tuple[int, int]) -> None:
    reader, writer = fifo
    text = bytes(range(200))
    bench.listen(reader)
    os.write(writer, text)
    bench.settle()
    assert bench.uart.room == 0
    assert bench.posted == deque(), "with a full FIFO nobody listens"
    received = bytearray()
    while content := bench.driver_reads():
        received += content
        bench.settle()
    assert received == text


def test_what_does_not_fit_stays_with_the_typist(bench: Bench, fifo: tuple[int, int]) -> None:
    reader, writer = fifo
    bench.listen(reader)
    os.write(writer, bytes(range(60)))
    bench.settle()
    os.write(writer, bytes(range(60, 70)))
    bench.settle()
    assert bench.driver_reads() == bytes(range(64))
    bench.settle()
    assert bench.driver_reads() == bytes(range(64, 70))


def test_a_fifo_that_is_half_read_still_waits_to_be_empty(bench: Bench, fifo: tuple[int, int]) -> None:
    reader, writer = fifo
    bench.listen(reader)
    os.write(writer, bytes(100))
    bench.settle()
    for _ in range(63):
        bench.uart.read(DATA, 1)
    bench.settle()
    assert bench.uart.room == 63
    bench.uart.read(DATA, 1)
    bench.settle()
    assert bench.uart.room == 64 - 36


def test_a_driver_that_clears_the_receiver_lets_the_rest_in(bench: Bench, fifo: tuple[int, int]) -> None:
    reader, writer = fifo
    bench.listen(reader)
    os.write(writer, b"x" * 64 + b"rest")
    bench.settle()
    bench.uart.write(IIR, 1, FCR_CLEAR_RECEIVER)
    bench.settle()
    assert bench.driver_reads() == b"rest"


def test_the_end_of_the_input_detaches_it_and_nothing_else(
    bench: Bench, fifo: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = fifo
    bench.listen(reader)
    os.write(writer, b"bye")
    os.close(writer)
    bench.settle()
    assert bench.driver_reads() == b"bye"
    bench.settle()
    assert "] Detached the serial input due to peer close/error.\n" in capfd.readouterr().out
    bench.loop.watch(reader, bench.loop.stop)  # would fail if it were watched still


def test_a_terminal_that_hangs_up_detaches_too(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    keyboard, terminal = os.openpty()
    bench.listen(terminal)
    os.close(keyboard)
    wait_until_readable(terminal)
    bench.settle()
    assert "Detached the serial input due to peer close/error." in capfd.readouterr().out
    os.close(terminal)


def test_a_terminal_is_listened_to(bench: Bench) -> None:
    keyboard, terminal = os.openpty()
    modes = termios.tcgetattr(terminal)
    modes[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(terminal, termios.TCSANOW, modes)
    bench.listen(terminal)
    os.write(keyboard, b"q")
    wait_until_readable(terminal)
    bench.settle()
    assert bench.driver_reads() == b"q"
    os.close(keyboard)
    os.close(terminal)


def test_if_somebody_else_reads_first_the_input_stays_attached(bench: Bench, fifo: tuple[int, int]) -> None:
    reader, writer = fifo
    os.set_blocking(reader, False)
    bench.listen(reader)
    os.write(writer, b"stolen")
    bench.loop.after(0, bench.loop.stop)
    bench.loop.run()
    assert os.read(reader, 100) == b"stolen"
    bench.settle()
    os.write(writer, b"mine")
    bench.settle()
    assert bench.driver_reads() == b"mine"


def test_an_input_that_cannot_be_read_detaches_too(
    bench: Bench, fifo: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = fifo
    bench.listen(reader)
    os.write(writer, b"x")
    bench.loop.after(0, bench.loop.stop)
    bench.loop.run()
    os.dup2(writer, reader)  # the reading end is gone between the report and the read
    bench.settle()
    assert "Detached the serial input due to peer close/error." in capfd.readouterr().out


@pytest.mark.parametrize("path", ["/dev/null", __file__])
def test_a_file_as_standard_input_is_left_alone(bench: Bench, path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    bench.listen(fd)
    bench.settle()
    assert bench.uart.room == 64
    os.close(fd)


def test_devices_on_their_own_thread_lose_nothing_of_a_long_paste(fifo: tuple[int, int]) -> None:
    reader, writer = fifo
    text = bytes(range(256)) * 40
    bench = Bench()
    received = bytearray()
    arrived = threading.Semaphore(0)
    done = threading.Event()

    def post(task: Callable[[], None]) -> None:
        bench.posted.append(task)
        arrived.release()

    def device_thread() -> None:
        while len(received) < len(text):
            arrived.acquire()
            bench.posted.popleft()()
            received.extend(bench.driver_reads())
        done.set()
        bench.loop.call(bench.loop.stop)

    SerialInput(reader, bench.uart, bench.loop, post).start()
    os.write(writer, text)
    thread = threading.Thread(target=device_thread)
    thread.start()
    bench.loop.run()
    thread.join()
    bench.loop.close()
    assert received == text
