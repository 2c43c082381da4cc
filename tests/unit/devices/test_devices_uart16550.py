"""The test plays a serial driver on one side and the console's user on the other."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibana.devices.uart16550 import (
    DATA,
    FCR_CLEAR_RECEIVER,
    FIFO_SIZE,
    IER,
    IER_RECEIVED,
    IER_THR_EMPTY,
    IIR,
    LCR,
    LCR_DLAB,
    LSR,
    LSR_DATA_READY,
    LSR_IDLE,
    MCR,
    MCR_DTR,
    MCR_LOOP,
    MCR_OUT1,
    MCR_OUT2,
    MCR_RTS,
    MSR,
    MSR_CTS,
    MSR_DCD,
    MSR_DSR,
    MSR_RI,
    SCR,
    Uart16550,
    UartState,
)
from hibana.observe.metrics_groups import METRICS
from hibana.testing.fakes import FakeIrq, ListSink

FCR = IIR
NOTHING_PENDING = 0xC1
TRANSMITTER_PENDING = 0xC2
RECEIVER_PENDING = 0xC4
BOTH_PENDING = 0xC6


class Bench:
    """A chip with both its ends in our hands."""

    def __init__(self) -> None:
        self.sink = ListSink()
        self.irq = FakeIrq()
        self.uart = Uart16550(self.sink, self.irq)
        self.drained = 0
        self.uart.on_drained = self._count_drained

    def inb(self, offset: int) -> int:
        return self.uart.read(offset, 1)

    def outb(self, offset: int, value: int) -> None:
        self.uart.write(offset, 1, value)

    def _count_drained(self) -> None:
        self.drained += 1


@contextmanager
def counted(metric: str, times: int) -> Iterator[None]:
    before = getattr(METRICS.uart, metric)
    yield
    assert getattr(METRICS.uart, metric) - before == times


def test_after_a_reset_the_registers_read_as_the_reference_has_them() -> None:
    bench = Bench()
    assert [bench.inb(offset) for offset in (IER, IIR, LCR, MCR, LSR, MSR, SCR)] == [
        0x00, 0xC1, 0x03, 0x08, 0x60, 0xB0, 0x00,
    ]  # fmt: skip
    bench.outb(LCR, LCR_DLAB)
    assert [bench.inb(offset) for offset in (0, 1)] == [0x0C, 0x00]


def test_what_the_guest_writes_leaves_byte_by_byte() -> None:
    bench = Bench()
    with counted("write_count", 5):
        for byte in b"login":
            assert bench.inb(LSR) == LSR_IDLE
            bench.outb(DATA, byte)
    assert bench.sink.content == b"login"
    assert bench.irq.count == 0


def test_while_bytes_are_only_printed_the_chip_takes_them_late_and_together() -> None:
    bench = Bench()
    assert bench.uart.steady == LSR_IDLE
    bench.uart.receive(b"x")
    assert bench.uart.steady == LSR_IDLE | LSR_DATA_READY
    with counted("write_count", 5):
        bench.uart.print(b"login")
    bench.sink.full = True
    with counted("missed_write_count", 3):
        bench.uart.print(b": \n")
    assert bench.sink.content == b"login"


@pytest.mark.parametrize(("offset", "value"), [(LCR, LCR_DLAB), (MCR, MCR_LOOP)])
def test_bytes_that_are_more_than_printed_are_wanted_at_once(offset: int, value: int) -> None:
    bench = Bench()
    bench.outb(offset, value)
    assert bench.uart.steady is None


def test_a_byte_that_would_interrupt_is_wanted_at_once() -> None:
    bench = Bench()
    bench.outb(IER, IER_THR_EMPTY)
    assert bench.uart.steady is None
    bench.outb(DATA, 0x41)
    assert bench.uart.steady == LSR_IDLE, "the next one interrupts nobody: the driver has not looked yet"
    bench.inb(IIR)
    assert bench.uart.steady is None


def test_with_the_divisor_latch_open_nothing_is_sent_and_the_divisor_is_kept() -> None:
    bench = Bench()
    bench.outb(LCR, 0x83)
    bench.outb(0, 0x01)
    bench.outb(1, 0xFF)
    assert [bench.inb(0), bench.inb(1)] == [0x01, 0xFF]
    bench.outb(LCR, 0x03)
    assert bench.sink.content == b""
    assert bench.inb(IER) == 0, "the divisor is not the interrupt enable register"


def test_ier_keeps_four_bits_and_the_other_registers_eight() -> None:
    bench = Bench()
    for offset in (IER, LCR, MCR, SCR):
        bench.outb(offset, 0x7F)
    assert [bench.inb(offset) for offset in (IER, LCR, MCR, SCR)] == [0x0F, 0x7F, 0x7F, 0x7F]


def test_lsr_and_msr_cannot_be_written() -> None:
    bench = Bench()
    bench.outb(LSR, 0xFF)
    bench.outb(MSR, 0x00)
    assert (bench.inb(LSR), bench.inb(MSR)) == (0x60, 0xB0)


def test_each_byte_sent_announces_an_empty_transmitter_once_until_the_driver_asks() -> None:
    bench = Bench()
    bench.outb(IER, IER_THR_EMPTY)
    assert bench.irq.count == 0, "enabling the interrupt does not raise it"
    bench.outb(DATA, 0x41)
    bench.outb(DATA, 0x42)
    assert bench.irq.count == 1
    assert bench.inb(IIR) == TRANSMITTER_PENDING
    assert bench.inb(IIR) == NOTHING_PENDING
    bench.outb(DATA, 0x43)
    assert bench.irq.count == 2


def test_a_byte_nobody_takes_is_lost_but_the_driver_goes_on() -> None:
    bench = Bench()
    bench.outb(IER, IER_THR_EMPTY)
    bench.sink.full = True
    with counted("missed_write_count", 1), counted("write_count", 0):
        bench.outb(DATA, 0x41)
    bench.sink.full = False
    bench.outb(DATA, 0x42)
    assert bench.sink.content == b"B"
    assert bench.irq.count == 1


def test_a_typed_byte_is_announced_and_read() -> None:
    bench = Bench()
    bench.outb(IER, IER_RECEIVED)
    bench.uart.receive(b"y")
    assert bench.irq.count == 1
    assert bench.inb(LSR) == LSR_IDLE | LSR_DATA_READY
    assert bench.inb(IIR) == RECEIVER_PENDING
    with counted("read_count", 1):
        assert bench.inb(DATA) == ord("y")
    assert bench.inb(LSR) == LSR_IDLE
    assert bench.drained == 1


def test_reading_from_an_empty_receiver_gives_zero() -> None:
    bench = Bench()
    assert bench.inb(DATA) == 0
    assert bench.drained == 1, "an empty receiver says so each time it is read"


def test_a_polling_driver_gets_its_bytes_without_interrupts() -> None:
    bench = Bench()
    bench.uart.receive(b"ok")
    assert bench.irq.count == 0
    assert bench.inb(IIR) == NOTHING_PENDING
    assert [bench.inb(DATA), bench.inb(DATA)] == [*b"ok"]


def test_bytes_that_came_while_nobody_wanted_to_know_are_announced_when_somebody_does() -> None:
    """Linux turns its interrupts off while it prints, and counts on this."""
    bench = Bench()
    bench.outb(IER, IER_RECEIVED)
    bench.outb(IER, 0)
    bench.uart.receive(b"y")
    assert bench.irq.count == 0
    bench.outb(IER, IER_RECEIVED)
    assert bench.irq.count == 1
    assert bench.inb(IIR) == RECEIVER_PENDING
    bench.inb(DATA)
    bench.outb(IER, IER_RECEIVED)
    assert bench.irq.count == 1, "nothing is waiting any more"


def test_one_interrupt_announces_all_bytes_that_came_before_the_driver_looked() -> None:
    bench = Bench()
    bench.outb(IER, IER_RECEIVED)
    bench.uart.receive(b"a")
    bench.uart.receive(b"b")
    assert bench.irq.count == 1


def test_reading_one_byte_withdraws_the_interrupt_even_if_more_are_waiting() -> None:
    bench = Bench()
    bench.outb(IER, IER_RECEIVED)
    bench.uart.receive(b"ab")
    bench.inb(DATA)
    assert bench.inb(LSR) & LSR_DATA_READY
    assert bench.inb(IIR) == NOTHING_PENDING
    assert bench.drained == 0


def test_both_causes_show_at_once_and_reading_iir_withdraws_both() -> None:
    bench = Bench()
    bench.outb(IER, IER_RECEIVED | IER_THR_EMPTY)
    bench.uart.receive(b"a")
    bench.outb(DATA, 0x41)
    assert bench.irq.count == 2
    assert bench.inb(IIR) == BOTH_PENDING
    assert bench.inb(IIR) == NOTHING_PENDING


def test_reading_a_byte_leaves_the_transmitter_interrupt_pending() -> None:
    bench = Bench()
    bench.outb(IER, IER_RECEIVED | IER_THR_EMPTY)
    bench.uart.receive(b"a")
    bench.outb(DATA, 0x41)
    bench.inb(DATA)
    assert bench.inb(IIR) == TRANSMITTER_PENDING


def test_the_receiver_takes_64_bytes_and_says_how_much_room_is_left() -> None:
    bench = Bench()
    assert bench.uart.room == FIFO_SIZE == 64
    bench.uart.receive(bytes(range(60)))
    assert bench.uart.room == 4
    bench.uart.receive(bytes(range(60, 100)))
    assert bench.uart.room == 0
    assert [bench.inb(DATA) for _ in range(65)] == [*range(64), 0]


def test_nothing_received_is_not_announced() -> None:
    bench = Bench()
    bench.outb(IER, IER_RECEIVED)
    bench.uart.receive(b"")
    assert (bench.irq.count, bench.inb(LSR)) == (0, LSR_IDLE)


def test_the_driver_can_throw_away_what_was_received() -> None:
    bench = Bench()
    bench.uart.receive(b"type-ahead")
    bench.outb(FCR, 0xC5)
    assert bench.uart.room == 54, "other bits of FCR are ignored"
    bench.outb(FCR, FCR_CLEAR_RECEIVER)
    assert (bench.uart.room, bench.inb(LSR), bench.drained) == (64, LSR_IDLE, 1)


def test_in_loopback_the_driver_hears_itself_and_nobody_else_does() -> None:
    bench = Bench()
    bench.outb(IER, IER_RECEIVED | IER_THR_EMPTY)
    bench.outb(MCR, MCR_LOOP)
    for byte in b"me":
        bench.outb(DATA, byte)
    assert bench.inb(IIR) == RECEIVER_PENDING, "in loopback, sending does not announce an empty transmitter"
    assert bench.irq.count == 1
    assert [bench.inb(DATA), bench.inb(DATA)] == [*b"me"]
    assert bench.sink.content == b""


def test_loopback_does_not_overflow() -> None:
    bench = Bench()
    bench.outb(MCR, MCR_LOOP)
    for byte in range(70):
        bench.outb(DATA, byte)
    assert [bench.inb(DATA) for _ in range(65)] == [*range(64), 0]


def test_what_is_typed_during_loopback_is_discarded() -> None:
    bench = Bench()
    bench.outb(MCR, MCR_LOOP)
    bench.uart.receive(b"x")
    assert (bench.inb(LSR), bench.uart.room) == (LSR_IDLE, 64)


@pytest.mark.parametrize(
    ("mcr", "msr"),
    [
        (0, 0),
        (MCR_DTR, MSR_DSR),
        (MCR_RTS, MSR_CTS),
        (MCR_OUT1, MSR_RI),
        (MCR_OUT2, MSR_DCD),
        (0x0F, 0xF0),
        (MCR_RTS | MCR_OUT2, 0x90),  # how Linux looks for a UART
    ],
)
def test_in_loopback_the_modem_outputs_feed_the_modem_inputs(mcr: int, msr: int) -> None:
    bench = Bench()
    bench.outb(MCR, MCR_LOOP | mcr)
    assert bench.inb(MSR) == msr
    bench.outb(MCR, mcr)
    assert bench.inb(MSR) == 0xB0


@pytest.mark.parametrize("size", [2, 4, 8])
def test_only_single_bytes_are_served(size: int) -> None:
    bench = Bench()
    bench.uart.receive(b"x")
    with counted("missed_read_count", 8), counted("missed_write_count", 8):
        for offset in range(8):
            assert bench.uart.read(offset, size) == 0
            bench.uart.write(offset, size, 0x10)
    assert bench.sink.content == b""
    assert bench.uart.save() == msgspec.structs.replace(UartState(), lsr=0x61, fifo=b"x")


def test_a_saved_chip_goes_on_where_it_was() -> None:
    old = Bench()
    old.outb(LCR, LCR_DLAB)
    old.outb(0, 1)
    old.outb(1, 2)
    old.outb(LCR, 0x1B)
    old.outb(MCR, 0x0B)
    old.outb(SCR, 0x5A)
    old.outb(IER, 0x05)
    old.uart.receive(b"half read")
    for _ in range(5):
        old.inb(DATA)

    new = Bench()
    new.uart.load(msgspec.json.decode(msgspec.json.encode(old.uart.save()), type=UartState))

    assert [new.inb(offset) for offset in range(1, 8)] == [old.inb(offset) for offset in range(1, 8)]
    assert [new.inb(DATA) for _ in range(4)] == [*b"read"]
    new.outb(LCR, LCR_DLAB)
    assert [new.inb(0), new.inb(1)] == [1, 2]


@pytest.mark.parametrize(
    ("iir", "ier", "pulses"),
    [(0x01, 0x03, 0), (0x04, 0x01, 1), (0x04, 0x02, 0), (0x02, 0x02, 1), (0x02, 0x01, 0), (0x06, 0x03, 2)],
)
def test_an_interrupt_that_was_pending_is_raised_again_after_a_restore(iir: int, ier: int, pulses: int) -> None:
    bench = Bench()
    bench.uart.load(UartState(iir=iir, ier=ier))
    assert bench.irq.count == pulses
    assert bench.inb(IIR) == 0xC0 | iir


@pytest.mark.parametrize("bad", [{"fifo": "A" * 88}, {"iir": 256}, {"lcr": -1}])
def test_a_state_that_no_chip_can_have_is_refused_when_read(bad: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, type=UartState)


byte = st.integers(0, 0xFF)
accesses = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("write"), st.integers(0, 7), byte),
        st.tuples(st.just("type"), st.just(0), byte),
    ),
    max_size=80,
)


@settings(deadline=None)
@given(accesses)
def test_whatever_a_guest_does_the_registers_stay_bytes_that_agree(script: list[tuple[str, int, int]]) -> None:
    bench = Bench()
    for verb, offset, value in script:
        if verb == "read":
            assert 0 <= bench.inb(offset) <= 0xFF
        elif verb == "write":
            bench.outb(offset, value)
        else:
            bench.uart.receive(bytes([value]) * 9)
        state = bench.uart.save()
        assert bool(state.lsr & LSR_DATA_READY) == bool(state.fifo)
        assert state.iir in (0x01, 0x02, 0x04, 0x06)
        assert len(state.fifo) + bench.uart.room == FIFO_SIZE
        assert msgspec.convert(msgspec.to_builtins(state), type=UartState) == state
