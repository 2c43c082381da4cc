"""An engine without CPUs: guest code is the test, which sees the bus, the RAM and the interrupts."""

import os
import threading
from collections.abc import Callable
from functools import partial
from threading import Lock

from hibana.engine.interface import KICKED, PLAIN, Bus, CpuModel, SerialPort, Stop
from hibana.engine.state import (
    DebugRegs,
    DescriptorTable,
    Fpu,
    IoapicState,
    PicState,
    PitState,
    Regs,
    Segment,
    Sregs,
    VcpuEvents,
    VcpuState,
    VmState,
)
from hibana.memory.guest import GuestMemory


class FakeVcpu:
    """Registers, and nothing that would change them."""

    def __init__(self) -> None:
        cs, ds, es, fs, gs, ss, tr, ldt = (Segment() for _ in range(8))
        sregs = Sregs(cs, ds, es, fs, gs, ss, tr, ldt, DescriptorTable(), DescriptorTable())
        self.state = VcpuState(Regs(), sregs, Fpu(), DebugRegs(), VcpuEvents(), {}, bytes(1024))

    def save(self) -> VcpuState:
        return self.state

    def load(self, state: VcpuState) -> None:
        self.state = state


class FakeRunner:
    """A guest that is always busy with nothing."""

    def __init__(self) -> None:
        self._kicked = threading.Event()

    def run(self) -> Stop:
        self._kicked.wait()
        self._kicked.clear()
        return KICKED

    def kick(self) -> None:
        self._kicked.set()


class FakeVm:
    """One machine of the fake engine (fulfils `engine.interface.Vm`)."""

    bus_lock: "Lock | None" = None

    def __init__(self, memory: GuestMemory, vcpu_count: int, bus: Bus) -> None:
        self.memory = memory
        self.bus = bus
        self.vcpus = [FakeVcpu() for _ in range(vcpu_count)]
        self.runners = [FakeRunner()]
        self.pulses: list[int] = []
        self.closed = False

    def line(self, gsi: int) -> Callable[[], None]:
        return partial(self.pulses.append, gsi)

    def coalesce(self, data_port: int, status_port: int, chip: SerialPort) -> None:
        pass

    def doorbell(self, addr: int, value: int) -> int | None:
        return None

    def note_pause(self) -> None:
        pass

    def save(self) -> VmState:
        return VmState(IoapicState(), PicState(), PicState(), PitState())

    def load(self, state: VmState) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


class FakeVmWithDoorbells(FakeVm):
    """One that can hang doorbells, as kvm does: the test rings them."""

    def __init__(self, memory: GuestMemory, vcpu_count: int, bus: Bus) -> None:
        super().__init__(memory, vcpu_count, bus)
        self.bus_lock = Lock()
        self.doorbells: dict[tuple[int, int], int] = {}

    def doorbell(self, addr: int, value: int) -> int:
        fd = self.doorbells[addr, value] = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return fd

    def ring(self, addr: int, value: int) -> None:
        os.eventfd_write(self.doorbells[addr, value], 1)

    def close(self) -> None:
        super().close()
        for fd in self.doorbells.values():
            os.close(fd)


class FakeEngine:
    """Remembers the machine it made last (fulfils `engine.interface.Engine`)."""

    name = "fake"
    takes_cpu_templates = False

    def __init__(self) -> None:
        self.vm: FakeVm

    def missing(self) -> str | None:
        return None

    def create_vm(self, memory: GuestMemory, vcpu_count: int, bus: Bus, model: CpuModel = PLAIN) -> FakeVm:
        self.vm = FakeVm(memory, vcpu_count, bus)
        return self.vm


class FakeEngineForLoop(FakeEngine):
    """An engine whose devices live on the loop's thread."""

    vm: FakeVmWithDoorbells

    def create_vm(self, memory: GuestMemory, vcpu_count: int, bus: Bus, model: CpuModel = PLAIN) -> FakeVmWithDoorbells:
        self.vm = FakeVmWithDoorbells(memory, vcpu_count, bus)
        return self.vm
