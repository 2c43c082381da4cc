"""A virtual machine of the kernel's: RAM, interrupt chips, vCPUs, and the eventfds between them and the devices."""

import os
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final

from hibana.engine.interface import Bus, CpuModel, SerialPort
from hibana.engine.kvm import abi, amx, chips, kick
from hibana.engine.kvm.cpuid import normalize
from hibana.engine.kvm.host import Host
from hibana.engine.kvm.lines import Lines
from hibana.engine.kvm.msr import saved_msrs
from hibana.engine.kvm.runner import KvmRunner
from hibana.engine.kvm.slots import Slots
from hibana.engine.kvm.tsc import Tsc
from hibana.engine.kvm.vcpu import Common, KvmVcpu
from hibana.engine.state import CpuidEntry, VmState
from hibana.errors import EngineError, os_text
from hibana.memory.guest import GuestMemory
from hibana.memory.layout import KVM_TSS
from hibana.observe import log
from hibana.observe.metrics_groups import METRICS

_SLOTS_IF_UNKNOWN: Final = 32


class KvmVm:
    """One runner and one vCPU for each CPU; everything is in the kernel, and this holds on to it."""

    def __init__(self, host: Host, memory: GuestMemory, vcpu_count: int, bus: Bus, model: CpuModel) -> None:
        """Make it, in the reference's order (machine.md §4.3). Raises EngineError, and then leaves nothing behind."""
        self.bus_lock: Final = Lock()
        self.vcpus: list[KvmVcpu] = []
        self.runners: list[KvmRunner] = []
        amx.permit()
        cpuid = host.supported_cpuid()
        self.fd: Final = host.create_vm()
        self.lines: Final = Lines(self.fd)
        try:
            slot_limit = host.capability(abi.KVM_CAP_NR_MEMSLOTS) or _SLOTS_IF_UNKNOWN
            msrs = saved_msrs(host.msr_index_list())
            xsave_size = abi.call(self.fd, abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_XSAVE2) or abi.XSAVE.size
            common = Common(msrs, xsave_size, Tsc())
            abi.call_with_address(self.fd, abi.KVM_SET_TSS_ADDR, KVM_TSS)
            abi.call(self.fd, abi.KVM_CREATE_IRQCHIP)
            abi.put(self.fd, abi.KVM_CREATE_PIT2, abi.PIT_CONFIG, abi.KVM_PIT_SPEAKER_DUMMY)
            kick.admit()
            page_size = host.vcpu_page_size()
            for index in range(vcpu_count):
                vcpu = KvmVcpu(abi.call(self.fd, abi.KVM_CREATE_VCPU, index), common)
                self.vcpus.append(vcpu)
                self.runners.append(_runner(vcpu, page_size, bus, self.bus_lock))
            self.slots: Final = Slots(self.fd, memory, slot_limit)
            _shape(self.vcpus, cpuid, model)
        except BaseException:
            self.close()
            raise

    def line(self, gsi: int) -> Callable[[], None]:
        """Connect an interrupt line, and give what pulses it, on any thread. Raises EngineError."""
        return self.lines.interrupt(gsi)

    def doorbell(self, addr: int, value: int) -> int:
        """Let 32-bit writes of `value` to `addr` count up an eventfd. Raises EngineError."""
        return self.lines.doorbell(addr, value)

    def coalesce(self, data_port: int, status_port: int, chip: SerialPort) -> None:
        """Leave each byte its exit."""

    def note_pause(self) -> None:
        """Tell the guest's clock that the guest stood still. Only while no runner runs."""
        for vcpu in self.vcpus:
            try:
                vcpu.note_pause()
            except EngineError as error:
                METRICS.vcpu.kvmclock_ctrl_fails += 1
                log.warn(f"KVM_KVMCLOCK_CTRL call failed {error.facts['cause']}")

    def save(self) -> VmState:
        """Export the interrupt chips and clocks. Only while no runner runs."""
        return chips.save(self.fd)

    def load(self, state: VmState) -> None:
        """Replace them."""
        chips.load(self.fd, state)

    def close(self) -> None:
        """Free everything. Only after all runner threads have ended."""
        for runner in self.runners:
            runner.close()
        for vcpu in self.vcpus:
            os.close(vcpu.fd)
        self.lines.close()
        os.close(self.fd)


def _shape(vcpus: Sequence[KvmVcpu], supported: Sequence[CpuidEntry], model: CpuModel) -> None:
    """Give the vCPUs their CPUID, and what a template wants in their MSRs (machine.md §3.1)."""
    leaves = model.template.cpuid(supported) if model.template else supported
    for index, vcpu in enumerate(vcpus):
        vcpu.set_cpuid(normalize(leaves, index, len(vcpus), smt=model.smt))
    if model.template:
        values = model.template.msrs(vcpus[0].read_msrs)
        for vcpu in vcpus:
            vcpu.force_msrs(values)


def _runner(vcpu: KvmVcpu, page_size: int, bus: Bus, lock: Lock) -> KvmRunner:
    try:
        return KvmRunner(vcpu.fd, page_size, bus, lock)
    except OSError as error:
        raise EngineError(cause=f"mapping a vCPU's page: {os_text(error)}") from error
