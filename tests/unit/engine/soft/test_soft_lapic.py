"""The local APIC: which interrupt comes next, its registers, its saved page."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.engine.soft import lapic as reg
from hibana.engine.soft.lapic import Lapic

ENABLED = 0x1FF
MASKED = 0x10000
PERIODIC = 0x20000


@dataclass
class Machine:
    """What surrounds the APIC under test: a clock, and a record of all it asked for."""

    ns: int = 1000
    wakes: list[int] = field(default_factory=list)
    sent: list[tuple[int, int, int]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def now(self) -> int:
        return self.ns

    def wake(self, index: int) -> None:
        self.wakes.append(index)

    def send(self, sender: int, command: int, destination: int) -> None:
        self.sent.append((sender, command, destination))

    def end_of_interrupt(self, vector: int) -> None:
        self.ends.append(vector)

    def timer_changed(self) -> None:
        pass


@pytest.fixture
def machine() -> Machine:
    return Machine()


def enabled_lapic(machine: Machine, index: int = 0) -> Lapic:
    lapic = Lapic(index, machine, machine.now)
    lapic.write(reg.SVR, ENABLED)
    return lapic


def vectors(lapic: Lapic, register: int) -> set[int]:
    """Decode ISR, TMR or IRR the way a guest would."""
    words = [lapic.read(register + 16 * i) for i in range(8)]
    return {32 * i + bit for i, word in enumerate(words) for bit in range(32) if word >> bit & 1}


# --- reset ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (reg.ID, 3 << 24),
        (reg.VERSION, 0x50014),
        (reg.TPR, 0),
        (reg.LDR, 0),
        (reg.DFR, 0xFFFFFFFF),
        (reg.SVR, 0xFF),
        (reg.LVT_TIMER, MASKED),
        (reg.LVT_THERMAL, MASKED),
        (reg.LVT_PERFORMANCE, MASKED),
        (reg.LVT_LINT0, MASKED),
        (reg.LVT_LINT1, MASKED),
        (reg.LVT_ERROR, MASKED),
        (reg.INITIAL_COUNT, 0),
        (reg.CURRENT_COUNT, 0),
        (reg.DIVIDE, 0),
        (0x3F0, 0),
        (0x000, 0),
    ],
)
def test_registers_start_as_the_manual_says(machine: Machine, register: int, value: int) -> None:
    assert Lapic(3, machine, machine.now).read(register) == value


def test_the_boot_cpu_starts_with_the_pic_on_lint0(machine: Machine) -> None:
    boot, other = Lapic(0, machine, machine.now), Lapic(1, machine, machine.now)
    assert boot.read(reg.LVT_LINT0) == 0x700
    assert boot.takes_extint
    assert not other.takes_extint


def test_init_resets_everything_but_the_id(machine: Machine) -> None:
    lapic = enabled_lapic(machine, 2)
    lapic.write(reg.ID, 9 << 24)
    lapic.write(reg.LVT_TIMER, 0x40)
    lapic.write(reg.INITIAL_COUNT, 100)
    lapic.accept(0x50)
    lapic.reset()
    fresh = Lapic(2, machine, machine.now)
    fresh.write(reg.ID, 9 << 24)
    assert lapic.save() == fresh.save()
    assert lapic.timer.due == fresh.timer.due


# --- priorities -------------------------------------------------------------------------------------------------------


@dataclass
class Manual:
    """The SDM's rules written down naively."""

    enabled: bool = True
    tpr: int = 0
    requested: set[int] = field(default_factory=set)
    serving: set[int] = field(default_factory=set)

    def ppr(self) -> int:
        highest = max(self.serving, default=0)
        return self.tpr if self.tpr & 0xF0 >= highest & 0xF0 else highest & 0xF0

    def pending(self) -> int:
        if not self.enabled or not self.requested:
            return -1
        vector = max(self.requested)
        return vector if vector & 0xF0 > self.ppr() & 0xF0 else -1


operations = st.one_of(
    st.tuples(st.just("accept"), st.integers(16, 255)),
    st.tuples(st.just("acknowledge"), st.just(0)),
    st.tuples(st.just("eoi"), st.just(0)),
    st.tuples(st.just("tpr"), st.integers(0, 255)),
    st.tuples(st.just("enable"), st.integers(0, 1)),
)


def run(lapic: Lapic, manual: Manual, operation: str, operand: int) -> None:
    if operation == "accept":
        lapic.accept(operand)
        if manual.enabled:
            manual.requested.add(operand)
    elif operation == "acknowledge":
        expected = manual.pending()
        assert lapic.acknowledge() == expected
        if expected >= 0:
            manual.requested.remove(expected)
            manual.serving.add(expected)
    elif operation == "eoi":
        lapic.write(reg.EOI, 0)
        manual.serving.discard(max(manual.serving, default=0))
    elif operation == "tpr":
        lapic.write(reg.TPR, operand)
        manual.tpr = operand
    else:
        lapic.write(reg.SVR, operand << 8 | 0xFF)
        manual.enabled = bool(operand)


@given(st.lists(operations, max_size=40))
def test_interrupts_come_in_the_order_of_the_manual(story: list[tuple[str, int]]) -> None:
    machine = Machine()
    lapic, manual = enabled_lapic(machine), Manual()
    for operation, operand in story:
        machine.wakes.clear()
        before = manual.pending()
        run(lapic, manual, operation, operand)
        assert lapic.pending() == manual.pending()
        assert lapic.read(reg.PPR) == manual.ppr()
        assert vectors(lapic, reg.IRR) == manual.requested
        assert vectors(lapic, reg.ISR) == manual.serving
        if manual.pending() > before:
            assert machine.wakes, "the CPU must hear of an interrupt that became deliverable"


def test_an_interrupt_of_the_same_class_waits_for_the_end_of_the_first(machine: Machine) -> None:
    lapic = enabled_lapic(machine)
    lapic.accept(0x51)
    assert lapic.acknowledge() == 0x51
    lapic.accept(0x5F)
    assert lapic.pending() == -1
    lapic.accept(0x60)
    assert lapic.acknowledge() == 0x60
    lapic.write(reg.EOI, 0)
    assert lapic.pending() == -1
    lapic.write(reg.EOI, 0)
    assert lapic.pending() == 0x5F


def test_a_disabled_apic_drops_new_interrupts_and_masks_its_own(machine: Machine) -> None:
    lapic = enabled_lapic(machine)
    lapic.write(reg.LVT_TIMER, 0x40)
    lapic.write(reg.SVR, 0xFF)
    lapic.accept(0x50)
    assert vectors(lapic, reg.IRR) == set()
    assert lapic.read(reg.LVT_TIMER) == MASKED | 0x40
    lapic.write(reg.LVT_TIMER, 0x41)
    assert lapic.read(reg.LVT_TIMER) == MASKED | 0x41


def test_the_end_of_a_level_interrupt_is_told_to_the_ioapic(machine: Machine) -> None:
    lapic = enabled_lapic(machine)
    lapic.accept(0x50, level=True)
    lapic.accept(0x60)
    assert vectors(lapic, reg.TMR) == {0x50}
    lapic.acknowledge()
    lapic.write(reg.EOI, 0)
    assert machine.ends == []
    lapic.acknowledge()
    lapic.write(reg.EOI, 0)
    assert machine.ends == [0x50]


def test_an_edge_interrupt_clears_the_trigger_mode_of_its_vector(machine: Machine) -> None:
    lapic = enabled_lapic(machine)
    lapic.accept(0x50, level=True)
    lapic.accept(0x50)
    assert vectors(lapic, reg.TMR) == set()


def test_an_end_of_nothing_is_harmless(machine: Machine) -> None:
    lapic = enabled_lapic(machine)
    lapic.write(reg.EOI, 0)
    assert lapic.pending() == -1
    assert machine.ends == []


# --- destinations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ldr", "dfr", "destination", "matches"),
    [
        (0x02, 0xFFFFFFFF, 0x02, True),
        (0x02, 0xFFFFFFFF, 0x06, True),
        (0x02, 0xFFFFFFFF, 0x05, False),
        (0x00, 0xFFFFFFFF, 0xFF, True),
        (0x32, 0x0FFFFFFF, 0x32, True),
        (0x32, 0x0FFFFFFF, 0x36, True),
        (0x32, 0x0FFFFFFF, 0x22, False),
        (0x32, 0x0FFFFFFF, 0x34, False),
        (0x32, 0x0FFFFFFF, 0xFF, True),
        (0x32, 0x5FFFFFFF, 0x32, False),
    ],
)
def test_logical_destinations(machine: Machine, ldr: int, dfr: int, destination: int, matches: bool) -> None:
    lapic = enabled_lapic(machine)
    lapic.write(reg.LDR, ldr << 24)
    lapic.write(reg.DFR, dfr)
    assert lapic.matches(destination, logical=True) is matches


def test_physical_destinations_follow_the_id_register(machine: Machine) -> None:
    lapic = enabled_lapic(machine, 1)
    assert lapic.matches(1, logical=False)
    lapic.write(reg.ID, 5 << 24)
    assert not lapic.matches(1, logical=False)
    assert lapic.matches(5, logical=False)
    assert lapic.matches(0xFF, logical=False)


# --- registers --------------------------------------------------------------------------------------------------------


def test_writing_the_low_half_of_icr_sends(machine: Machine) -> None:
    lapic = enabled_lapic(machine, 1)
    lapic.write(reg.ICR_HIGH, 0x07FFFFFF)
    lapic.write(reg.ICR_LOW, 0xFFFC18FD)  # delivery status and reserved bits set
    assert machine.sent == [(1, 0xC08FD, 0x07)]
    assert lapic.read(reg.ICR_LOW) == 0xC08FD
    assert lapic.read(reg.ICR_HIGH) == 0x07000000


def test_an_illegal_vector_is_reported_not_delivered(machine: Machine) -> None:
    lapic = enabled_lapic(machine)
    lapic.write(reg.LVT_ERROR, 0xFE)
    lapic.write(reg.ICR_LOW, 0x0F)
    lapic.accept(0x03)
    assert machine.sent == []
    assert vectors(lapic, reg.IRR) == {0xFE}
    assert lapic.read(reg.ESR) == 0
    lapic.write(reg.ESR, 0)
    assert lapic.read(reg.ESR) == 0x60
    lapic.write(reg.ESR, 0)
    assert lapic.read(reg.ESR) == 0


def test_an_illegal_error_vector_does_not_recurse(machine: Machine) -> None:
    lapic = enabled_lapic(machine)
    lapic.write(reg.LVT_ERROR, 0x02)
    lapic.accept(0x01)
    assert vectors(lapic, reg.IRR) == set()


@given(st.integers(0, 0x1000), st.integers(0, 2**64 - 1))
def test_no_access_is_fatal(offset: int, value: int) -> None:
    machine = Machine()
    lapic = enabled_lapic(machine)
    lapic.write(offset, value)
    assert 0 <= lapic.read(offset) <= 0xFFFFFFFF


def test_narrow_and_misplaced_accesses(machine: Machine) -> None:
    lapic = enabled_lapic(machine)
    assert lapic.read(reg.VERSION + 2) & 0xFF == 0x05
    assert lapic.read(reg.VERSION + 4) == 0
    lapic.write(reg.TPR + 4, 0x70)
    lapic.write(reg.TPR + 1, 0x70)
    assert lapic.read(reg.TPR) == 0


def test_unmasking_lint0_makes_the_cpu_look_for_the_pic(machine: Machine) -> None:
    lapic = enabled_lapic(machine)
    lapic.write(reg.LVT_LINT0, MASKED | 0x700)
    assert not lapic.takes_extint
    machine.wakes.clear()
    lapic.write(reg.LVT_LINT0, 0x700)
    assert machine.wakes == [0]
    assert lapic.takes_extint
    lapic.write(reg.LVT_LINT0, 0x040)  # fixed, not ExtINT
    assert not lapic.takes_extint


def test_the_timer_interrupts_at_its_vector(machine: Machine) -> None:
    lapic = enabled_lapic(machine)
    lapic.write(reg.LVT_TIMER, 0xEC)
    lapic.write(reg.DIVIDE, 0xB)
    lapic.write(reg.INITIAL_COUNT, 25)
    machine.ns += 999
    lapic.expire(machine.ns)
    assert lapic.pending() == -1
    machine.ns += 1
    lapic.expire(machine.ns)
    assert lapic.acknowledge() == 0xEC


def test_the_deadline_mode_bit_does_not_exist(machine: Machine) -> None:
    lapic = enabled_lapic(machine)
    lapic.write(reg.LVT_TIMER, 0x400EC)
    assert lapic.read(reg.LVT_TIMER) == 0xEC


# --- state ------------------------------------------------------------------------------------------------------------


@given(
    st.lists(operations, max_size=20),
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from([0, 1, 2, 3, 8, 9, 10, 11]),
    st.sampled_from([0xEC, MASKED | 0xEC, PERIODIC | 0xEC]),
)
def test_a_saved_page_restores_the_same_apic(story: list[tuple[str, int]], count: int, divide: int, entry: int) -> None:
    machine = Machine()
    lapic, manual = enabled_lapic(machine), Manual()
    for operation, operand in story:
        run(lapic, manual, operation, operand)
    lapic.write(reg.LVT_TIMER, entry)
    lapic.write(reg.DIVIDE, divide)
    lapic.write(reg.INITIAL_COUNT, count)
    machine.ns += 123_456_789
    page = lapic.save()

    elsewhere = Machine(ns=7)
    restored = Lapic(0, elsewhere, elsewhere.now)
    restored.load(page)
    assert restored.save() == page
    assert restored.pending() == lapic.pending()


def test_a_timer_that_ran_out_just_before_the_save_is_not_lost(machine: Machine) -> None:
    lapic = enabled_lapic(machine)
    lapic.write(reg.LVT_TIMER, 0xEC)
    lapic.write(reg.INITIAL_COUNT, 10)
    machine.ns += 1_000_000
    restored = Lapic(0, machine, machine.now)
    restored.load(lapic.save())
    assert restored.pending() == 0xEC


def test_a_timer_that_runs_out_during_the_save_is_not_lost(machine: Machine) -> None:
    """The clock moves between any two looks at it."""
    for count in range(1, 200):
        machine.ns = 0

        def look() -> int:
            machine.ns += 100
            return machine.ns

        lapic = Lapic(0, machine, look)
        lapic.write(reg.SVR, ENABLED)
        lapic.write(reg.LVT_TIMER, 0xEC)
        lapic.write(reg.INITIAL_COUNT, count)
        restored = Lapic(0, machine, look)
        restored.load(lapic.save())
        assert restored.pending() == 0xEC or restored.timer.due < 10**6, count


def test_loading_wakes_the_cpu_for_what_was_pending(machine: Machine) -> None:
    lapic = enabled_lapic(machine, 1)
    lapic.accept(0x80)
    page = lapic.save()
    machine.wakes.clear()
    Lapic(1, machine, machine.now).load(page)
    assert machine.wakes == [1]
