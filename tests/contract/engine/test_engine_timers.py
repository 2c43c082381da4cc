"""Timers: the local APIC's three modes and the 8254, counting, ticking and waking."""

import random
from typing import Final

import pytest

from tests.contract.engine import guests
from tests.contract.engine.harness import Boot

COUNT: Final = """
    count:
        inc dword ptr [interrupts]
        EOI
        ret
    interrupts: .long 0
"""


def test_interrupts_do_not_disturb_a_computation(boot: Boot) -> None:
    """A fast periodic timer against a loop that uses all registers and flags."""
    guest = boot(
        """
    start:
        ENABLE_APIC
        ON 0x40, count
        APIC 0x3e0, 0xb                     # divide by 1
        APIC 0x320, 0x20040                 # periodic
        APIC 0x380, 200000
        mov rax, 1
        mov rbx, 0x123456789
        mov ecx, 20000
        xor edx, edx
        mov rsi, 6364136223
        sti
    1:  imul rax, rsi
        adc rdx, rax
        rol rbx, 7
        sbb rbx, rdx
        loop 1b
        cli
        mov [got], rax
        mov [got + 8], rdx
        mov [got + 16], rbx
    wait:
        sti
        hlt
        cmp dword ptr [interrupts], 3
        jb wait
        cli
        END
    got: .quad 0, 0, 0
    """
        + COUNT
    )
    guest.run()
    mask = (1 << 64) - 1
    rax, rbx, rdx = 1, 0x123456789, 0
    for _ in range(20000):
        product = _signed(rax) * 6364136223
        rax = product & mask
        carry = int(_signed(rax) != product)
        total = rdx + rax + carry
        rdx = total & mask
        carry = total >> 64
        rbx = (rbx << 7 | rbx >> 57) & mask
        carry = rbx & 1  # ROL leaves the bit it moved around in CF
        rbx = (rbx - rdx - carry) & mask
    assert guest.numbers("got", 3) == [rax, rdx, rbx]
    assert {t.vector for t in guest.traps()} == {0x40}


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def test_a_one_shot_timer_wakes_a_halted_cpu_once(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        ON 0x40, count
        APIC 0x3e0, 0xb
        APIC 0x320, 0x40
        APIC 0x380, 100000
        sti
        hlt
        cli
        mov r15d, LAPIC
        mov eax, [r15 + 0x390]              # the count has run out and stays there
        mov [left], eax
        mov ecx, 20000
    1:  sti
        nop
        cli
        loop 1b
        END
    left: .long 77
    """
        + COUNT
    )
    guest.run()
    assert guest.number("interrupts", 4) == 1
    assert guest.number("left", 4) == 0


def test_a_periodic_timer_ticks_until_it_is_stopped(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        ON 0x40, count
        APIC 0x3e0, 0xb
        APIC 0x320, 0x20040
        APIC 0x380, 50000
    1:  sti
        hlt
        cli
        cmp dword ptr [interrupts], 50
        jb 1b
        APIC 0x380, 0
        sti                                 # one may have been pending
        nop
        cli
        mov eax, [interrupts]
        mov [ticks], eax
        mov r15d, LAPIC
        mov ebx, 100
    2:  mov eax, [r15 + 0x390]
        or [left], eax
        sti
        nop
        cli
        dec ebx
        jnz 2b
        END
    ticks: .long 0
    left: .long 0
    """
        + COUNT
    )
    guest.run()
    assert guest.number("ticks", 4) >= 50
    assert guest.number("interrupts", 4) == guest.number("ticks", 4)
    assert guest.number("left", 4) == 0


def test_a_timer_interrupts_a_loop_that_never_halts(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        ON 0x40, count
        APIC 0x3e0, 0xb
        APIC 0x320, 0x20040
        APIC 0x380, 1000000
        sti
    1:  cmp dword ptr [interrupts], 5
        jb 1b
        cli
        END
    """
        + COUNT
    )
    guest.run()
    assert {t.vector for t in guest.traps()} == {0x40}


def test_a_long_string_move_is_interrupted_and_resumed(boot: Boot) -> None:
    """256 KiB by REP MOVSB with a fast timer: whole, and interrupted nowhere but at the instruction itself."""
    guest = boot("""
    start:
        ENABLE_APIC
        ON 0x40, tick
        APIC 0x3e0, 0xb
        APIC 0x320, 0x20040
        APIC 0x380, 100000
    more:
        mov esi, HEAP
        mov edi, HEAP + 0x100000
        mov ecx, 0x40000
        cld
        sti
        nop                                 # the shadow of STI must not cover the whole move
    move:
        rep movsb
        cli
        mov esi, HEAP
        mov edi, HEAP + 0x100000
        mov ecx, 0x40000 / 8
        repe cmpsq
        jne wrong
        cmp dword ptr [inside], 3
        jb more
        END 1
    wrong:
        END 2
    tick:
        lea rax, [rip + move]
        cmp [rdi + 16], rax
        jne 1f
        inc dword ptr [inside]
    1:  mov dword ptr [log_count], 0
        EOI
        ret
    inside: .long 0
    """)
    guest.memory.write(guests.HEAP, random.Random(6).randbytes(0x40000))
    assert guest.run() == 1


def test_a_timer_interrupts_user_code_and_returns_to_it(boot: Boot) -> None:
    guest = boot("""
    start:
        ENABLE_APIC
        ON 0x40, tick
        APIC 0x3e0, 0xb
        APIC 0x320, 0x20040
        APIC 0x380, 100000
        CATCH back
        ENTER_USER user
    user:
        mov eax, 0x12345
    1:  cmp dword ptr [USER + ticks], 5
        jae 2f
        cmp eax, 0x12345
        je 1b
    2:  LEAVE_USER
    back:
        END eax
    tick:
        inc dword ptr [ticks]
        EOI
        ret
    ticks: .long 0
    """)
    assert guest.run() == 0x12345
    ticks = [t for t in guest.traps() if t.vector == 0x40]
    assert len(ticks) >= 5
    assert all((t.cs, t.ss) == (guests.USER_CODE, guests.USER_DATA) for t in ticks)


def test_a_masked_timer_counts_but_does_not_interrupt(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        ON 0x40, count
        APIC 0x3e0, 0xb
        APIC 0x320, 0x10040
        APIC 0x380, 100000
        sti
        mov r15d, LAPIC
    1:  cmp dword ptr [r15 + 0x390], 0
        jne 1b
        nop
        cli
        END
    """
        + COUNT
    )
    guest.run()
    assert guest.number("interrupts", 4) == 0


def test_the_timer_count_falls_and_the_divider_slows_it(boot: Boot) -> None:
    guest = boot("""
    start:
        ENABLE_APIC
        APIC 0x320, 0x10040
        APIC 0x3e0, 0xb                     # divide by 1
        APIC 0x380, 0xffffffff
        mov eax, [r15 + 0x390]
        mov [got], eax
        mov ecx, 3000
    1:  loop 1b
        mov eax, [r15 + 0x390]
        mov [got + 4], eax
        mov eax, [r15 + 0x380]
        mov [got + 8], eax
        END
    got: .long 0, 0, 0
    """)
    guest.run()
    first, second, initial = guest.numbers("got", 3, 4)
    assert second < first < 0xFFFFFFFF
    assert initial == 0xFFFFFFFF


def test_a_tsc_deadline_fires_where_cpuid_offers_it(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        mov eax, 1
        cpuid
        bt ecx, 24
        jnc 9f
        ON 0x40, count
        APIC 0x320, 0x40040
        rdtsc
        shl rdx, 32
        lea rax, [rax + rdx + 3000000]
        mov rdx, rax
        shr rdx, 32
        mov ecx, 0x6e0
        wrmsr
        sti
        hlt
        cli
        rdmsr
        or eax, edx
        mov [left], eax
        END 1
    9:  END 2
    left: .long 77
    """
        + COUNT
    )
    if guest.run() == 2:
        pytest.skip("the guest's CPUID does not offer a TSC deadline timer")
    assert guest.number("interrupts", 4) == 1
    assert guest.number("left", 4) == 0


def test_the_pit_ticks_through_pin_0(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        PIN 0, 0x30
        PIN 2, 0x30                         # KVM routes the PIT's line to pin 2, as PCs do
        ON 0x30, count
        mov al, 0x34                        # channel 0, low then high, rate generator
        out 0x43, al
        mov al, 0x00
        out 0x40, al
        mov al, 0x08                        # 2048 / 1.193 MHz
        out 0x40, al
    1:  sti
        hlt
        cli
        cmp dword ptr [interrupts], 10
        jb 1b
        END
    """
        + COUNT
    )
    guest.run()
    assert {t.vector for t in guest.traps()} == {0x30}


def test_the_pit_counts_down_channel_2_behind_port_61(boot: Boot) -> None:
    guest = boot("""
    start:
        in al, 0x61
        and al, 0xfc
        or al, 1                            # gate on, speaker off
        out 0x61, al
        mov al, 0xb0                        # channel 2, low then high, interrupt on terminal count
        out 0x43, al
        mov al, 0x00
        out 0x42, al
        mov al, 0x10
        out 0x42, al
        in al, 0x61
        mov [got], al
    1:  in al, 0x61
        test al, 0x20
        jz 1b
        END
    got: .byte 0
    """)
    guest.run()
    assert guest.number("got", 1) & 0x21 == 1
    assert [a for a in guest.bus.log if a.addr != guests.PORT_END] == []
