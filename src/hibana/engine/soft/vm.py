"""A virtual machine on the soft engine: one processor, its vCPUs, the chips between them and the devices."""

from collections.abc import Callable
from functools import partial

from hibana.engine.interface import Bus, SerialPort
from hibana.engine.soft import exits
from hibana.engine.soft.processor import Processor
from hibana.engine.soft.runner import SoftRunner
from hibana.engine.soft.vcpu import SoftVcpu
from hibana.engine.state import VmState
from hibana.memory.guest import GuestMemory


class SoftVm:
    """The whole machine belongs to the thread of its only runner."""

    bus_lock = None

    def __init__(self, processor: Processor, memory: GuestMemory, vcpu_count: int, bus: Bus) -> None:
        self._processor = processor
        self._memory = memory
        vcpus = [SoftVcpu(index, processor.new_image()) for index in range(vcpu_count)]
        runner = SoftRunner(processor, vcpus)
        for vcpu in vcpus:
            vcpu.runner = runner
            vcpu.lapic = runner.interrupts.lapics[vcpu.index]
        exits.connect(processor, runner, memory, bus, vcpu_count)
        self.vcpus = vcpus
        self.runners = [runner]
        self._interrupts = runner.interrupts

    def line(self, gsi: int) -> Callable[[], None]:
        """Give what raises and lowers an edge-triggered interrupt line; only on the runner's thread."""
        return partial(self._interrupts.pulse, gsi)

    def doorbell(self, addr: int, value: int) -> None:
        """Have nothing shorter than the bus, on which devices are called by the runner's thread."""

    def coalesce(self, data_port: int, status_port: int, chip: SerialPort) -> None:
        """Let bytes for a serial port wait for each other."""
        self.runners[0].console = self._processor.console(data_port, status_port, chip)

    def note_pause(self) -> None:
        """Have nothing to tell: there is no paravirtual clock."""

    def save(self) -> VmState:
        """Export the interrupt chips and clocks. Only while no runner runs."""
        return self._interrupts.save()

    def load(self, state: VmState) -> None:
        """Replace them."""
        self._interrupts.load(state)

    def close(self) -> None:
        """Free everything. Only after the runner's thread has ended."""
        self.runners[0].close()
        self._processor.close()
