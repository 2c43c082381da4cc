"""The 8259 pair, driven through its ports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.engine.soft.pic import MASTER_COMMAND, MASTER_ELCR, MASTER_MASK, SLAVE_COMMAND, SLAVE_ELCR, SLAVE_MASK, Pic

PORTS = (MASTER_COMMAND, MASTER_MASK, SLAVE_COMMAND, SLAVE_MASK, MASTER_ELCR, SLAVE_ELCR)
EOI = 0x20
ROTATE_ON_EOI = 0xA0


class Rig:
    """Both chips and how often they called the CPU."""

    def __init__(self, auto_eoi: bool = False) -> None:
        self.calls = 0
        self.pic = Pic(self.called)
        mode = 0x03 if auto_eoi else 0x01
        for command, mask, base, wiring in (
            (MASTER_COMMAND, MASTER_MASK, 0x30, 0x04),
            (SLAVE_COMMAND, SLAVE_MASK, 0x38, 0x02),
        ):
            self.pic.write(command, 0x11)
            self.pic.write(mask, base)
            self.pic.write(mask, wiring)
            self.pic.write(mask, mode)

    def called(self) -> None:
        self.calls += 1

    def requested(self) -> int:
        self.pic.write(MASTER_COMMAND, 0x0A)
        return self.pic.read(MASTER_COMMAND)

    def serving(self, command: int = MASTER_COMMAND) -> int:
        self.pic.write(command, 0x0B)
        return self.pic.read(command)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_linux_finds_the_chip_by_its_mask_register(rig: Rig) -> None:
    rig.pic.write(SLAVE_MASK, 0xFF)
    rig.pic.write(MASTER_MASK, 0xFB)
    assert rig.pic.read(MASTER_MASK) == 0xFB
    assert rig.pic.read(SLAVE_MASK) == 0xFF


def test_a_pulse_becomes_a_vector(rig: Rig) -> None:
    rig.pic.pulse(4)
    assert rig.calls == 1
    assert rig.pic.output
    assert rig.pic.acknowledge() == 0x34
    assert not rig.pic.output
    assert rig.serving() == 0x10
    rig.pic.write(MASTER_COMMAND, EOI)
    assert rig.serving() == 0


def test_the_slave_interrupts_through_the_master(rig: Rig) -> None:
    rig.pic.pulse(8)
    assert rig.requested() == 0x04
    assert rig.pic.acknowledge() == 0x38
    assert rig.serving() == 0x04
    assert rig.serving(SLAVE_COMMAND) == 0x01
    rig.pic.pulse(8)
    assert not rig.pic.output, "one IRQ 8 is still being served"
    rig.pic.write(SLAVE_COMMAND, EOI)
    rig.pic.write(MASTER_COMMAND, EOI)
    assert rig.pic.acknowledge() == 0x38


def test_the_slave_comes_before_the_masters_later_inputs(rig: Rig) -> None:
    rig.pic.pulse(5)
    rig.pic.pulse(8)
    assert rig.pic.acknowledge() == 0x38


def test_in_special_fully_nested_mode_the_slave_can_interrupt_its_own_handler(rig: Rig) -> None:
    for port, value in ((MASTER_COMMAND, 0x11), (MASTER_MASK, 0x30), (MASTER_MASK, 0x04), (MASTER_MASK, 0x11)):
        rig.pic.write(port, value)
    rig.pic.pulse(12)
    assert rig.pic.acknowledge() == 0x3C
    rig.pic.pulse(9)
    assert rig.pic.acknowledge() == 0x39


def test_a_masked_input_waits(rig: Rig) -> None:
    rig.pic.write(MASTER_MASK, 0x10)
    rig.pic.pulse(4)
    assert not rig.pic.output
    rig.pic.write(MASTER_MASK, 0)
    assert rig.pic.acknowledge() == 0x34


def test_masking_the_slave_withdraws_its_request(rig: Rig) -> None:
    rig.pic.pulse(12)
    assert rig.pic.output
    rig.pic.write(SLAVE_MASK, 0xFF)
    assert not rig.pic.output
    assert rig.requested() == 0


def test_an_acknowledge_without_request_is_spurious(rig: Rig) -> None:
    assert rig.pic.acknowledge() == 0x37
    assert rig.serving() == 0


@given(st.sets(st.integers(0, 7).filter(lambda irq: irq != 2), min_size=1), st.integers(0, 7))
def test_inputs_are_served_by_rotated_priority(irqs: set[int], lowest: int) -> None:
    rig = Rig()
    rig.pic.write(MASTER_COMMAND, 0xC0 | lowest)
    rig.pic.write(MASTER_MASK, 0xFF)
    for irq in irqs:
        rig.pic.pulse(irq)
    rig.pic.write(MASTER_MASK, 0)
    served = []
    while rig.pic.output:
        served.append(rig.pic.acknowledge() - 0x30)
        rig.pic.write(MASTER_COMMAND, EOI)
    assert served == sorted(irqs, key=lambda irq: (irq - lowest - 1) % 8)


@given(st.permutations([0, 1, 3, 4, 5, 6, 7]))
def test_only_a_higher_priority_interrupts_a_handler(irqs: list[int]) -> None:
    rig = Rig()
    interrupted: list[int] = []
    for irq in irqs:
        rig.pic.pulse(irq)
        if rig.pic.output:
            interrupted.append(rig.pic.acknowledge() - 0x30)
    assert interrupted == [irq for n, irq in enumerate(irqs) if irq == min(irqs[: n + 1])]


def test_specific_and_rotating_end_of_interrupt(rig: Rig) -> None:
    rig.pic.pulse(3)
    rig.pic.acknowledge()
    rig.pic.pulse(1)
    rig.pic.acknowledge()
    rig.pic.write(MASTER_COMMAND, 0x60 | 3)
    assert rig.serving() == 0x02
    rig.pic.write(MASTER_COMMAND, ROTATE_ON_EOI)
    assert rig.serving() == 0
    rig.pic.write(MASTER_MASK, 0xFF)
    rig.pic.pulse(1)
    rig.pic.pulse(3)
    rig.pic.write(MASTER_MASK, 0)
    assert rig.pic.acknowledge() == 0x33, "input 1 was just served and is now the last"


def test_automatic_end_of_interrupt_serves_nothing_for_long() -> None:
    rig = Rig(auto_eoi=True)
    rig.pic.pulse(4)
    assert rig.pic.acknowledge() == 0x34
    assert rig.serving() == 0
    rig.pic.write(MASTER_COMMAND, 0x80)  # rotate on automatic EOI
    rig.pic.pulse(0)
    assert rig.pic.acknowledge() == 0x30
    rig.pic.write(MASTER_MASK, 0xFF)
    rig.pic.pulse(0)
    rig.pic.pulse(7)
    rig.pic.write(MASTER_MASK, 0)
    assert rig.pic.acknowledge() == 0x37


def test_special_mask_mode_lets_lower_priorities_through(rig: Rig) -> None:
    rig.pic.pulse(1)
    rig.pic.acknowledge()
    rig.pic.pulse(5)
    assert not rig.pic.output
    rig.pic.write(MASTER_MASK, 0x02)
    rig.pic.write(MASTER_COMMAND, 0x68)
    assert rig.pic.acknowledge() == 0x35


def test_a_poll_acknowledges(rig: Rig) -> None:
    rig.pic.pulse(6)
    rig.pic.write(MASTER_COMMAND, 0x0C)
    assert rig.pic.read(MASTER_COMMAND) == 0x86
    assert not rig.pic.output
    rig.pic.write(MASTER_COMMAND, 0x0C)
    assert rig.pic.read(MASTER_COMMAND) == 0
    assert rig.serving() == 0x40


def test_elcr_keeps_the_lines_that_are_always_edge(rig: Rig) -> None:
    rig.pic.write(MASTER_ELCR, 0xFF)
    rig.pic.write(SLAVE_ELCR, 0xFF)
    assert rig.pic.read(MASTER_ELCR) == 0xF8
    assert rig.pic.read(SLAVE_ELCR) == 0xDE
    rig.pic.write(MASTER_COMMAND, 0x11)
    assert rig.pic.read(MASTER_ELCR) == 0xF8


def test_initialisation_without_icw4_ends_one_word_earlier(rig: Rig) -> None:
    rig.pic.write(MASTER_COMMAND, 0x10)
    rig.pic.write(MASTER_MASK, 0x40)
    rig.pic.write(MASTER_MASK, 0x04)
    rig.pic.write(MASTER_MASK, 0xA5)
    assert rig.pic.read(MASTER_MASK) == 0xA5
    rig.pic.write(MASTER_MASK, 0)
    rig.pic.pulse(1)
    assert rig.pic.acknowledge() == 0x41


port_writes = st.lists(st.tuples(st.sampled_from(PORTS), st.integers(0, 255), st.integers(0, 15)), max_size=30)


@given(port_writes)
def test_a_saved_pair_behaves_the_same(story: list[tuple[int, int, int]]) -> None:
    rig, copy = Rig(), Rig()
    for port, value, irq in story:
        rig.pic.write(port, value)
        rig.pic.pulse(irq)
    copy.pic.load(*rig.pic.save())
    assert copy.pic.save() == rig.pic.save()
    assert copy.pic.output == rig.pic.output
    for port, value, _ in story:
        assert copy.pic.acknowledge() == rig.pic.acknowledge()
        assert copy.pic.read(port) == rig.pic.read(port)
        copy.pic.write(port, value)
        rig.pic.write(port, value)
