"""What the VMM asks of an engine, and what an engine asks of the VMM.

An engine executes guest instructions. Everything it cannot answer itself it brings to the `Bus` by a direct call. It
owns what KVM owns: CPUs, local and I/O APIC, PIC, PIT and, where there is no paravirtual clock, the real-time clock.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Final, NamedTuple, Protocol

from hibana.engine.state import CpuidEntry, VcpuState, VmState
from hibana.memory.guest import GuestMemory


class Bus(Protocol):
    """Where guest accesses go that are neither RAM nor a chip of the engine's own; sizes are 1, 2, 4 or 8 bytes."""

    def mmio_read(self, addr: int, size: int) -> int: ...

    def mmio_write(self, addr: int, size: int, value: int) -> None: ...

    def port_read(self, port: int, size: int) -> int: ...

    def port_write(self, port: int, size: int, value: int) -> None: ...


class SerialPort(Protocol):
    """A chip that a guest prints through, byte by byte."""

    @property
    def steady(self) -> int | None:
        """Say what the line status stays at while the guest only prints; None when each byte must be seen at once."""

    def print(self, content: bytes) -> None:
        """Take bytes that the guest has written one after the other."""


class Reason(enum.Enum):
    """Why `Runner.run` came back."""

    KICKED = "kicked"
    SHUTDOWN = "shutdown"  # triple fault
    POWERED_OFF = "powered off"  # the guest has asked the engine itself for its end
    FAILED = "failed"  # the engine cannot go on: an access it cannot emulate, an exception in a device
    ABORTED = "aborted"  # the host's KVM has given the CPU up


class Stop(NamedTuple):
    """The end of one `Runner.run`: a reason; for FAILED what happened, for ABORTED the whole sentence for the log."""

    reason: Reason
    detail: str = ""


KICKED: Final = Stop(Reason.KICKED)
SHUTDOWN: Final = Stop(Reason.SHUTDOWN)


class CpuTemplate(Protocol):
    """How the guest's CPUs shall differ from what KVM offers on this host (machine.md §3.10, §3.11)."""

    def capabilities(self, needed: Sequence[int]) -> list[int]:
        """Give the KVM capabilities to insist on, from those that are needed without a template."""

    def cpuid(self, supported: Sequence[CpuidEntry]) -> list[CpuidEntry]:
        """Change what KVM offers, before it is made consistent with the machine. Raises GuestConfigError."""

    def msrs(self, read: Callable[[Sequence[int]], Mapping[int, int]]) -> dict[int, int]:
        """Give MSRs their values before the boot's own. `read` reads those of vCPU 0, after its CPUID has been set,
        and leaves out what KVM does not have. Raises GuestConfigError.
        """


class CpuModel(NamedTuple):
    """What the guest's CPUs are like; an engine that takes no templates need not look at it."""

    smt: bool = False
    """Two vCPUs are threads of one core."""
    template: CpuTemplate | None = None


PLAIN: Final = CpuModel()


class Vcpu(Protocol):
    """One virtual CPU, seen from outside while its runner is not inside `run`."""

    def save(self) -> VcpuState:
        """Export the complete state, in KVM's terms."""

    def load(self, state: VcpuState) -> None:
        """Replace the complete state."""


class Runner(Protocol):
    """What one host thread executes: one vCPU on kvm, all of them in turn on soft."""

    def run(self) -> Stop:
        """Run guest code until only the VMM can go on; a halted guest waits inside.

        A kick that arrives before `run` is not lost: `run` then returns at once.
        """

    def kick(self) -> None:
        """Make `run` return KICKED soon. Safe from any thread, any number of times."""


class Vm(Protocol):
    """A virtual machine: vCPUs and the interrupt chips between them and the devices."""

    @property
    def vcpus(self) -> Sequence[Vcpu]: ...

    @property
    def runners(self) -> Sequence[Runner]: ...

    @property
    def bus_lock(self) -> "Lock | None":
        """What a runner holds while it is on the bus, and so must everybody else who calls a device.

        None where only the runner's thread may touch guest memory: then devices are called on it alone (soft).
        """

    def line(self, gsi: int) -> Callable[[], None]:
        """Connect an edge-triggered interrupt line, and give what raises and lowers it. Raises EngineError.

        On kvm it may be called on any thread, on soft only on the runner's.
        """

    def doorbell(self, addr: int, value: int) -> int | None:
        """Let 32-bit writes of `value` to `addr` count up an eventfd instead of coming to the bus.

        Gives the descriptor, which the VM closes; None where the bus is the shortest way (soft). Raises EngineError.
        """

    def coalesce(self, data_port: int, status_port: int, chip: SerialPort) -> None:
        """Allow bytes written to a serial port to reach its chip a few milliseconds later, together.

        Before the first run. The chip is on the bus, too, where all other accesses go; on kvm these do as well.
        """

    def note_pause(self) -> None:
        """Tell the guest's clock that the guest stood still. Only while no runner runs."""

    def save(self) -> VmState:
        """Export the interrupt chips and clocks. Only while no runner runs."""

    def load(self, state: VmState) -> None:
        """Replace them."""

    def close(self) -> None:
        """Free everything. Only after all runner threads have ended."""


class Engine(Protocol):
    """A way to execute guest code on this host."""

    name: str
    takes_cpu_templates: bool
    """Whether users may change what CPUID and MSRs show."""

    def missing(self) -> str | None:
        """Say in one sentence why this engine cannot run here; None when it can."""

    def create_vm(self, memory: GuestMemory, vcpu_count: int, bus: Bus, model: CpuModel = PLAIN) -> Vm:
        """Make a virtual machine whose vCPUs are in reset state: vCPU 0 runnable, the others waiting for SIPI.

        Registers itself as `memory.on_write`. Raises EngineError, and GuestConfigError if the model cannot be had.
        """
