"""State: what `save` gives is true, what `load` takes is obeyed, and a guest never notices either."""

import random
import struct
import threading
from typing import Final

import msgspec
import pytest

from hibana.engine.interface import KICKED
from hibana.engine.state import HALTED, RUNNABLE, UNINITIALIZED, VcpuState, VmState
from tests.contract.engine import guests
from tests.contract.engine.harness import Boot
from tests.contract.engine.states import differences

TSC: Final = 0x10
MSRS: Final = {
    0x174: 0x10,
    0x175: 0x12345678,  # of these two, AMD's CPUs keep 32 bits
    0x176: 0x87654321,
    0x277: 0x0007040600070406,
    0xC0000081: 0x0023001000000000,
    0xC0000082: 0xFFFFFFFF81000000,
    0xC0000083: 0xFFFFFFFF82000000,
    0xC0000084: 0x47700,
    0xC0000102: 0xFFFF888000000000,
    0xC0000103: 5,
}
LAPIC_TPR: Final = 0x80
LAPIC_PPR: Final = 0xA0
LAPIC_SVR: Final = 0xF0
LAPIC_IRR: Final = 0x200
LAPIC_TIMER: Final = 0x320
LAPIC_CURRENT: Final = 0x390


def _register(state: VcpuState, offset: int) -> int:
    value: int = struct.unpack_from("<I", state.lapic, offset)[0]
    return value


def _with_register(state: VcpuState, offset: int, value: int) -> VcpuState:
    page = bytearray(state.lapic)
    struct.pack_into("<I", page, offset, value)
    state.lapic = bytes(page)
    return state


# --- what the states say ----------------------------------------------------------------------------------------------


def test_a_new_cpu_is_in_reset_state(boot: Boot) -> None:
    """SDM table 10-1. CPU 1 is still as it was made."""
    guest = boot("start: END; ap_start: hlt", vcpus=2)
    state = guest.vm.vcpus[1].save()
    assert (state.regs.rip, state.regs.rflags, state.regs.rsp, state.regs.rax) == (0xFFF0, 2, 0, 0)
    assert (state.sregs.cs.selector, state.sregs.cs.base, state.sregs.cs.limit) == (0xF000, 0xFFFF0000, 0xFFFF)
    assert [getattr(state.sregs, name).selector for name in ("ds", "es", "fs", "gs", "ss")] == [0] * 5
    assert (state.sregs.cr0, state.sregs.cr3, state.sregs.cr4, state.sregs.efer) == (0x60000010, 0, 0, 0)
    assert (state.sregs.idt.base, state.sregs.idt.limit) == (0, 0xFFFF)
    assert (state.fpu.mxcsr, state.debugregs.dr7) == (0x1F80, 0x400)
    assert state.sregs.apic_base == 0xFEE00800
    assert guest.vm.vcpus[0].save().sregs.apic_base == 0xFEE00900
    assert _register(state, LAPIC_SVR) == 0xFF
    assert _register(state, LAPIC_TIMER) == 0x10000
    assert _register(state, 0x20) == 1 << 24
    assert state.mp_state == UNINITIALIZED


def test_the_registers_of_a_stopped_guest_are_those_it_had(boot: Boot) -> None:
    names = ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{n}" for n in range(8, 16)))
    values = {name: random.Random(name).getrandbits(64) for name in names}
    guest = boot(
        "start:\n"
        + "".join(f"mov {name}, {value:#x}\n" for name, value in values.items())
        + """
        mov esp, 0x40ff8
        push 0x246cd7                       # ID, AC, NT, IOPL 2, OF, DF and all arithmetic flags
        popfq
        mov eax, 0x77
        STOP
    1:  jmp 1b
    """
    )
    guest.run()
    state = guest.vm.vcpus[0].save()
    assert {name: getattr(state.regs, name) for name in names} == values
    assert (state.regs.rax, state.regs.rsp) == (0x77, 0x40FF8)
    assert state.regs.rflags == 0x246CD7
    assert guest.label("start") < state.regs.rip <= guest.label("start") + len(guest.program.code)


def test_the_system_registers_of_a_stopped_guest_are_those_it_had(boot: Boot) -> None:
    guest = boot(f"""
    start:
        ENABLE_APIC
        mov rax, cr4
        or eax, 0x80
        mov cr4, rax
        APIC 0x80, 0x30
        mov rax, 0x12345678
        mov cr2, rax
        mov eax, 0x101000
        mov dr0, rax
        mov eax, 0x102000
        mov dr3, rax
        SET_MSR 0xc0000100, 0xffff800000001000
        SET_MSR 0xc0000101, 0xffff800000002000
        mov eax, {guests.USER_DATA}
        mov es, eax
        STOP
    1:  jmp 1b
    """)
    guest.run()
    sregs, debug = guest.vm.vcpus[0].save().sregs, guest.vm.vcpus[0].save().debugregs
    assert (sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4) == (0x80010033, 0x12345678, guests.PML4, 0x6A0)
    assert (sregs.cr8, sregs.efer) == (3, 0xD01)
    assert (sregs.fs.base, sregs.gs.base) == (0xFFFF800000001000, 0xFFFF800000002000)
    assert (sregs.gdt.base, sregs.idt.base, sregs.idt.limit) == (guests.GDT, guests.IDT, 0xFFF)
    es, cs, tr = sregs.es, sregs.cs, sregs.tr
    assert (es.selector, es.dpl, es.type, es.limit, es.db, es.g) == (guests.USER_DATA, 3, 3, 0xFFFFFFFF, 1, 1)
    assert (cs.selector, cs.dpl, cs.type, cs.l, cs.db, cs.s) == (guests.KERNEL_CODE, 0, 0xB, 1, 0, 1)
    assert (tr.selector, tr.base, tr.limit, tr.type) == (guests.TASK, guests.TSS, 0xFFF, 0xB)
    assert debug.db == [0x101000, 0, 0, 0x102000]


def test_the_msrs_of_a_stopped_guest_are_those_it_wrote(boot: Boot) -> None:
    guest = boot("start:\n" + "".join(f"SET_MSR {i:#x}, {v:#x}\n" for i, v in MSRS.items()) + "STOP; 1: jmp 1b")
    guest.run()
    saved = guest.vm.vcpus[0].save().msrs
    assert {index: saved[index] for index in MSRS} == MSRS


def test_the_floating_point_state_is_exported_in_stack_order(boot: Boot) -> None:
    guest = boot("""
    start:
        fninit
        fld1
        fldpi
        movups xmm0, [text]
        movups xmm15, [text + 16]
        mov dword ptr [HEAP], 0x3f80
        ldmxcsr [HEAP]
        STOP
    1:  jmp 1b
    text: .ascii "0123456789abcdefghijklmnopqrstuv"
    """)
    guest.run()
    fpu = guest.vm.vcpus[0].save().fpu
    assert fpu.fpr[0][:10] == bytes.fromhex("35c26821a2da0fc90040")
    assert fpu.fpr[1][:10] == bytes.fromhex("0000000000000080ff3f")
    assert (fpu.fcw, fpu.fsw >> 11 & 7, fpu.ftwx) == (0x37F, 6, 0xC0)
    assert (fpu.xmm[0], fpu.xmm[15]) == (b"0123456789abcdef", b"ghijklmnopqrstuv")
    assert fpu.mxcsr == 0x3F80


def test_the_local_apic_page_shows_what_was_programmed_and_is_pending(boot: Boot) -> None:
    guest = boot("""
    start:
        ENABLE_APIC
        APIC 0x80, 0x20
        APIC 0xd0, 0x02000000
        APIC 0x3e0, 0xb
        APIC 0x320, 0x20040
        APIC 0x380, 0xf0000000
        APIC 0x300, 0x40075                 # stays pending: IF is clear
        STOP
    1:  jmp 1b
    """)
    guest.run()
    state = guest.vm.vcpus[0].save()
    assert _register(state, LAPIC_TPR) == 0x20
    assert _register(state, LAPIC_SVR) == 0x1FF
    assert _register(state, 0xD0) == 0x02000000
    assert _register(state, LAPIC_TIMER) == 0x20040
    assert _register(state, 0x380) == 0xF0000000
    assert 0 < _register(state, LAPIC_CURRENT) <= 0xF0000000
    assert _register(state, 0x3E0) == 0xB
    assert _register(state, LAPIC_IRR + 0x10 * (0x75 // 32)) == 1 << 0x75 % 32


def test_the_chips_show_what_was_programmed(boot: Boot) -> None:
    guest = boot("""
    start:
        PIN 5, 0x45
        PIN 23, 0x10067
        mov al, 0x11
        out 0x20, al
        mov al, 0x90
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0xdb
        out 0x21, al
        mov al, 0x34
        out 0x43, al
        mov al, 0x34
        out 0x40, al
        mov al, 0x12
        out 0x40, al
        STOP
    1:  jmp 1b
    """)
    guest.run()
    chips = guest.vm.save()
    assert (chips.ioapic.redirtbl[5], chips.ioapic.redirtbl[23], chips.ioapic.redirtbl[6]) == (0x45, 0x10067, 0x10000)
    assert (chips.pic_master.irq_base, chips.pic_master.imr) == (0x90, 0xDB)
    assert (chips.pit.channels[0].mode, chips.pit.channels[0].count) == (2, 0x1234)
    guest.vm.load(chips)
    assert differences(guest.vm.save(), chips) == {}


@pytest.mark.parametrize(("instruction", "mp_state"), [("nop", RUNNABLE), ("hlt", HALTED)])
def test_mp_state_tells_whether_a_cpu_waits(boot: Boot, instruction: str, mp_state: int) -> None:
    guest = boot(f"start: sti; mov byte ptr [HEAP], 1; 1: {instruction}; jmp 1b")
    while not guest.number(guests.HEAP, 1):
        threading.Timer(0.02, guest.kick).start()
        assert guest.run_once() == KICKED
    assert guest.vm.vcpus[0].save().mp_state == mp_state


# --- what load does ---------------------------------------------------------------------------------------------------


def test_what_was_loaded_is_what_save_gives(boot: Boot) -> None:
    guest = boot("start: 1: jmp 1b")
    vcpu, chance = guest.vm.vcpus[0], random.Random(5)
    state = vcpu.save()
    for name in state.regs.__struct_fields__:
        setattr(state.regs, name, chance.getrandbits(46))
    state.regs.rflags = 0x200ED7 & ~0x200
    state.sregs.cr2 = 0x7FFF12345678
    state.sregs.fs.base, state.sregs.gs.base = 0xFFFF880012340000, 0x7F0011112222
    state.fpu.xmm = [chance.randbytes(16) for _ in range(16)]
    state.fpu.fpr = [struct.pack("<QH6x", 1 << 63 | chance.getrandbits(63), 0x3FFF + n) for n in range(8)]
    state.fpu.fcw, state.fpu.fsw, state.fpu.ftwx, state.fpu.mxcsr = 0xF7F, 3 << 11, 0xFF, 0x7F80
    state.debugregs.db = [0x1000, 0x2000, 0x3000, 0x4000]
    state.msrs.update(MSRS)
    _with_register(state, LAPIC_SVR, 0x1FF)
    _with_register(state, LAPIC_TPR, 0x50)
    _with_register(state, LAPIC_PPR, 0x50)  # derived from it
    state.sregs.cr8 = 5
    _with_register(state, LAPIC_IRR + 0x40, 0x00010001)
    vcpu.load(state)
    assert differences(vcpu.save(), state) == {}


def test_a_state_survives_being_written_down(boot: Boot) -> None:
    """A snapshot stores states as text or bytes: nothing in them may depend on this process."""
    guest = boot("start: 1: jmp 1b")
    state, chips = guest.vm.vcpus[0].save(), guest.vm.save()
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=VcpuState)
    chips_again = msgspec.msgpack.decode(msgspec.msgpack.encode(chips), type=VmState)
    assert (again, chips_again) == (state, chips)
    guest.vm.vcpus[0].load(again)
    guest.vm.load(chips_again)
    assert differences(guest.vm.vcpus[0].save(), state) == {}


def test_the_guest_sees_what_was_loaded(boot: Boot) -> None:
    guest = boot("""
    start:
        mov [HEAP], rdx
        mov [HEAP + 8], r15
        movups [HEAP + 16], xmm11
        fstp tbyte ptr [HEAP + 32]
        mov ecx, 0xc0000102
        rdmsr
        mov [HEAP + 48], eax
        mov [HEAP + 52], edx
        mov rax, dr1
        mov [HEAP + 56], rax
        mov rax, cr2
        mov [HEAP + 64], rax
        mov r15d, LAPIC
        mov eax, [r15 + 0x80]
        mov [HEAP + 72], rax
        mov rax, gs:[0]
        mov [HEAP + 80], rax
        END
    """)
    vcpu = guest.vm.vcpus[0]
    state = vcpu.save()
    state.regs.rdx, state.regs.r15 = 0x1111222233334444, 0x5555666677778888
    state.fpu.xmm[11] = b"fedcba9876543210"
    state.fpu.fpr[0] = bytes.fromhex("35c26821a2da0fc90040") + bytes(6)
    state.fpu.ftwx, state.fpu.fsw = 1 << 7, 7 << 11
    state.msrs[0xC0000102] = 0xFFFF888012345678
    state.debugregs.db[1] = 0x4321
    state.sregs.cr2 = 0xABCDEF
    state.sregs.gs.base = guests.HEAP + 0x100
    state.sregs.cr8 = 6
    guest.memory.write(guests.HEAP + 0x100, b"gs:[0]..")
    vcpu.load(_with_register(state, LAPIC_TPR, 0x60))
    guest.run()
    assert guest.numbers(guests.HEAP, 2) == [0x1111222233334444, 0x5555666677778888]
    assert guest.memory.read(guests.HEAP + 16, 16) == b"fedcba9876543210"
    assert guest.memory.read(guests.HEAP + 32, 10) == bytes.fromhex("35c26821a2da0fc90040")
    assert guest.numbers(guests.HEAP + 48, 5) == [
        0xFFFF888012345678,
        0x4321,
        0xABCDEF,
        0x60,
        int.from_bytes(b"gs:[0]..", "little"),
    ]


def test_a_loaded_halt_waits_for_an_interrupt(boot: Boot) -> None:
    guest = boot("""
    start:
        END 1
    wake:
        EOI
        END 2
    """)
    guest.memory.write(guests.HANDLERS + 8 * 0x61, guest.label("wake").to_bytes(8, "little"))
    vcpu = guest.vm.vcpus[0]
    state = vcpu.save()
    state.mp_state = HALTED
    state.regs.rflags |= 0x200
    _with_register(state, LAPIC_SVR, 0x1FF)
    vcpu.load(state)
    threading.Timer(0.05, guest.kick).start()
    assert guest.run_once() == KICKED  # nothing happened
    state = vcpu.save()
    assert (state.mp_state, state.regs.rip) == (HALTED, guest.label("start"))
    vcpu.load(_with_register(state, LAPIC_IRR + 0x30, 2))  # vector 0x61
    assert guest.run() == 2


def test_a_loaded_time_stamp_counter_goes_on_from_there(boot: Boot) -> None:
    guest = boot("start: rdtsc; mov [HEAP], eax; mov [HEAP + 4], edx; END")
    vcpu = guest.vm.vcpus[0]
    state = vcpu.save()
    state.msrs[TSC] = 1 << 60
    vcpu.load(state)
    guest.run()
    assert 1 << 60 <= guest.number(guests.HEAP) < (1 << 60) + (1 << 40)
    assert vcpu.save().msrs[TSC] > guest.number(guests.HEAP)
