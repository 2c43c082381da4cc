"""Several CPUs: INIT and SIPI, interrupts between them, locks, and progress for everyone."""

from typing import Final

import pytest

from hibana.engine.state import RUNNABLE, UNINITIALIZED
from tests.contract.engine import guests
from tests.contract.engine.harness import Boot

SIZES: Final = [2, 4, 8]
SLEEP: Final = "cli\n1: hlt\njmp 1b\n"
WAIT_FOR_ALL: Final = """
    .macro AWAIT cell, value
    777:
        pause
        cmp dword ptr [\\cell], \\value
        jb 777b
    .endm
"""


def test_only_cpu_0_runs_at_first(boot: Boot) -> None:
    guest = boot("start: END; ap_start: hlt", vcpus=4)
    assert [vcpu.save().mp_state for vcpu in guest.vm.vcpus] == [RUNNABLE] + [UNINITIALIZED] * 3
    guest.run()


@pytest.mark.parametrize("count", SIZES)
def test_init_and_sipi_start_every_cpu_with_its_own_apic_id(boot: Boot, count: int) -> None:
    guest = boot(
        WAIT_FOR_ALL
        + f"""
    start:
        START_APS
        AWAIT arrived, {count - 1}
        END
    ap_start:                               # EBX: APIC id from CPUID
        mov r15d, LAPIC
        mov eax, [r15 + 0x20]
        shr eax, 24
        shl eax, 8
        or eax, ebx
        SAY eax
        lock inc dword ptr [arrived]
        {SLEEP}
    arrived: .long 0
    """,
        vcpus=count,
    )
    guest.run()
    assert sorted(guest.bus.said()) == [0x101 * cpu for cpu in range(1, count)]


def test_init_and_sipi_to_one_destination_leave_the_others_asleep(boot: Boot) -> None:
    guest = boot(
        WAIT_FOR_ALL
        + f"""
    start:
        APIC 0xf0, 0x1ff
        APIC 0x310, 2 << 24
        APIC 0x300, 0x4500
        APIC 0x300, 0x4608
        AWAIT arrived, 1
        mov ecx, 20000
    2:  pause
        loop 2b
        END
    ap_start:
        SAY ebx
        lock inc dword ptr [arrived]
        {SLEEP}
    arrived: .long 0
    """,
        vcpus=4,
    )
    guest.run()
    assert guest.bus.said() == [2]
    assert [guest.vm.vcpus[cpu].save().mp_state for cpu in (1, 3)] == [UNINITIALIZED] * 2


def test_a_second_sipi_is_ignored(boot: Boot) -> None:
    guest = boot(
        WAIT_FOR_ALL
        + f"""
    start:
        START_APS
        APIC 0x300, 0xc4608
        AWAIT arrived, 1
        APIC 0x300, 0xc4608
        mov ecx, 20000
    2:  pause
        loop 2b
        END
    ap_start:
        SAY ebx
        lock inc dword ptr [arrived]
        {SLEEP}
    arrived: .long 0
    """,
        vcpus=2,
    )
    guest.run()
    assert guest.bus.said() == [1]


def test_init_stops_a_running_cpu_and_sipi_starts_it_again(boot: Boot) -> None:
    guest = boot(
        WAIT_FOR_ALL
        + """
    start:
        START_APS
        AWAIT arrived, 1
        mov ecx, 30
    2:  pause
        loop 2b
        START_APS
        AWAIT arrived, 2
        END
    ap_start:
        SAY ebx
        lock inc dword ptr [arrived]
    1:  inc qword ptr [work]
        jmp 1b
    arrived: .long 0
    work: .quad 0
    """,
        vcpus=2,
    )
    guest.run()
    assert guest.bus.said() == [1, 1]


# --- shared memory ----------------------------------------------------------------------------------------------------


def _everyone(work: str, count: int, rounds: int) -> str:
    """Let all CPUs do `work` so many times (counter RBP), then end."""
    return (
        WAIT_FOR_ALL
        + f"""
    start:
        START_APS
        xor ebx, ebx
        call everyone
        AWAIT done, {count}
        END
    ap_start:
        call everyone
        {SLEEP}
    everyone:
        lock inc dword ptr [ready]
        AWAIT ready, {count}
        mov ebp, {rounds}
    again:
        {work}
        dec ebp
        jnz again
        lock inc dword ptr [done]
        ret
    ready: .long 0
    done: .long 0
        .balign 64
    lock_: .long 0
    total: .quad 0
    """
    )


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("kicks", [False, True])
def test_locked_additions_are_exact(boot: Boot, count: int, kicks: bool) -> None:
    guest = boot(_everyone("mov eax, 1; lock xadd [total], rax", count, 2000), vcpus=count)
    if kicks:
        with guest.kicked_often():
            guest.run()
    else:
        guest.run()
    assert guest.number("total") == 2000 * count


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("kicks", [False, True])
def test_a_spin_lock_protects_what_it_guards(boot: Boot, count: int, kicks: bool) -> None:
    work = """
        mov eax, 1
    5:  xchg [lock_], eax
        test eax, eax
        jz 6f
        pause
        jmp 5b
    6:  mov rax, [total]
        inc rax
        mov [total], rax
        mov dword ptr [lock_], 0
    """
    guest = boot(_everyone(work, count, 300), vcpus=count)
    if kicks:
        with guest.kicked_often():
            guest.run()
    else:
        guest.run()
    assert guest.number("total") == 300 * count


def test_compare_and_exchange_loops_make_progress(boot: Boot) -> None:
    work = """
    5:  mov rax, [total]
        lea rcx, [rax + 3]
        lock cmpxchg [total], rcx
        jne 5b
    """
    guest = boot(_everyone(work, 4, 1000), vcpus=4)
    guest.run()
    assert guest.number("total") == 3 * 4 * 1000


def test_a_cpu_that_spins_without_pause_does_not_starve_the_others(boot: Boot) -> None:
    guest = boot(
        """
    start:
        START_APS
    1:  cmp dword ptr [flag], 0
        je 1b
        END
    ap_start:
        mov ecx, 100000
    2:  loop 2b
        mov dword ptr [flag], 1
    3:  jmp 3b                              # and spins on itself while CPU 0 ends
    flag: .long 0
    """,
        vcpus=2,
    )
    guest.run()


def test_one_cpu_works_while_the_other_sleeps(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ON 0x50, wake
        START_APS
        sti
        hlt
        cli
        END
    ap_start:
        APIC 0xf0, 0x1ff
        mov ecx, 300000
    2:  loop 2b
        SAY 7
        APIC 0x310, 0
        APIC 0x300, 0x4050
    3:  jmp 3b
    wake:
        EOI
        ret
    """,
        vcpus=2,
    )
    guest.run()
    assert guest.bus.said() == [7]


def test_code_rewritten_by_one_cpu_runs_new_on_another(boot: Boot) -> None:
    """Cross-modification by the book (SDM 9.1.3): the other CPU serialises before it runs the code."""
    guest = boot(
        """
    start:
        START_APS
        mov ebx, 1
    1:  mov [function + 1], ebx
        mov [request], ebx
    2:  pause
        cmp [answer], ebx
        jne 2b
        inc ebx
        cmp ebx, 200
        jne 1b
        END
    ap_start:
        xor esi, esi
    3:  pause
        cmp [request], esi
        je 3b
        mov esi, [request]
        xor eax, eax
        cpuid
        call function
        mov [answer], eax
        jmp 3b
    request: .long 0
    answer: .long 0
        .balign 4096
    function:
        mov eax, 0
        ret
    """,
        vcpus=2,
    )
    guest.run()


def test_code_overwritten_by_a_device_runs_new_on_every_cpu(boot: Boot) -> None:
    """CPU 1 asks the device to write what CPU 0 then runs; both have run the old code."""
    guest = boot(
        """
    start:
        START_APS
        mov ebx, 1
    1:  call function
        mov [request], ebx
    2:  pause
        cmp [answer], ebx
        jne 2b
        push rbx
        xor eax, eax
        cpuid                               # serialises (SDM 9.1.3)
        pop rbx
        call function
        cmp eax, [answer]
        jne wrong
        inc ebx
        cmp ebx, 200
        jne 1b
        END 1
    wrong:
        END 2
    ap_start:
        xor esi, esi
    3:  pause
        cmp [request], esi
        je 3b
        mov esi, [request]
        call function
        ACT esi
        xor eax, eax
        cpuid
        call function
        cmp eax, esi
        jne wrong
        mov [answer], esi
        jmp 3b
    request: .long 0
    answer: .long 0
        .balign 4096
    function:
        mov eax, 0
        ret
    """,
        vcpus=2,
    )
    addr = guest.label("function") + 1
    guest.bus.reactions[guests.PORT_ACT] = lambda value: guest.memory.write(addr, value.to_bytes(4, "little"))
    assert guest.run() == 1


def test_a_page_moved_by_one_cpu_is_seen_by_another_after_invlpg(boot: Boot) -> None:
    guest = boot(
        f"""
    start:
        START_APS
        mov ebx, 1
    1:  mov eax, ebx
        and eax, 1
        shl eax, 12
        add eax, HEAP + 3
        mov [{guests.PT:#x}], rax
        invlpg [PAGES]
        mov [request], ebx
    2:  pause
        cmp [answers], ebx
        jne 2b
        mov ecx, ebx
        and ecx, 1
        inc ecx
        cmp [value], ecx
        jne wrong
        inc ebx
        cmp ebx, 200
        jne 1b
        END 1
    wrong:
        END 2
    ap_start:
        xor esi, esi
    3:  pause
        mov eax, [PAGES]                    # keeps the translation in use
        cmp [request], esi
        je 3b
        mov esi, [request]
        invlpg [PAGES]
        mov eax, [PAGES]
        mov [value], eax
        mov [answers], esi
        jmp 3b
    request: .long 0
    answers: .long 0
    value: .long 0
    """,
        vcpus=2,
    )
    guests.write_page(guest.memory, 0, guests.HEAP | guests.PRESENT)
    guest.memory.write(guests.HEAP, b"\1\0\0\0")
    guest.memory.write(guests.HEAP + 0x1000, b"\2\0\0\0")
    assert guest.run() == 1


def test_port_writes_of_several_cpus_are_each_seen_once(boot: Boot) -> None:
    work = "mov eax, ebx; shl eax, 16; or eax, ebp; out 0x77, eax"
    guest = boot(_everyone(work, 4, 100), vcpus=4)
    with guest.kicked_often():
        guest.run()
    values = [value for _, _, value in guest.bus.seen("port", "write")]
    for cpu in range(4):
        assert [v & 0xFFFF for v in values if v >> 16 == cpu] == list(range(100, 0, -1))


def test_fpu_and_segment_state_belong_to_each_cpu(boot: Boot) -> None:
    work = """
        cvtsi2sd xmm7, rbx
        mov eax, ebx
        inc eax
        mov [200f + 4 * rbx], eax
        fild dword ptr [200f + 4 * rbx]
        mov ecx, 0xc0000100
        mov eax, ebx
        shl eax, 12
        xor edx, edx
        wrmsr
        mov r14d, 50
    7:  pause
        dec r14d
        jnz 7b
        rdmsr
        shr eax, 12
        cmp eax, ebx
        jne 99f
        cvtsd2si rax, xmm7
        cmp rax, rbx
        jne 99f
        fistp dword ptr [200f + 4 * rbx]
        mov eax, [200f + 4 * rbx]
        dec eax
        cmp eax, ebx
        je 8f
    99: lock inc dword ptr [total]
        jmp 8f
    200: .long 0, 0, 0, 0, 0, 0, 0, 0
    8:
    """
    guest = boot(_everyone(work, 4, 30), vcpus=4)
    guest.run()
    assert guest.number("total") == 0
