"""Where a guest instruction leaves the library: port and memory-mapped I/O, CPUID, MSRs, CR8, and taking an
interrupt.

These functions are the engine's hot path: closures over local names, no objects, no decisions that could be made once.
They are called from inside the library by ctypes, which would print an exception and go on as if nothing had happened;
so each reports to the runner whatever it could not handle, even a KeyboardInterrupt, and the guest sees a zero.
"""

from collections.abc import Callable
from typing import Final

from hibana.engine.interface import Bus
from hibana.engine.soft import clock, cpuid
from hibana.engine.soft.lapic import TPR
from hibana.engine.soft.library import (
    ACCESS_MSR,
    CPUID,
    INSN_CPUID,
    INSN_IN,
    INSN_OUT,
    MMIO_READ,
    MMIO_WRITE,
    PICK,
    PORT_IN,
    PORT_OUT,
    READ_TPR,
    WRITE_TPR,
)
from hibana.engine.soft.msr import DONE, Msrs
from hibana.engine.soft.processor import PHYSICAL_END, Processor
from hibana.engine.soft.runner import SoftRunner
from hibana.memory.guest import GuestMemory
from hibana.memory.layout import IOAPIC, LAPIC
from hibana.units import PAGE

_U32: Final = 0xFFFFFFFF


def connect(processor: Processor, runner: SoftRunner, memory: GuestMemory, bus: Bus, vcpu_count: int) -> None:
    """Bring every access that is not RAM to its chip or to the bus."""
    _connect_ports(processor, runner, bus)
    _connect_mmio(processor, runner, memory, bus)
    _connect_cpuid(processor, runner, vcpu_count)
    _connect_thunks(processor, runner)
    _connect_msrs(processor, runner)


def _connect_ports(processor: Processor, runner: SoftRunner, bus: Bus) -> None:
    interrupts, fail = runner.interrupts, runner.fail
    own, own_read, own_write = interrupts.PORTS, interrupts.port_read, interrupts.port_write
    bus_read, bus_write = bus.port_read, bus.port_write
    settle, printed = runner.settle, runner.printed

    def port_in(_uc: int, port: int, size: int, _user: int) -> int:
        settle()
        try:
            return own_read(port, size) if port in own else bus_read(port, size)
        except BaseException:
            fail()
            return 0

    def port_out(_uc: int, port: int, size: int, value: int, _user: int) -> None:
        settle()
        try:
            if port in own:
                own_write(port, size, value)
            else:
                bus_write(port, size, value)
                printed(port)
        except BaseException:
            fail()

    processor.hook_instruction(INSN_IN, PORT_IN(port_in))
    processor.hook_instruction(INSN_OUT, PORT_OUT(port_out))


def _connect_mmio(processor: Processor, runner: SoftRunner, memory: GuestMemory, bus: Bus) -> None:
    """Map the two APIC pages, and everything else that is not RAM to the bus."""
    interrupts, fail = runner.interrupts, runner.fail
    own_lapic_read, own_lapic_write = interrupts.lapic_read, interrupts.lapic_write
    own_ioapic_read, own_ioapic_write = interrupts.ioapic_read, interrupts.ioapic_write
    bus_read, bus_write = bus.mmio_read, bus.mmio_write

    def mmio_read(_uc: int, offset: int, size: int, start: int) -> int:
        try:
            return bus_read(start + offset, size)
        except BaseException:
            fail()
            return 0

    def mmio_write(_uc: int, offset: int, size: int, value: int, start: int) -> None:
        try:
            bus_write(start + offset, size, value)
        except BaseException:
            fail()

    def lapic_read(_uc: int, offset: int, _size: int, _start: int) -> int:
        try:
            return own_lapic_read(runner.current.index, offset)
        except BaseException:
            fail()
            return 0

    def lapic_write(_uc: int, offset: int, _size: int, value: int, _start: int) -> None:
        try:
            own_lapic_write(runner.current.index, offset, value)
        except BaseException:
            fail()

    def ioapic_read(_uc: int, offset: int, _size: int, _start: int) -> int:
        try:
            return own_ioapic_read(offset)
        except BaseException:
            fail()
            return 0

    def ioapic_write(_uc: int, offset: int, _size: int, value: int, _start: int) -> None:
        try:
            own_ioapic_write(offset, value)
        except BaseException:
            fail()

    processor.map_mmio(IOAPIC, IOAPIC + PAGE, MMIO_READ(ioapic_read), MMIO_WRITE(ioapic_write))
    processor.map_mmio(LAPIC, LAPIC + PAGE, MMIO_READ(lapic_read), MMIO_WRITE(lapic_write))
    read, write = MMIO_READ(mmio_read), MMIO_WRITE(mmio_write)
    for start, end in _holes(memory):
        processor.map_mmio(start, end, read, write)


def _holes(memory: GuestMemory) -> list[tuple[int, int]]:
    """List what is neither RAM nor an APIC page."""
    taken = [(region.start, region.end) for region in memory.regions]
    taken += [(IOAPIC, IOAPIC + PAGE), (LAPIC, LAPIC + PAGE), (PHYSICAL_END, PHYSICAL_END)]
    holes: list[tuple[int, int]] = []
    at = 0
    for start, end in sorted(taken):
        if at < start:
            holes.append((at, start))
        at = end
    return holes


def _connect_cpuid(processor: Processor, runner: SoftRunner, vcpu_count: int) -> None:
    regs, answer, tsc_khz, fail = processor.regs, cpuid.answer, clock.tsc_khz, runner.fail

    def execute(_uc: int, _user: int) -> int:
        try:
            leaf, subleaf = regs[0] & _U32, regs[1] & _U32
            regs[0], regs[3], regs[1], regs[2] = answer(leaf, subleaf, runner.current.index, vcpu_count, tsc_khz())
        except BaseException:
            fail()
        return 1

    processor.hook_instruction(INSN_CPUID, CPUID(execute))


def _connect_thunks(processor: Processor, runner: SoftRunner) -> None:
    """Answer what the thunks ask: the next vector, and CR8, which is the upper half of the local APIC's TPR."""
    take, interrupts, fail = runner.pick, runner.interrupts, runner.fail

    def pick() -> int:
        try:
            return take()
        except BaseException:
            fail()
            return -1

    def read_tpr() -> int:
        try:
            return interrupts.lapic_read(runner.current.index, TPR) >> 4
        except BaseException:
            fail()
            return 0

    def write_tpr(value: int) -> None:
        try:
            interrupts.lapic_write(runner.current.index, TPR, value << 4)
        except BaseException:
            fail()

    processor.set_callback("pick", PICK(pick))
    processor.set_callback("read_tpr", READ_TPR(read_tpr))
    processor.set_callback("write_tpr", WRITE_TPR(write_tpr))


def _connect_msrs(processor: Processor, runner: SoftRunner) -> None:
    msrs, fail = Msrs(processor, runner), runner.fail

    def guarded(access: Callable[[], int]) -> Callable[[], int]:
        def execute() -> int:
            try:
                return access()
            except BaseException:
                fail()
                return DONE

        return execute

    processor.set_callback("read_msr", ACCESS_MSR(guarded(msrs.read)))
    processor.set_callback("write_msr", ACCESS_MSR(guarded(msrs.write)))
