"""Running guests whose state is saved, thrown away and loaded again: they never notice."""

import copy
import threading
from typing import Final

import pytest

from hibana.engine.interface import KICKED, Runner
from hibana.engine.state import HALTED, RUNNABLE, UNINITIALIZED, VcpuState
from tests.contract.engine import guests
from tests.contract.engine.harness import Boot
from tests.contract.engine.states import differences

WORK: Final = f"""
    start:
        ENABLE_APIC
        ON 0x40, tick
        APIC 0x3e0, 0xb
        APIC 0x320, 0x20040
        APIC 0x380, 1000000
        fninit
        fldz
        xor ebx, ebx                        # a number in a register, one on the x87 stack, one in XMM, one in memory
        movsd xmm8, [one]
        sti
    more:
        mov ecx, 300
    1:  inc rbx
        fld1
        faddp
        addsd xmm8, [one]
        add qword ptr [count], 1
        loop 1b
        in al, 0x7e
        test al, al
        jnz more
    2:  cmp dword ptr [ticks], 3
        jb 2b
        cli
        fistp qword ptr [got]
        cvtsd2si rax, xmm8
        mov [got + 8], rax
        mov [got + 16], rbx
        END
    tick:
        inc dword ptr [ticks]
        mov dword ptr [{guests.LOG_COUNT:#x}], 0
        EOI
        ret
    one: .double 1.0
    count: .quad 0
    got: .quad 0, 0, 0
    ticks: .long 0
"""


def _poisoned(reset: VcpuState) -> VcpuState:
    """Make a state in which no register holds anything useful."""
    state = copy.deepcopy(reset)
    for name in state.regs.__struct_fields__:
        setattr(state.regs, name, 2 if name == "rflags" else 0xDEADBEEF)
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        getattr(state.sregs, name).base = 0xBAD0000
    state.fpu.xmm = [b"\xbb" * 16] * 16
    state.fpu.fpr = [b"\xcc" * 10 + bytes(6)] * 8
    state.fpu.mxcsr, state.fpu.fcw, state.fpu.ftwx = 0x1FC0, 0x27F, 0xFF
    state.debugregs.db = [1, 2, 3, 4]
    state.msrs = dict.fromkeys(state.msrs, 0)
    return state


def test_a_running_guest_survives_64_times_being_wiped_and_reloaded(boot: Boot) -> None:
    guest = boot(WORK)
    vcpu = guest.vm.vcpus[0]
    garbage = _poisoned(vcpu.save())
    garbage.mp_state = RUNNABLE
    rounds = 0

    def wipe_and_reload(runner: Runner) -> None:
        nonlocal rounds
        if rounds == 64:  # KVM forgets a tick that falls between two runs, and the guest waits for three
            return
        state = vcpu.save()
        vcpu.load(garbage)
        assert vcpu.save().regs.rbx == 0xDEADBEEF
        vcpu.load(state)
        assert differences(vcpu.save(), state) == {}
        rounds += 1

    guest.between_runs = wipe_and_reload
    guest.bus.answers[0x7E] = lambda size: int(rounds < 64)
    with guest.kicked_often():
        guest.run()
    total = guest.number("count")
    assert guest.numbers("got", 3) == [total, total + 1, total]
    assert rounds == 64


@pytest.mark.parametrize("chips_first", [True, False])
def test_a_guest_goes_on_in_a_new_vm(boot: Boot, chips_first: bool) -> None:
    """Eight times saved, thrown away, and loaded into a new virtual machine over the same memory."""
    guest = boot(WORK)
    polls = 0

    def poll(size: int) -> int:
        nonlocal polls
        polls += 1
        if polls <= 8:
            guest.bus.reactions[guests.PORT_END](0)  # ends `run`, not the guest
        return int(polls <= 8)

    guest.bus.answers[0x7E] = poll
    for _ in range(8):
        guest.run()
        guest.thaw(chips_first=chips_first)
    guest.run()
    total = guest.number("count")
    assert guest.numbers("got", 3) == [total, total + 1, total]
    assert total == 9 * 300


THAWS: Final = {
    "a local timer that has not fired": """
        ON 0x40, awake
        APIC 0x3e0, 0xb
        APIC 0x320, 0x40
        APIC 0x380, 4000000
    """,
    "a periodic local timer": """
        ON 0x40, awake
        APIC 0x3e0, 0xb
        APIC 0x320, 0x20040
        APIC 0x380, 2000000
    """,
    "an interrupt that is pending": """
        ON 0x75, awake
        APIC 0x300, 0x40075
    """,
    "the interval timer": """
        ON 0x30, awake
        PIN 0, 0x30
        PIN 2, 0x30
        mov al, 0x34
        out 0x43, al
        xor eax, eax
        out 0x40, al
        out 0x40, al
    """,
}


@pytest.mark.parametrize("name", THAWS)
@pytest.mark.parametrize("chips_first", [True, False])
def test_a_new_vm_continues_with(boot: Boot, name: str, chips_first: bool) -> None:
    guest = boot(f"""
    start:
        ENABLE_APIC
        {THAWS[name]}
        STOP
        sti
    1:  hlt
        jmp 1b
    awake:
        END 7
    """)
    guest.run()
    guest.thaw(chips_first=chips_first)
    assert guest.run() == 7


@pytest.mark.parametrize("chips_first", [True, False])
def test_a_halted_cpu_of_an_old_vm_is_woken_by_a_line_of_the_new_one(boot: Boot, chips_first: bool) -> None:
    guest = boot("""
    start:
        ENABLE_APIC
        PIN 5, 0x45
        ON 0x45, awake
        STOP
        sti
        hlt
        END 1
    awake:
        END 7
    """)
    guest.run()
    while guest.vm.vcpus[0].save().mp_state != HALTED:
        threading.Timer(0.02, guest.kick).start()
        assert guest.run_once() == KICKED
    guest.thaw(chips_first=chips_first)
    guest.pulse(5)  # no runner runs: this thread may stand in for it
    assert guest.run() == 7


@pytest.mark.parametrize("chips_first", [True, False])
def test_all_cpus_go_on_in_a_new_vm(boot: Boot, chips_first: bool) -> None:
    """Three CPUs count, the fourth has not been started yet and is started in the new VM."""
    guest = boot(
        """
    start:
        mov r15d, LAPIC
        mov dword ptr [r15 + 0xf0], 0x1ff
        .irp cpu, 1, 2
        mov dword ptr [r15 + 0x310], \\cpu << 24
        mov dword ptr [r15 + 0x300], 0x4500
        mov dword ptr [r15 + 0x300], 0x4608
        .endr
    1:  pause
        cmp dword ptr [counts + 4], 1000
        jb 1b
        cmp dword ptr [counts + 8], 1000
        jb 1b
        STOP
        mov eax, [counts + 4]
        add eax, 1000
    2:  pause
        cmp [counts + 4], eax
        jb 2b
        mov dword ptr [r15 + 0x310], 3 << 24
        mov dword ptr [r15 + 0x300], 0x4500
        mov dword ptr [r15 + 0x300], 0x4608
    3:  pause
        cmp dword ptr [counts + 12], 1000
        jb 3b
        END
    ap_start:                               # EBX: which CPU; ESI counts beside the memory
        xor esi, esi
    4:  inc esi
        inc dword ptr [counts + 4 * rbx]
        cmp [counts + 4 * rbx], esi
        je 4b
        SAY 0xbad
        jmp 4b
    counts: .long 0, 0, 0, 0
    """,
        vcpus=4,
    )
    guest.run()
    assert [vcpu.save().mp_state for vcpu in guest.vm.vcpus] == [RUNNABLE] * 3 + [UNINITIALIZED]
    guest.thaw(chips_first=chips_first)
    guest.run()
    assert guest.bus.said() == []


def test_the_time_stamp_counter_does_not_go_back_in_a_new_vm(boot: Boot) -> None:
    guest = boot("""
    start:
        rdtsc
        mov [HEAP], eax
        mov [HEAP + 4], edx
        STOP
        rdtsc
        mov [HEAP + 8], eax
        mov [HEAP + 12], edx
        END
    """)
    guest.run()
    before = guest.number(guests.HEAP)
    guest.thaw()
    guest.run()
    assert guest.number(guests.HEAP + 8) > before


def test_a_copy_of_a_guest_computes_what_the_original_does(boot: Boot) -> None:
    """The state and the memory are all there is: two machines from one moment end alike."""
    guest = boot("""
    start:
        mov rax, 12345
        mov ecx, 1000
        call work
        STOP
        mov ecx, 1000
        call work
        END eax
    work:
        mov rsi, 6364136223846793005
    1:  imul rax, rsi
        add rax, 1442695
        xor [HEAP], rax
        loop 1b
        ret
    """)
    guest.run()
    state, memory = guest.vm.vcpus[0].save(), guest.memory.read(0, 8 << 20)
    first, cell = guest.run(), guest.number(guests.HEAP)
    guest.memory.write(0, memory)
    guest.vm.vcpus[0].load(state)
    assert (guest.run(), guest.number(guests.HEAP)) == (first, cell)
