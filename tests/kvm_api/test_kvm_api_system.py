"""/dev/kvm itself: what every host must offer, and what virtual machines are made of."""

import mmap
import os
from struct import pack, unpack_from

import pytest

from hibana.engine.kvm import abi
from hibana.engine.kvm.engine import KvmEngine
from hibana.engine.kvm.host import REQUIRED, Host
from hibana.engine.kvm.msr import saved_msrs
from hibana.engine.kvm.vcpu import KvmVcpu
from hibana.errors import EngineError
from hibana.memory.guest import GuestMemory
from hibana.testing.fakes import RecordingBus
from hibana.units import MIB
from tests.kvm_api import machine
from tests.kvm_api.conftest import Boot
from tests.kvm_api.machine import refused

CAP_SPLIT_IRQCHIP = 121


def test_the_interface_has_the_version_that_never_changes(host: Host) -> None:
    assert abi.call(host.fd, abi.KVM_GET_API_VERSION) == abi.API_VERSION


@pytest.mark.parametrize("capability", REQUIRED)
def test_what_nothing_works_without_is_there(host: Host, capability: int) -> None:
    assert host.capability(capability)


def test_a_capability_that_nobody_has_is_absent(host: Host) -> None:
    assert host.capability(99_999) == 0


def test_the_shared_page_holds_what_ports_transfer(host: Host) -> None:
    size = host.vcpu_page_size()
    assert size >= 2 * mmap.PAGESIZE
    assert size % mmap.PAGESIZE == 0


def test_the_supported_cpuid_has_a_vendor_a_model_and_a_hypervisor(host: Host) -> None:
    leaves = {(entry.function, entry.index): entry for entry in host.supported_cpuid()}
    vendor, hypervisor = leaves[0, 0], leaves[0x40000000, 0]
    assert pack("<III", vendor.ebx, vendor.edx, vendor.ecx) in (b"GenuineIntel", b"AuthenticAMD")
    assert pack("<III", hypervisor.ebx, hypervisor.ecx, hypervisor.edx) == b"KVMKVMKVM\0\0\0"
    assert leaves[1, 0].eax
    assert len(leaves) == len(host.supported_cpuid())


def test_the_time_stamp_counter_and_the_syscall_target_are_among_the_msrs(host: Host) -> None:
    listed = host.msr_index_list()
    assert {0x10, 0xC0000081, 0xC0000082} <= set(listed)
    assert len(listed) == len(set(listed))
    assert set(saved_msrs(listed)) >= {0x10, 0x277, 0xC0000081}


def test_there_is_a_list_of_msrs_that_describe_the_host(host: Host) -> None:
    buffer = bytearray(abi.MSR_LIST.size + 4 * 256)
    abi.MSR_LIST.pack_into(buffer, 0, 256)
    abi.call(host.fd, machine.KVM_GET_MSR_FEATURE_INDEX_LIST, buffer)
    (count,) = abi.MSR_LIST.unpack_from(buffer)
    assert len(set(unpack_from(f"<{count}I", buffer, abi.MSR_LIST.size))) == count


def test_interrupt_chips_are_made_once(boot: Boot) -> None:
    assert refused(boot("start: END").kvm.fd, abi.KVM_CREATE_IRQCHIP) == "EEXIST"


def test_a_vcpu_number_is_given_once(boot: Boot) -> None:
    assert refused(boot("start: END").kvm.fd, abi.KVM_CREATE_VCPU, 0) == "EEXIST"


def test_vcpus_come_after_the_chips(host: Host) -> None:
    fd = host.create_vm()
    vcpu = abi.call(fd, abi.KVM_CREATE_VCPU, 0)
    assert refused(fd, abi.KVM_CREATE_IRQCHIP) == "EINVAL"
    os.close(vcpu)
    os.close(fd)


def test_32_vcpus_are_made_and_all_have_their_own_state(boot: Boot) -> None:
    guest = boot("start: END; ap_start: hlt", vcpus=32)
    ids = [unpack_from("<I", vcpu.save().lapic, 0x20)[0] >> 24 for vcpu in guest.kvm.vcpus]
    assert ids == list(range(32))


def test_the_local_apics_alone_can_be_in_the_kernel(host: Host) -> None:
    fd = host.create_vm()
    abi.put(fd, machine.KVM_ENABLE_CAP, machine.ENABLE_CAP, CAP_SPLIT_IRQCHIP, 0, 24, 0, 0, 0)
    os.close(abi.call(fd, abi.KVM_CREATE_VCPU, 0))
    os.close(fd)


def test_the_clock_of_a_virtual_machine_goes_on_from_where_it_is_set(boot: Boot) -> None:
    vm = boot("start: END").kvm
    state = vm.save()
    state.clock_ns = 10**15
    vm.load(state)
    first, second = vm.save().clock_ns, vm.save().clock_ns
    assert 10**15 <= first <= second < 10**15 + 10**12


def test_a_virtual_machine_that_cannot_be_completed_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(vcpu: KvmVcpu, leaves: object) -> None:
        raise EngineError(cause="no CPUID today")

    memory = GuestMemory(MIB)
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(KvmVcpu, "set_cpuid", fail)
    with pytest.raises(EngineError, match="no CPUID today"):
        KvmEngine().create_vm(memory, 2, RecordingBus())
    assert len(os.listdir("/proc/self/fd")) == before
    memory.close()
