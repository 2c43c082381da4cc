"""The test plays a keyboard driver."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibana.devices.i8042 import (
    ACK,
    BUFFER_SIZE,
    DATA,
    I8042,
    READ_CONTROL,
    READ_OUTPUT_PORT,
    RESET_CPU,
    STATUS,
    STATUS_DATA_AVAILABLE,
    WRITE_CONTROL,
    WRITE_OUTPUT_PORT,
)
from hibana.errors import I8042BufferFull
from hibana.observe.metrics_groups import METRICS
from hibana.testing.fakes import FakeIrq

COMMAND = STATUS
IDLE = 0x10
DATA_AVAILABLE = 0x11
EXPECTS_PARAMETER = 0x18


class Bench:
    """A controller, its interrupt line and its reset line."""

    def __init__(self) -> None:
        self.irq = FakeIrq()
        self.resets = 0
        self.chip = I8042(self.irq, self._count_reset)

    def inb(self, offset: int) -> int:
        return self.chip.read(offset, 1)

    def outb(self, offset: int, value: int) -> None:
        self.chip.write(offset, 1, value)

    def set_control(self, value: int) -> None:
        self.outb(COMMAND, WRITE_CONTROL)
        self.outb(DATA, value)

    def drain(self) -> bytes:
        content = bytearray()
        while self.inb(STATUS) & STATUS_DATA_AVAILABLE:
            content.append(self.inb(DATA))
        return bytes(content)

    def _count_reset(self) -> None:
        self.resets += 1


@contextmanager
def counted(metric: str, times: int) -> Iterator[None]:
    before = getattr(METRICS.i8042, metric)
    yield
    assert getattr(METRICS.i8042, metric) - before == times


def test_after_a_reset_it_is_idle_and_enabled() -> None:
    bench = Bench()
    assert bench.inb(STATUS) == IDLE
    assert bench.inb(DATA) == 0
    bench.outb(COMMAND, READ_CONTROL)
    assert bench.inb(DATA) == 0x05


def test_the_reset_command_resets_the_machine() -> None:
    bench = Bench()
    with counted("reset_count", 1), counted("write_count", 1):
        bench.outb(COMMAND, RESET_CPU)
    assert bench.resets == 1


def test_the_reset_byte_on_the_data_port_resets_nothing() -> None:
    bench = Bench()
    bench.outb(DATA, RESET_CPU)
    assert bench.resets == 0


def test_control_and_output_port_can_be_written_and_read_back() -> None:
    bench = Bench()
    bench.set_control(0x47)
    assert bench.inb(STATUS) == IDLE
    bench.outb(COMMAND, WRITE_OUTPUT_PORT)
    assert bench.inb(STATUS) == EXPECTS_PARAMETER
    bench.outb(DATA, 0xDF)
    bench.outb(COMMAND, READ_CONTROL)
    assert bench.inb(STATUS) == DATA_AVAILABLE
    assert bench.inb(DATA) == 0x47
    bench.outb(COMMAND, READ_OUTPUT_PORT)
    assert bench.inb(DATA) == 0xDF
    assert bench.inb(STATUS) == IDLE
    assert bench.irq.count == 0, "answers to commands are polled for"


def test_the_last_command_before_the_parameter_decides_where_it_goes() -> None:
    bench = Bench()
    bench.outb(COMMAND, WRITE_OUTPUT_PORT)
    bench.outb(COMMAND, WRITE_CONTROL)
    bench.outb(DATA, 0x04)
    bench.outb(COMMAND, READ_CONTROL)
    assert bench.inb(DATA) == 0x04
    bench.outb(COMMAND, READ_OUTPUT_PORT)
    assert bench.inb(DATA) == 0x00


def test_a_byte_for_the_keyboard_is_acknowledged_with_an_interrupt() -> None:
    bench = Bench()
    bench.outb(DATA, 0xED)
    assert bench.irq.count == 1
    assert bench.drain() == bytes([ACK])


@pytest.mark.parametrize("command", [READ_CONTROL, READ_OUTPUT_PORT, WRITE_CONTROL])
def test_most_commands_discard_what_was_waiting(command: int) -> None:
    bench = Bench()
    bench.chip.send_ctrl_alt_del()
    bench.outb(COMMAND, command)
    assert len(bench.drain()) == (0 if command == WRITE_CONTROL else 1)


def test_writing_the_output_port_discards_nothing() -> None:
    bench = Bench()
    bench.chip.send_ctrl_alt_del()
    bench.outb(COMMAND, WRITE_OUTPUT_PORT)
    bench.outb(DATA, 0)
    assert len(bench.drain()) == 4


def test_ctrl_alt_del_is_three_keys_and_four_bytes() -> None:
    bench = Bench()
    bench.chip.send_ctrl_alt_del()
    assert bench.irq.count == 3
    assert bench.drain() == b"\x14\x11\xe0\x71"


def test_each_byte_read_announces_the_next() -> None:
    bench = Bench()
    bench.chip.send_ctrl_alt_del()
    bench.irq.count = 0
    announced = []
    for _ in range(4):
        bench.inb(DATA)
        announced.append(bench.irq.count)
    assert announced == [1, 2, 3, 3]


def test_a_guest_that_never_reads_fills_the_buffer_with_four_presses() -> None:
    bench = Bench()
    for _ in range(BUFFER_SIZE // 4):
        bench.chip.send_ctrl_alt_del()
    with pytest.raises(I8042BufferFull, match="i8042 internal buffer full"):
        bench.chip.send_ctrl_alt_del()
    bench.inb(DATA)
    with pytest.raises(I8042BufferFull):
        bench.chip.send_ctrl_alt_del()
    assert len(bench.drain()) == 15


def test_a_guest_may_disable_the_keyboard_interrupt_and_poll(capfd: pytest.CaptureFixture[str]) -> None:
    bench = Bench()
    bench.set_control(0x04)
    bench.chip.send_ctrl_alt_del()
    bench.outb(DATA, 0xFF)
    assert bench.irq.count == 0
    assert bench.drain() == bytes([ACK])
    assert "] Failed to trigger i8042 kbd interrupt (disabled by guest OS)\n" in capfd.readouterr().out


def test_unknown_commands_are_missed_writes() -> None:
    bench = Bench()
    with counted("missed_write_count", 2), counted("write_count", 0):
        bench.outb(COMMAND, 0xAA)
        bench.outb(COMMAND, 0xA7)
    assert bench.inb(STATUS) == IDLE


@pytest.mark.parametrize(("offset", "size"), [(1, 1), (2, 1), (3, 1), (0, 2), (4, 4), (4, 2)])
def test_other_ports_and_other_sizes_are_missed(offset: int, size: int) -> None:
    bench = Bench()
    with counted("missed_read_count", 1), counted("missed_write_count", 1), counted("read_count", 0):
        assert bench.chip.read(offset, size) == 0
        bench.chip.write(offset, size, RESET_CPU)
    assert (bench.resets, bench.inb(STATUS)) == (0, IDLE)


writes = st.lists(st.tuples(st.sampled_from([DATA, COMMAND, 99]), st.integers(0, 0xFF)), max_size=40)


@settings(deadline=None)
@given(writes)
def test_whatever_a_guest_does_the_buffer_never_overflows_and_status_agrees(script: list[tuple[int, int]]) -> None:
    bench = Bench()
    for offset, value in script:
        if offset == 99:
            try:
                bench.chip.send_ctrl_alt_del()
            except I8042BufferFull:
                pass
        else:
            bench.outb(offset, value)
    assert len(bench.drain()) <= BUFFER_SIZE
    assert bench.inb(DATA) == 0
