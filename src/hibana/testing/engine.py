"""An engine without instructions: what its guest does is a list of steps, each of which finds the bus as a guest would.

    engine = FakeEngine([lambda bus: bus.port_write(0x3F8, 1, 0x41), SHUTDOWN])

A step is a call, which stands for guest code, or a Stop, with which `run` comes back. After its last step a guest is
halted. `itertools.repeat` makes one that never is.
"""

import threading
import traceback
from collections.abc import Callable, Iterable
from functools import partial

from hibana.engine.interface import KICKED, PLAIN, Bus, CpuModel, Reason, SerialPort, Stop
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

Step = Callable[[Bus], None] | Stop


class FakeVcpu:
    """A vCPU that keeps the state it is given; its first one is that of a CPU after reset, roughly."""

    def __init__(self) -> None:
        cs, ds, es, fs, gs, ss, tr, ldt = (Segment() for _ in range(8))
        sregs = Sregs(cs, ds, es, fs, gs, ss, tr, ldt, gdt=DescriptorTable(), idt=DescriptorTable())
        self.state = VcpuState(Regs(rip=0xFFF0), sregs, Fpu(), DebugRegs(), VcpuEvents(), msrs={}, lapic=bytes(1024))

    def save(self) -> VcpuState:
        """Give the state."""
        return self.state

    def load(self, state: VcpuState) -> None:
        """Take another."""
        self.state = state


class FakeRunner:
    """Takes the steps of a guest; a kick comes between two of them."""

    def __init__(self, guest: Iterable[Step], bus: Bus) -> None:
        self.runs = 0
        """How often `run` has been entered."""
        self._steps = iter(guest)
        self._bus = bus
        self._kicked = threading.Event()

    def run(self) -> Stop:
        """Go on with the guest until a step or a kick stops it; an exception in a step is a broken device's."""
        self.runs += 1
        while not self._kicked.is_set():
            step = next(self._steps, None)
            if step is None:
                self._kicked.wait()
            elif isinstance(step, Stop):
                return step
            else:
                try:
                    step(self._bus)
                except Exception:
                    return Stop(Reason.FAILED, traceback.format_exc())
        self._kicked.clear()
        return KICKED

    def kick(self) -> None:
        """Make `run` return after the present step."""
        self._kicked.set()


class FakeVm:
    """A machine of fake parts that notes what the VMM does to it."""

    bus_lock = None

    def __init__(self, vcpu_count: int, guests: Iterable[Iterable[Step]], bus: Bus) -> None:
        self.vcpus = [FakeVcpu() for _ in range(vcpu_count)]
        self.runners = [FakeRunner(guest, bus) for guest in guests]
        self.pulses: list[int] = []
        """The GSI of every pulse."""
        self.pauses = 0
        """How often the guest was told that it had stood still."""
        self.written: list[tuple[int, int]] = []
        """(addr, size) of every write to guest memory from the host side."""
        self.coalesced: list[tuple[int, int]] = []
        """The data and status ports of the chips whose bytes may come together."""
        self.closed = False
        self._state = VmState(IoapicState(), PicState(), PicState(), PitState())

    def note_write(self, addr: int, size: int) -> None:
        """Note a write; what `GuestMemory.on_write` is set to."""
        self.written.append((addr, size))

    def line(self, gsi: int) -> Callable[[], None]:
        """Give what notes a pulse."""
        return partial(self.pulses.append, gsi)

    def doorbell(self, addr: int, value: int) -> None:
        """Have none: notifications come to the bus."""

    def coalesce(self, data_port: int, status_port: int, chip: SerialPort) -> None:
        """Note it, and bring each byte to the bus at once all the same."""
        self.coalesced.append((data_port, status_port))

    def note_pause(self) -> None:
        """Count a pause."""
        self.pauses += 1

    def save(self) -> VmState:
        """Give the state of the chips."""
        return self._state

    def load(self, state: VmState) -> None:
        """Take another."""
        self._state = state

    def close(self) -> None:
        """Note that everything would have been freed."""
        self.closed = True


class FakeEngine:
    """Makes one runner for each of the guests it is given, and at least one."""

    name = "fake"
    takes_cpu_templates = False

    def __init__(self, *guests: Iterable[Step]) -> None:
        self._guests = guests or ((),)
        self.vms: list[FakeVm] = []
        """Every VM there ever was."""

    def missing(self) -> str | None:
        """Say that nothing is missing."""
        return None

    def create_vm(self, memory: GuestMemory, vcpu_count: int, bus: Bus, model: CpuModel = PLAIN) -> FakeVm:
        """Make a VM whose guests are at their first step."""
        vm = FakeVm(vcpu_count, self._guests, bus)
        memory.on_write = vm.note_write
        self.vms.append(vm)
        return vm
