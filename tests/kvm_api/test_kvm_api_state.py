"""The state of a vCPU and of the chips: what the kernel gives it takes back, byte for byte; nothing is forgotten."""

from struct import Struct, unpack_from

import pytest

from hibana.engine.kvm import abi, chips
from hibana.engine.kvm.cpuid import CpuidEntry
from hibana.engine.state import HALTED
from hibana.errors import EngineError
from tests.contract.engine.states import differences
from tests.kvm_api import machine
from tests.kvm_api.conftest import Boot
from tests.kvm_api.machine import KvmGuest, Run, refused

COUNT = 3000
LOOP = f"""
start:
    mov ebx, {COUNT}
1:  inc qword ptr [done]
    cmp ebx, {COUNT // 2}
    jne 2f
    SAY 0x51
2:  dec ebx
    jnz 1b
    END 7
done: .quad 0
"""


def record_of(guest: KvmGuest, request: int, record: Struct) -> bytes:
    buffer = bytearray(record.size)
    abi.call(guest.vcpu.fd, request, buffer)
    return bytes(buffer)


@pytest.mark.parametrize(
    ("get", "put", "record"),
    [
        (abi.KVM_GET_REGS, abi.KVM_SET_REGS, abi.REGS),
        (abi.KVM_GET_SREGS, abi.KVM_SET_SREGS, abi.SREGS),
        (machine.KVM_GET_FPU, machine.KVM_SET_FPU, machine.FPU),
        (abi.KVM_GET_XSAVE, abi.KVM_SET_XSAVE, abi.XSAVE),
        (abi.KVM_GET_XCRS, abi.KVM_SET_XCRS, abi.XCRS),
        (abi.KVM_GET_DEBUGREGS, abi.KVM_SET_DEBUGREGS, abi.DEBUGREGS),
        (abi.KVM_GET_LAPIC, abi.KVM_SET_LAPIC, abi.LAPIC_STATE),
        (abi.KVM_GET_MP_STATE, abi.KVM_SET_MP_STATE, abi.MP_STATE),
        (abi.KVM_GET_VCPU_EVENTS, abi.KVM_SET_VCPU_EVENTS, abi.VCPU_EVENTS),
    ],
    ids=["regs", "sregs", "fpu", "xsave", "xcrs", "debugregs", "lapic", "mp_state", "events"],
)
def test_a_record_is_taken_back_as_it_was_given(boot: Boot, get: int, put: int, record: Struct) -> None:
    guest = boot("start: STOP")
    guest.run()
    content = record_of(guest, get, record)
    abi.call(guest.vcpu.fd, put, bytearray(content))
    assert record_of(guest, get, record) == content


def test_the_large_xsave_image_begins_like_the_small_one(boot: Boot) -> None:
    guest = boot("start: STOP")
    guest.run()
    size = abi.call(guest.kvm.fd, abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_XSAVE2)
    if not size:
        pytest.skip("this kernel has no KVM_GET_XSAVE2")
    buffer = bytearray(size)
    abi.call(guest.vcpu.fd, abi.KVM_GET_XSAVE2, buffer)
    assert buffer[: abi.XSAVE.size] == record_of(guest, abi.KVM_GET_XSAVE, abi.XSAVE)


def test_cpuid_is_what_was_set(boot: Boot) -> None:
    guest = boot("start: mov eax, 1; cpuid; mov eax, ebx; shr eax, 24; END eax; ap_start: hlt", vcpus=3)
    vcpu = guest.kvm.vcpus[2]
    most = 256
    buffer = bytearray(abi.CPUID2.size + most * abi.CPUID_ENTRY2.size)
    abi.CPUID2.pack_into(buffer, 0, most, 0)
    abi.call(vcpu.fd, machine.KVM_GET_CPUID2, buffer)
    entries = [CpuidEntry(*fields) for fields in abi.CPUID_ENTRY2.iter_unpack(buffer[abi.CPUID2.size :])]
    (leaf,) = [entry for entry in entries if entry.function == 1]
    assert (leaf.ebx >> 24, leaf.ebx >> 16 & 0xFF) == (2, 4)
    assert guest.run() == 0


def test_every_saved_msr_can_be_written_back(boot: Boot) -> None:
    vcpu = boot("start: END").vcpu
    msrs = vcpu.save().msrs
    assert len(msrs) > 10
    vcpu.load(vcpu.save())
    assert vcpu.save().msrs.keys() == msrs.keys()


def test_an_msr_that_is_not_there_is_not_taken(boot: Boot) -> None:
    vcpu = boot("start: END").vcpu
    buffer = bytearray(abi.MSRS.pack(2, 0) + abi.MSR_ENTRY.pack(0x174, 0, 8) + abi.MSR_ENTRY.pack(0xDEAD0000, 0, 0))
    assert abi.call(vcpu.fd, abi.KVM_SET_MSRS, buffer) == 1


def test_the_frequency_of_the_time_stamp_counter_is_known_and_can_be_confirmed(boot: Boot) -> None:
    fd = boot("start: END").vcpu.fd
    khz = abi.call(fd, abi.KVM_GET_TSC_KHZ)
    assert khz > 100_000
    abi.call(fd, abi.KVM_SET_TSC_KHZ, khz)
    assert abi.call(fd, abi.KVM_GET_TSC_KHZ) == khz


def test_a_counter_that_is_almost_as_fast_is_left_as_it_is(boot: Boot) -> None:
    vcpu = boot("start: END").vcpu
    state = vcpu.save()
    khz = state.tsc_khz
    assert khz == abi.call(vcpu.fd, abi.KVM_GET_TSC_KHZ)
    state.tsc_khz = khz + khz // 5000
    vcpu.load(state)
    assert vcpu.save().tsc_khz == khz


def test_a_counter_of_another_speed_is_set_or_refused(boot: Boot) -> None:
    vcpu = boot("start: END").vcpu
    state = vcpu.save()
    state.tsc_khz //= 2
    try:
        vcpu.load(state)
    except EngineError as refusal:
        assert "KVM_SET_TSC_KHZ" in str(refusal)  # a host that cannot scale
    else:
        assert vcpu.save().tsc_khz == state.tsc_khz


def test_a_guest_without_a_paravirtual_clock_is_not_told_of_a_pause(boot: Boot) -> None:
    assert refused(boot("start: END").vcpu.fd, abi.KVM_KVMCLOCK_CTRL) == "EINVAL"


def test_the_chips_are_taken_back_as_they_were_given(boot: Boot) -> None:
    guest = boot("""
    start:
        PIN 5, 0x145
        mov al, 0x36
        out 0x43, al
        mov al, 0x21
        out 0x40, al
        out 0x40, al
        mov al, 0x5a
        out 0x21, al
        STOP
    """)
    guest.run()
    state = guest.kvm.save()
    assert (state.ioapic.redirtbl[5], state.pit.channels[0].count, state.pic_master.imr) == (0x145, 0x2121, 0x5A)
    chips.load(guest.kvm.fd, state)
    assert differences(guest.kvm.save(), state) == {}


@pytest.mark.parametrize("bits", [0, 2])
def test_the_speaker_bit_of_port_0x61_is_kept(boot: Boot, bits: int) -> None:
    vm = boot("start: END").kvm
    state = vm.save()
    state.pit.speaker = bits
    vm.load(state)
    assert vm.save().pit.speaker == bits


def test_a_state_saved_in_the_middle_of_a_loop_goes_on_in_a_new_virtual_machine(boot: Boot) -> None:
    guest = boot(LOOP)
    with Run(guest.vcpu.fd) as run:
        assert run.until_said() == 0x51
        run.finish_instruction()
    assert guest.number("done") == COUNT // 2 + 1
    guest.thaw()
    assert guest.run() == 7
    assert guest.number("done") == COUNT


def test_an_access_that_is_not_finished_is_not_in_the_state(boot: Boot) -> None:
    """That is why `run` comes back only when KVM_RUN has had the chance to finish it."""
    guest = boot("start: mov eax, 1; in al, 0x77; STOP")
    with Run(guest.vcpu.fd) as run:
        assert run.enter() == abi.KVM_EXIT_IO
        run.page[mmap_data(run)] = 0x99
        assert guest.vcpu.save().regs.rax == 1
        run.finish_instruction()
        assert guest.vcpu.save().regs.rax == 0x99


def mmap_data(run: Run) -> int:
    """Say where the data of the present access to a port lies."""
    offset: int = abi.EXIT_IO.unpack_from(run.page, abi.RUN_UNION)[4]
    return offset


def test_an_interrupt_that_was_accepted_but_not_delivered_is_in_the_state(boot: Boot) -> None:
    """A vCPU with an event in flight: the record that carries it is complete."""
    vcpu = boot("start: END").vcpu
    state = vcpu.save()
    state.events.interrupt_injected, state.events.interrupt_nr = 1, 0x45
    state.events.nmi_masked = 1
    vcpu.load(state)
    assert vcpu.save().events == state.events


def test_a_halted_cpu_is_halted_after_loading(boot: Boot) -> None:
    vcpu = boot("start: END").vcpu
    state = vcpu.save()
    state.mp_state = HALTED
    vcpu.load(state)
    assert vcpu.save().mp_state == HALTED


def test_a_64_bit_code_segment_outside_long_mode_can_be_loaded(boot: Boot) -> None:
    """A guest may have one, where its L bit means nothing; the kernel would refuse it."""
    vcpu = boot("start: END").vcpu
    state = vcpu.save()
    state.sregs.cr0, state.sregs.efer, state.sregs.cs.l = 0x33, 0, 1
    vcpu.load(state)
    assert vcpu.save().sregs.cs.l == 0


def test_the_local_apic_page_shows_who_it_belongs_to(boot: Boot) -> None:
    guest = boot("start: END; ap_start: hlt", vcpus=2)
    pages = [vcpu.save().lapic for vcpu in guest.kvm.vcpus]
    assert [unpack_from("<I", page, 0x20)[0] >> 24 for page in pages] == [0, 1]
    assert [unpack_from("<I", page, 0x30)[0] & 0xFF for page in pages] == [0x14, 0x14]
