"""The interrupt fabric: from a device's line, a timer or another CPU to a vector."""

from dataclasses import dataclass, field

import pytest

from hibana.engine.soft import lapic as reg
from hibana.engine.soft.interrupts import Interrupts

MASKED = 0x10000
LOGICAL = 0x800
LOWEST = 0x100
TO_SELF, TO_ALL, TO_OTHERS = 0x40000, 0x80000, 0xC0000
NMI, INIT, SIPI, SMI = 0x400, 0x500, 0x600, 0x200
ASSERT, LEVEL = 0x4000, 0x8000


@dataclass
class Cpus:
    """A scheduler that only writes down what it is told."""

    interrupts: list[int] = field(default_factory=list)
    others: list[tuple[str, int]] = field(default_factory=list)
    timer_changes: int = 0

    def interrupt(self, index: int) -> None:
        self.interrupts.append(index)

    def nmi(self, index: int) -> None:
        self.others.append(("nmi", index))

    def init(self, index: int) -> None:
        self.others.append(("init", index))

    def start_up(self, index: int, vector: int) -> None:
        self.others.append((f"start up at {vector << 12:#x}", index))

    def timer_changed(self) -> None:
        self.timer_changes += 1


class Rig:
    """A machine with its APICs as Linux leaves them: enabled, LINT0 masked, flat model with one LDR bit per CPU."""

    def __init__(self, count: int = 4) -> None:
        self.ns = 10**9
        self.cpus = Cpus()
        self.fabric = Interrupts(count, self.cpus, lambda: self.ns, lambda: 0)
        for index in range(count):
            self.fabric.lapic_write(index, reg.SVR, 0x0FF)
            self.fabric.lapic_write(index, reg.SVR, 0x1FF)
            self.fabric.lapic_write(index, reg.LDR, 1 << 24 + index)
        self.cpus.interrupts.clear()

    def route(self, pin: int, low: int, destination: int = 0) -> None:
        for index, value in ((0x11, destination << 24), (0x10, low)):
            self.fabric.ioapic_write(0x00, index + 2 * pin)
            self.fabric.ioapic_write(0x10, value)

    def command(self, sender: int, low: int, destination: int = 0) -> None:
        self.fabric.lapic_write(sender, reg.ICR_HIGH, destination << 24)
        self.fabric.lapic_write(sender, reg.ICR_LOW, low)

    def pending(self) -> list[int]:
        return [index for index in range(len(self.fabric.lapics)) if self.fabric.pending(index)]

    def open_pic(self) -> None:
        self.fabric.lapic_write(0, reg.LVT_LINT0, 0x700)
        for port, value in ((0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, 0)):
            self.fabric.port_write(port, 1, value)


@pytest.fixture
def rig() -> Rig:
    return Rig()


# --- lines ------------------------------------------------------------------------------------------------------------


def test_a_line_reaches_the_cpu_its_pin_names(rig: Rig) -> None:
    rig.route(5, 0x31, destination=2)
    rig.fabric.pulse(5)
    assert rig.cpus.interrupts == [2]
    assert rig.pending() == [2]
    assert rig.fabric.acknowledge(2) == 0x31
    assert rig.pending() == []
    assert rig.fabric.acknowledge(2) == -1


def test_a_logical_destination_can_be_several_cpus(rig: Rig) -> None:
    rig.route(20, LOGICAL | 0x31, destination=0b1010)
    rig.fabric.pulse(20)
    assert rig.pending() == [1, 3]


def test_lowest_priority_goes_to_the_least_busy_one(rig: Rig) -> None:
    rig.fabric.lapic_write(0, reg.TPR, 0x20)
    rig.fabric.lapic_write(1, reg.SVR, 0xFF)
    rig.route(5, LOGICAL | LOWEST | 0x31, destination=0b0111)
    rig.fabric.pulse(5)
    assert rig.pending() == [2]


def test_lowest_priority_without_a_candidate_is_dropped(rig: Rig) -> None:
    rig.route(5, LOGICAL | LOWEST | 0x31, destination=0xF0)
    rig.fabric.pulse(5)
    assert rig.pending() == []


def test_a_level_interrupt_comes_back_after_its_eoi(rig: Rig) -> None:
    rig.route(9, LEVEL | 0x31)
    rig.fabric.pulse(9)
    rig.fabric.pulse(9)
    assert rig.fabric.acknowledge(0) == 0x31
    assert rig.pending() == []
    rig.fabric.lapic_write(0, reg.EOI, 0)
    assert rig.fabric.acknowledge(0) == 0x31
    rig.fabric.lapic_write(0, reg.EOI, 0)
    assert rig.pending() == []


def test_lines_beyond_the_pins_are_nobodys(rig: Rig) -> None:
    rig.fabric.pulse(24)
    assert rig.pending() == []


# --- the PIC through LINT0 --------------------------------------------------------------------------------------------


def test_the_pic_interrupts_only_the_boot_cpu_and_only_through_lint0(rig: Rig) -> None:
    rig.open_pic()
    rig.fabric.pulse(4)
    assert rig.pending() == [0]
    rig.fabric.lapic_write(0, reg.LVT_LINT0, MASKED | 0x700)
    assert rig.pending() == []
    assert rig.fabric.acknowledge(0) == -1
    rig.cpus.interrupts.clear()
    rig.fabric.lapic_write(0, reg.LVT_LINT0, 0x700)
    assert rig.cpus.interrupts == [0]
    assert rig.fabric.acknowledge(0) == 0x34
    assert rig.pending() == []


def test_the_pic_comes_before_the_local_apic(rig: Rig) -> None:
    rig.open_pic()
    rig.route(5, 0xFE)
    rig.fabric.pulse(5)
    assert rig.fabric.acknowledge(0) == 0x35
    assert rig.fabric.acknowledge(0) == 0xFE


def test_linux_disabling_its_apic_shuts_out_the_pic(rig: Rig) -> None:
    """Linux does this first of all; it is what protects a kernel that never masks the PIC."""
    rig.open_pic()
    rig.fabric.lapic_write(0, reg.SVR, 0xFF)
    rig.fabric.lapic_write(0, reg.SVR, 0x1FF)
    rig.fabric.pulse(4)
    assert rig.pending() == []


# --- messages between CPUs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "destination", "receivers"),
    [
        (0xF0, 2, [2]),
        (0xF0, 0xFF, [0, 1, 2, 3]),
        (0xF0, 9, []),
        (LOGICAL | 0xF0, 0b0101, [0, 2]),
        (TO_SELF | 0xF0, 0, [1]),
        (TO_ALL | 0xF0, 0, [0, 1, 2, 3]),
        (TO_OTHERS | 0xF0, 0, [0, 2, 3]),
        (LOGICAL | LOWEST | 0xF0, 0b1100, [2]),
        (SMI | 0xF0, 2, []),
        (0x300 | 0xF0, 2, []),
        (0x700 | 0xF0, 2, []),
    ],
)
def test_interrupt_commands(rig: Rig, low: int, destination: int, receivers: list[int]) -> None:
    rig.command(1, low, destination)
    assert rig.pending() == receivers
    assert rig.cpus.interrupts == receivers
    assert rig.cpus.others == []


def test_nmi_init_and_start_up_go_to_the_scheduler(rig: Rig) -> None:
    rig.command(0, NMI | TO_OTHERS)
    rig.command(0, INIT | ASSERT | LEVEL, 3)
    rig.command(0, INIT | LEVEL, 3)  # de-assert
    rig.command(0, SIPI | 0x9A, 3)
    assert rig.cpus.others == [("nmi", 1), ("nmi", 2), ("nmi", 3), ("init", 3), ("start up at 0x9a000", 3)]
    assert rig.fabric.lapic_read(3, reg.SVR) == 0xFF
    assert rig.fabric.lapic_read(2, reg.SVR) == 0x1FF


# --- time -------------------------------------------------------------------------------------------------------------


def test_the_next_deadline_is_the_earliest_timer(rig: Rig) -> None:
    assert rig.fabric.next_deadline() is None
    for index, count in ((1, 5000), (2, 1000)):
        rig.fabric.lapic_write(index, reg.LVT_TIMER, 0xEC)
        rig.fabric.lapic_write(index, reg.DIVIDE, 0xB)
        rig.fabric.lapic_write(index, reg.INITIAL_COUNT, count)
    assert rig.cpus.timer_changes == 2
    assert rig.fabric.next_deadline() == 10**9 + 40_000
    rig.ns += 40_000
    rig.fabric.expire()
    assert rig.pending() == [2]
    assert rig.fabric.next_deadline() == 10**9 + 200_000


def test_the_pit_ticks_on_line_0(rig: Rig) -> None:
    rig.route(0, 0x30)
    for port, value in ((0x43, 0x34), (0x40, 0), (0x40, 0x10)):
        rig.fabric.port_write(port, 1, value)
    deadline = rig.fabric.next_deadline()
    assert deadline is not None
    rig.ns = deadline
    rig.fabric.expire()
    assert rig.fabric.acknowledge(0) == 0x30


# --- ports ------------------------------------------------------------------------------------------------------------


def test_the_ports_of_the_engine() -> None:
    assert sorted(Interrupts.PORTS) == [
        *(0x20, 0x21, 0x40, 0x41, 0x42, 0x43, 0x61, 0x70, 0x71, 0xA0, 0xA1, 0x4D0, 0x4D1)
    ]


@pytest.mark.parametrize("port", sorted(Interrupts.PORTS))
@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_port_takes_every_width(rig: Rig, port: int, size: int) -> None:
    rig.fabric.port_write(port, size, (1 << 8 * size) - 1)
    assert 0 <= rig.fabric.port_read(port, size) <= 0xFF


def test_each_port_reaches_its_chip(rig: Rig) -> None:
    rig.fabric.port_write(0x21, 1, 0xAB)
    rig.fabric.port_write(0x70, 1, 0x0D)
    rig.fabric.port_write(0x61, 1, 0x03)
    assert rig.fabric.port_read(0x21, 1) == 0xAB
    assert rig.fabric.port_read(0x71, 1) == 0x80
    assert rig.fabric.port_read(0x61, 1) & 0x03 == 0x03


# --- state ------------------------------------------------------------------------------------------------------------


def test_a_saved_machine_goes_on_elsewhere(rig: Rig) -> None:
    rig.route(0, 0x30)
    rig.route(7, MASKED | 0x37, destination=1)
    rig.fabric.pulse(7)
    for port, value in ((0x43, 0x34), (0x40, 0), (0x40, 0x10), (0x21, 0xFE), (0x70, 0x55), (0x71, 0x77)):
        rig.fabric.port_write(port, 1, value)
    rig.ns += 1_000_000
    state = rig.fabric.save()
    pages = [lapic.save() for lapic in rig.fabric.lapics]
    deadline = rig.fabric.next_deadline()
    assert deadline is not None

    copy = Rig()
    copy.ns = 5
    copy.fabric.load(state)
    for lapic, page in zip(copy.fabric.lapics, pages, strict=True):
        lapic.load(page)
    restored = copy.fabric.next_deadline()
    assert restored is not None
    assert abs((restored - 5) - (deadline - rig.ns)) < 1000
    assert copy.fabric.port_read(0x21, 1) == 0xFE
    assert copy.fabric.port_read(0x71, 1) == 0x77
    copy.route(7, 0x37, destination=1)
    assert copy.fabric.acknowledge(1) == 0x37


def test_a_pit_interrupt_due_at_the_save_comes_after_the_load(rig: Rig) -> None:
    """The local APICs are saved before: it must not slip into one of them."""
    rig.route(0, 0x30)
    for port, value in ((0x43, 0x30), (0x40, 0), (0x40, 0x10)):
        rig.fabric.port_write(port, 1, value)
    rig.ns += 10**9
    state = rig.fabric.save()
    assert rig.pending() == []
    copy = Rig()
    copy.fabric.load(state)
    copy.ns += 1000
    copy.fabric.expire()
    assert copy.fabric.acknowledge(0) == 0x30


def test_a_state_without_a_real_time_clock_leaves_it_alone(rig: Rig) -> None:
    state = rig.fabric.save()
    state.cmos = b""
    rig.fabric.load(state)
    rig.fabric.port_write(0x70, 1, 0x0D)
    assert rig.fabric.port_read(0x71, 1) == 0x80
