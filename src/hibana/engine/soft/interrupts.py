"""The interrupt fabric: everything between the devices' lines and the vCPUs.

    device line → I/O APIC → local APIC of one or more vCPUs → vector
                ↘ PIC → LINT0 of the boot CPU ↗
    PIT channel 0 → line 0        local APIC timer, IPIs → local APIC

Start here; each chip has a file of its own and knows only the callables it was given. All of it runs on the runner's
thread, so there are no locks. Two questions are asked all the time, `pending` and `acknowledge`; the rest is answered
when the guest touches a register or a device pulses its line. Time is what `now` says, in nanoseconds.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

from hibana.engine.soft import pic, pit, rtc
from hibana.engine.soft.ioapic import PINS, Ioapic
from hibana.engine.soft.lapic import Lapic
from hibana.engine.soft.lapic_timer import NEVER
from hibana.engine.state import VmState
from hibana.memory.layout import GSI_PIT

_PIC_INPUTS: Final = 16

# Delivery modes of interrupt messages; 0 is fixed.
_LOWEST_PRIORITY: Final = 1
_NMI: Final = 4
_INIT: Final = 5
_START_UP: Final = 6

# ICR, low half.
_LOGICAL: Final = 1 << 11
_ASSERT: Final = 1 << 14
_LEVEL_TRIGGER: Final = 1 << 15
_TO_SELF: Final = 1
_TO_ALL: Final = 2
_TO_OTHERS: Final = 3


class Cpus(Protocol):
    """What the fabric asks of the scheduler."""

    def interrupt(self, index: int) -> None:
        """Wake vCPU `index` or make it look: something may have become pending for it."""

    def nmi(self, index: int) -> None:
        """Deliver a non-maskable interrupt."""

    def init(self, index: int) -> None:
        """Reset the vCPU and let it wait for a start-up message; its local APIC is reset already."""

    def start_up(self, index: int, vector: int) -> None:
        """Start a waiting vCPU in real mode at `vector` << 12."""

    def timer_changed(self) -> None:
        """Ask `next_deadline` again: it may have moved."""


class Interrupts:
    """All interrupt chips and timers of one virtual machine."""

    PORTS: Final = frozenset((*pic.PORTS, *pit.PORTS, *rtc.PORTS))
    """The ports that belong to the engine, before any device of the bus."""

    def __init__(
        self, vcpu_count: int, cpus: Cpus, now: Callable[[], int], utc: Callable[[], int] = time.time_ns
    ) -> None:
        self._cpus = cpus
        self._now = now
        self.wake = cpus.interrupt
        self.timer_changed = cpus.timer_changed
        self.lapics = [Lapic(index, self, now) for index in range(vcpu_count)]
        self._ioapic = Ioapic(self._deliver)
        self._pic = pic.Pic(self._pic_raised)
        self._pit = pit.Pit(self._pit_tick, self.timer_changed, now)
        self._rtc = rtc.Rtc(utc)
        self._chips: dict[int, pic.Pic | pit.Pit | rtc.Rtc] = {
            **dict.fromkeys(pic.PORTS, self._pic),
            **dict.fromkeys(pit.PORTS, self._pit),
            **dict.fromkeys(rtc.PORTS, self._rtc),
        }

    # --- the CPUs' side -----------------------------------------------------------------------------------------------

    def pending(self, index: int) -> bool:
        """Tell whether an interrupt waits for a vCPU."""
        return self.lapics[index].pending() >= 0 or (index == 0 and self._extint())

    def acknowledge(self, index: int) -> int:
        """Give the vector a vCPU shall take now, the PIC's before the local APIC's; -1 when there is none."""
        if index == 0 and self._extint():
            return self._pic.acknowledge()
        return self.lapics[index].acknowledge()

    def lapic_read(self, index: int, offset: int) -> int:
        """Read the local APIC page as vCPU `index` sees it."""
        return self.lapics[index].read(offset)

    def lapic_write(self, index: int, offset: int, value: int) -> None:
        """Write the local APIC page as vCPU `index`."""
        self.lapics[index].write(offset, value)

    def ioapic_read(self, offset: int) -> int:
        """Read the I/O APIC page."""
        return self._ioapic.read(offset)

    def ioapic_write(self, offset: int, value: int) -> None:
        """Write the I/O APIC page."""
        self._ioapic.write(offset, value)

    def port_read(self, port: int, size: int) -> int:
        """Read one of PORTS; all are a byte wide, a wider access reads zeros above it."""
        return self._chips[port].read(port)

    def port_write(self, port: int, size: int, value: int) -> None:
        """Write one of PORTS; what a wider access has above the byte is dropped."""
        self._chips[port].write(port, value & 0xFF)

    # --- the devices' side --------------------------------------------------------------------------------------------

    def pulse(self, gsi: int) -> None:
        """Raise and lower an interrupt line: line n is pin n of the I/O APIC, and input n of the PIC below 16."""
        if gsi < PINS:
            self._ioapic.pulse(gsi)
        if gsi < _PIC_INPUTS:
            self._pic.pulse(gsi)

    # --- time ---------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> int | None:
        """Give the moment of the next timer interrupt."""
        due = self._pit.due
        for lapic in self.lapics:
            due = min(due, lapic.timer.due)
        return due if due < NEVER else None

    def expire(self) -> None:
        """Deliver the interrupts of all timers that are due."""
        now = self._now()
        self._pit.expire(now)
        for lapic in self.lapics:
            lapic.expire(now)

    # --- state --------------------------------------------------------------------------------------------------------

    def save(self) -> VmState:
        """Export all chips but the local APICs, which belong to their vCPUs."""
        # A PIT interrupt that is due would reach local APICs which are saved already: stop its clock just before.
        now = min(self._now(), self._pit.due - 1)
        master, slave = self._pic.save()
        return VmState(
            ioapic=self._ioapic.save(),
            pic_master=master,
            pic_slave=slave,
            pit=self._pit.save(now),
            clock_ns=now,
            cmos=self._rtc.save(),
        )

    def load(self, state: VmState) -> None:
        """Replace them; timers go on where they were, however long ago that is."""
        self._ioapic.load(state.ioapic)
        self._pic.load(state.pic_master, state.pic_slave)
        self._pit.load(state.pit, state.clock_ns)
        if state.cmos:
            self._rtc.load(state.cmos)

    # --- between the chips --------------------------------------------------------------------------------------------

    def end_of_interrupt(self, vector: int) -> None:
        """Carry a local APIC's EOI to the I/O APIC."""
        self._ioapic.end_of_interrupt(vector)

    def send(self, sender: int, command: int, destination: int) -> None:
        """Carry out a local APIC's interrupt command (ICR)."""
        mode, vector, shorthand = command >> 8 & 7, command & 0xFF, command >> 18 & 3
        if mode == _INIT and command & (_ASSERT | _LEVEL_TRIGGER) == _LEVEL_TRIGGER:
            return  # INIT level de-assert: for CPUs that came before this one
        if shorthand == _TO_SELF:
            targets = [self.lapics[sender]]
        elif shorthand == _TO_ALL:
            targets = self.lapics
        elif shorthand == _TO_OTHERS:
            targets = [lapic for lapic in self.lapics if lapic.index != sender]
        else:
            targets = self._addressed(destination, command & _LOGICAL != 0)
        self._dispatch(mode, vector, targets, level=False)

    def _deliver(self, mode: int, vector: int, destination: int, logical: bool, level: bool) -> None:
        self._dispatch(mode, vector, self._addressed(destination, logical), level)

    def _addressed(self, destination: int, logical: bool) -> list[Lapic]:
        return [lapic for lapic in self.lapics if lapic.matches(destination, logical)]

    def _dispatch(self, mode: int, vector: int, targets: list[Lapic], level: bool) -> None:
        """Give an interrupt message to local APICs; SMI and ExtINT messages have no receiver in this machine."""
        if mode == _LOWEST_PRIORITY:
            targets = sorted((lapic for lapic in targets if lapic.enabled), key=Lapic.priority)[:1]
        for lapic in targets:
            if mode <= _LOWEST_PRIORITY:
                lapic.accept(vector, level)
            elif mode == _NMI:
                self._cpus.nmi(lapic.index)
            elif mode == _INIT:
                lapic.reset()
                self._cpus.init(lapic.index)
            elif mode == _START_UP:
                self._cpus.start_up(lapic.index, vector)

    def _extint(self) -> bool:
        return self._pic.output and self.lapics[0].takes_extint

    def _pic_raised(self) -> None:
        if self.lapics[0].takes_extint:
            self._cpus.interrupt(0)

    def _pit_tick(self) -> None:
        self.pulse(GSI_PIT)
