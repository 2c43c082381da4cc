"""The soft engine: guest code translated by unicorn, on hosts without KVM."""

import sys
from typing import Final

from hibana.engine.interface import Bus
from hibana.engine.soft import clock, library, selfcheck
from hibana.engine.soft.processor import Processor
from hibana.engine.soft.vm import SoftVm
from hibana.memory.guest import GuestMemory

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
        processor = Processor()
        try:
            processor.map_ram(memory)
            vm = SoftVm(processor, memory, vcpu_count, bus)
            selfcheck.check(processor, memory)
        except BaseException:
            processor.close()
            raise
        return vm
