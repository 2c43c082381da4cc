"""The kvm engine: guest code on the host's own CPU, at its speed."""

import os
import sys
from typing import Final

from hibana.engine.interface import PLAIN, Bus, CpuModel
from hibana.engine.kvm import host, probe
from hibana.engine.kvm.host import Host
from hibana.engine.kvm.vm import KvmVm
from hibana.errors import EngineError
from hibana.memory.guest import GuestMemory

_SWITCH_INTERVAL: Final = 0.0001
"""Seconds a busy thread keeps the interpreter lock while a vCPU waits for it; docs/performance.md says why so many."""


class KvmEngine:
    """Executes guest instructions by the kernel's KVM."""

    name = "kvm"
    takes_cpu_templates = True

    def missing(self) -> str | None:
        """Say in one sentence why this engine cannot run here; None when it can."""
        if not os.path.exists(host.DEVICE):
            return f"this host has no {host.DEVICE}."
        try:
            Host().close()
        except EngineError as error:
            return str(error.facts["cause"])
        return None

    def emulates(self) -> str | None:
        """Say in one sentence that this host's KVM is a slow one; None when it runs guest code on the CPU."""
        try:
            verdict = probe.measure()
        except EngineError as error:
            return f"{host.DEVICE} does not run guest code: {error.facts['cause']}."
        if not verdict.emulates:
            return None
        return f"{host.DEVICE} emulates guest code ({verdict.ns:.0f} ns for a loop of two instructions)."

    def create_vm(self, memory: GuestMemory, vcpu_count: int, bus: Bus, model: CpuModel = PLAIN) -> KvmVm:
        """Make a virtual machine whose vCPUs are in reset state: vCPU 0 runnable, the others waiting for SIPI.

        The kernel sees what we write to guest memory, so there is nothing to be told about it.
        """
        sys.setswitchinterval(_SWITCH_INTERVAL)
        kvm = Host(model.template.capabilities(host.REQUIRED) if model.template else host.REQUIRED)
        try:
            return KvmVm(kvm, memory, vcpu_count, bus, model)
        finally:
            kvm.close()
