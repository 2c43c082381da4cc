"""What a guest sees of its CPU: vCPUs are made like those of any microVM, asked, and thrown away.

Nothing runs, so neither kernel nor devices matter: CPUID and MSRs are the same whatever a vCPU is going to boot.
"""

from typing import Final

from hibana.boot.entry import BootProtocol, Entry
from hibana.boot.x86.registers import configure
from hibana.bus.guest_bus import GuestBus
from hibana.config.cpu import CustomCpuTemplate
from hibana.config.machine import MachineConfig
from hibana.cpu_templates.render import described_msrs, template_of
from hibana.engine.kvm.engine import KvmEngine
from hibana.engine.kvm.host import Host
from hibana.memory.guest import GuestMemory
from hibana.units import MIB
from hibana.vmm.cpu_model import cpu_model

_ANYWHERE: Final = Entry(BootProtocol.LINUX_64, 0)


def dump(machine: MachineConfig, template: str | CustomCpuTemplate | None) -> CustomCpuTemplate:
    """Describe vCPU 0 of such a machine, as it is before its first instruction. Raises VmmError."""
    engine = KvmEngine()
    model = cpu_model(engine, template, machine.smt)
    listed = _listed_msrs()
    memory = GuestMemory(MIB)
    try:
        vm = engine.create_vm(memory, machine.vcpu_count, GuestBus(), model)
        try:
            vcpu = vm.vcpus[0]
            vcpu.load(configure(vcpu.save(), _ANYWHERE))
            return template_of(vcpu.cpuid(), vcpu.read_msrs(described_msrs(listed)))
        finally:
            vm.close()
    finally:
        memory.close()


def _listed_msrs() -> list[int]:
    host = Host()
    try:
        return host.msr_index_list()
    finally:
        host.close()
