"""The soft engine: guest code translated by unicorn, on hosts without KVM."""

import sys
from typing import Final

from hibana.engine.interface import Bus
from hibana.engine.soft import clock, library, selfcheck
from hibana.engine.soft.fast import switch
from hibana.engine.soft.processor import Processor
from hibana.engine.soft.vm import SoftVm
from hibana.errors import EngineError
from hibana.memory.guest import GuestMemory
from hibana.observe import log

_SWITCH_INTERVAL: Final = 0.0001
"""Seconds a busy thread keeps the interpreter lock while the runner waits for it; Python's own 5 ms is felt."""


class SoftEngine:
    """Executes guest instructions by translation; needs nothing from the host but x86-64 Linux."""

    name = "soft"
    takes_cpu_templates = False

    def missing(self) -> str | None:
        """Say in one sentence why this engine cannot run here; None when it can."""
        return library.missing()

    def create_vm(self, memory: GuestMemory, vcpu_count: int, bus: Bus) -> SoftVm:
        """Make a virtual machine whose vCPUs are in reset state: vCPU 0 runnable, the others waiting for SIPI."""
        clock.begin()
        sys.setswitchinterval(_SWITCH_INTERVAL)
        accelerations = switch.load()
        vm, broken = _build(memory, vcpu_count, bus)
        if broken and accelerations.names:
            vm.close()
            log.warn(f"The soft engine runs without {', '.join(accelerations.names)}: {broken}.")
            accelerations.fall_back()
            vm, broken = _build(memory, vcpu_count, bus)
        if broken:
            vm.close()
            raise EngineError(cause=f"the soft engine failed its self-check on this host: {broken}.")
        return vm


def _build(memory: GuestMemory, vcpu_count: int, bus: Bus) -> tuple[SoftVm, str]:
    """Make a virtual machine, and say what does not work in it."""
    processor = Processor()
    try:
        processor.map_ram(memory)
        vm = SoftVm(processor, memory, vcpu_count, bus)
        return vm, selfcheck.broken(processor, memory)
    except BaseException:
        processor.close()
        raise
