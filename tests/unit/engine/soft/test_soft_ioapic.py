"""The I/O APIC: pulses become messages, now or when the guest lets them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.engine.soft.ioapic import PINS, Ioapic

MASKED = 0x10000
LEVEL = 0x8000
REMOTE_IRR = 0x4000
LOGICAL = 0x800

Message = tuple[int, int, int, bool, bool]


class Rig:
    """An I/O APIC, the messages it sent, and the guest's way to its registers."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.chip = Ioapic(lambda *message: self.sent.append(message))

    def read(self, index: int) -> int:
        self.chip.write(0x00, index)
        return self.chip.read(0x10)

    def write(self, index: int, value: int) -> None:
        self.chip.write(0x00, index)
        self.chip.write(0x10, value)

    def route(self, pin: int, low: int, destination: int = 0) -> None:
        self.write(0x11 + 2 * pin, destination << 24)
        self.write(0x10 + 2 * pin, low)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_registers_start_as_the_datasheet_says(rig: Rig) -> None:
    assert rig.read(0) == 0
    assert rig.read(1) == 0x170011
    for pin in range(PINS):
        assert rig.read(0x10 + 2 * pin) == MASKED
        assert rig.read(0x11 + 2 * pin) == 0
    assert rig.read(0x10 + 2 * PINS) == 0


def test_the_id_is_also_the_arbitration_id(rig: Rig) -> None:
    rig.write(0, 0xFFFFFFFF)
    assert rig.read(0) == 0x0F000000
    assert rig.read(2) == 0x0F000000


def test_a_pulse_on_an_open_pin_sends_one_message(rig: Rig) -> None:
    rig.route(5, 0x31, destination=2)
    rig.chip.pulse(5)
    assert rig.sent == [(0, 0x31, 2, False, False)]
    rig.chip.pulse(5)
    assert len(rig.sent) == 2


def test_delivery_mode_and_logical_destination_reach_the_bus(rig: Rig) -> None:
    rig.route(7, LOGICAL | 0x100 | 0x41, destination=0x0F)
    rig.chip.pulse(7)
    assert rig.sent == [(1, 0x41, 0x0F, True, False)]


def test_a_pulse_on_a_masked_pin_is_sent_when_it_is_unmasked(rig: Rig) -> None:
    rig.route(5, MASKED | 0x31)
    rig.chip.pulse(5)
    rig.chip.pulse(5)
    assert rig.sent == []
    rig.route(5, 0x31)
    assert rig.sent == [(0, 0x31, 0, False, False)]


def test_a_level_pin_waits_for_the_end_of_its_interrupt(rig: Rig) -> None:
    rig.route(9, LEVEL | 0x55)
    rig.chip.pulse(9)
    assert rig.read(0x10 + 2 * 9) == LEVEL | REMOTE_IRR | 0x55
    rig.chip.pulse(9)
    assert len(rig.sent) == 1
    rig.chip.end_of_interrupt(0x54)
    assert len(rig.sent) == 1
    rig.chip.end_of_interrupt(0x55)
    assert rig.sent == [(0, 0x55, 0, False, True)] * 2
    rig.chip.end_of_interrupt(0x55)
    assert len(rig.sent) == 2
    assert rig.read(0x10 + 2 * 9) == LEVEL | 0x55


def test_switching_to_edge_clears_a_stuck_remote_irr(rig: Rig) -> None:
    rig.route(9, LEVEL | 0x55)
    rig.chip.pulse(9)
    rig.route(9, MASKED | 0x55)
    rig.route(9, LEVEL | 0x55)
    assert rig.read(0x10 + 2 * 9) == LEVEL | 0x55


def test_read_only_and_reserved_bits_stay(rig: Rig) -> None:
    rig.write(0x10, 0xFFFFFFFF)
    rig.write(0x11, 0xFFFFFFFF)
    assert rig.read(0x10) == 0x1AFFF
    assert rig.read(0x11) == 0xFF000000


def test_the_select_register_reads_back_and_bytes_can_be_read(rig: Rig) -> None:
    rig.chip.write(0x00, 0x101)
    assert rig.chip.read(0x00) == 0x01
    assert rig.chip.read(0x12) == 0x17
    assert rig.chip.read(0x20) == 0


@given(st.lists(st.tuples(st.integers(0, 0x40), st.integers(0, 2**64 - 1)), max_size=30))
def test_no_access_is_fatal(writes: list[tuple[int, int]]) -> None:
    rig = Rig()
    for offset, value in writes:
        rig.chip.write(offset, value)
        assert 0 <= rig.chip.read(offset) <= 0xFFFFFFFF


@given(st.lists(st.tuples(st.integers(0, PINS - 1), st.integers(0, 0xFFFFFFFF), st.booleans()), max_size=20))
def test_a_saved_chip_behaves_the_same(story: list[tuple[int, int, bool]]) -> None:
    rig, copy = Rig(), Rig()
    for pin, low, pulse in story:
        rig.route(pin, low)
        if pulse:
            rig.chip.pulse(pin)
    copy.chip.load(rig.chip.save())
    assert copy.chip.save() == rig.chip.save()
    assert copy.sent == [], "nothing that could be sent was still waiting"
    rig.sent.clear()
    for pin, low, _ in story:
        for one in (rig, copy):
            one.route(pin, low & ~MASKED)
            one.chip.end_of_interrupt(low & 0xFF)
    assert copy.sent == rig.sent


def test_a_saved_state_is_a_copy(rig: Rig) -> None:
    state = rig.chip.save()
    rig.route(0, 0x30)
    assert state.redirtbl[0] == MASKED
