"""The stand-ins fit where the real things go, and remember what they are asked about."""

from hibana.bus.irq import IrqLine
from hibana.devices.uart16550 import Sink
from hibana.engine.interface import Bus
from hibana.testing.fakes import FakeClock, FakeIrq, FakeTimers, ListSink, RecordingBus


def test_an_interrupt_line_counts() -> None:
    irq = FakeIrq()
    line: IrqLine = irq
    line.pulse()
    line.pulse()
    assert irq.count == 2


def test_a_clock_moves_only_when_told() -> None:
    clock = FakeClock(10)
    assert clock() == clock() == 10
    clock.advance(0.5)
    assert clock() == 10.5


def test_a_console_remembers_and_loses_what_comes_while_it_is_full() -> None:
    console = ListSink()
    sink: Sink = console
    assert sink.write(b"a") == 1
    console.full = True
    assert sink.write(b"b") == 0
    console.full = False
    assert sink.write(b"c") == 1
    assert console.content == b"ac"


def test_a_bus_writes_down_what_the_guest_did_and_answers_from_its_list() -> None:
    recording = RecordingBus({("port", 0x60): 0x1FF, ("mmio", 0x60): 7})
    bus: Bus = recording
    assert (bus.port_read(0x60, 1), bus.mmio_read(0x60, 4), bus.port_read(0x61, 2)) == (0xFF, 7, 0)
    bus.port_write(0xE9, 1, 0x41)
    bus.mmio_write(0xC0001050, 4, 0)
    assert recording.reads == [("port", 0x60, 1), ("mmio", 0x60, 4), ("port", 0x61, 2)]
    assert recording.writes == [("port", 0xE9, 1, 0x41), ("mmio", 0xC0001050, 4, 0)]


def test_timers_ring_in_the_order_of_their_moments_and_may_set_others() -> None:
    timers = FakeTimers()
    rung: list[tuple[str, int]] = []

    def again() -> None:
        rung.append(("early", timers.now_ns()))
        timers.after(1, lambda: rung.append(("again", timers.now_ns())))

    timers.after(2, lambda: rung.append(("late", timers.now_ns())))
    timers.after(0.5, again)
    assert timers.delays() == [0.5, 2]
    timers.advance(1.9)
    assert rung == [("early", 500_000_000), ("again", 1_500_000_000)]
    assert timers.now_ns() == 1_900_000_000
    timers.advance(0.1)
    assert rung[-1] == ("late", 2_000_000_000)
