"""Model-specific registers as a guest sees them."""

import pytest

from hibana.engine.soft.engine import SoftEngine
from tests.contract.engine import guests
from tests.contract.engine.harness import Boot

GENERAL_PROTECTION = 13


def read(boot: Boot, msr: int) -> int:
    """Execute RDMSR in a guest."""
    guest = boot(f"""
    start:
        mov ecx, {msr}
        rdmsr
        shl rdx, 32
        or rax, rdx
        mov [HEAP], rax
        END
    """)
    guest.run()
    return guest.number(guests.HEAP)


def faults(boot: Boot, msr: int, value: int) -> bool:
    """Execute WRMSR in a guest and tell whether that was a #GP."""
    guest = boot(f"""
    start:
        CATCH done
        mov ecx, {msr}
        mov eax, {value & 0xFFFFFFFF}
        mov edx, {value >> 32}
        wrmsr
    done:
        END
    """)
    guest.run()
    vectors = [trap.vector for trap in guest.traps()]
    assert vectors in ([], [GENERAL_PROTECTION])
    return bool(vectors)


def test_the_apic_base_says_where_the_local_apic_is_and_who_boots(boot: Boot) -> None:
    assert read(boot, 0x1B) == 0xFEE00900


@pytest.mark.parametrize("msr", [0x17, 0x8B, 0x1D9, 0x345])
def test_registers_that_every_kernel_touches_read_zero_and_keep_nothing(boot: Boot, msr: int) -> None:
    guest = boot(f"start: mov ecx, {msr}; mov eax, 1; xor edx, edx; wrmsr; rdmsr; mov [HEAP], rax; END")
    guest.run()
    assert guest.number(guests.HEAP) == 0


@pytest.mark.parametrize(
    ("msr", "value"),
    [
        (0xC0000082, 1 << 47),  # LSTAR must be canonical
        (0x175, 1 << 62),  # SYSENTER_ESP
        (0xC0000100, 0x8000_0000_0000),  # FS base
        (0xC0000102, 0x1234 << 48),  # kernel GS base
        (0xC0000080, 0xD01 | 1 << 12),  # EFER.SVME: there is no SVM
        (0x277, 2),  # a memory type that does not exist
        (0xC0000103, 1 << 32),  # TSC_AUX has 32 bits
        (0xFE, 0),  # read-only
        (0x6E0, 1),  # TSC deadline: not offered
        (0x4B564D01, 1),  # kvm-clock: not offered
    ],
)
def test_what_a_register_cannot_hold_is_a_general_protection_fault(boot: Boot, msr: int, value: int) -> None:
    assert faults(boot, msr, value)


@pytest.mark.parametrize(
    ("msr", "value"),
    [
        (0xC0000082, 0xFFFF_8000_0000_0000),
        (0xC0000100, 0x7FFF_FFFF_FFFF),
        (0xC0000101, 0xFFFF_8888_0000_0000),
        (0x277, 0x0007010600070106),
        (0xC0000103, 0xFFFFFFFF),
    ],
)
def test_what_it_can_hold_is_kept(boot: Boot, msr: int, value: int) -> None:
    guest = boot(f"""
    start:
        mov ecx, {msr}
        mov eax, {value & 0xFFFFFFFF}
        mov edx, {value >> 32}
        wrmsr
        xor eax, eax
        xor edx, edx
        rdmsr
        mov [HEAP], eax
        mov [HEAP + 4], edx
        END
    """)
    guest.run()
    assert guest.number(guests.HEAP) == value


def test_writing_the_time_stamp_counter_moves_it_and_is_noted_in_tsc_adjust(boot: Boot) -> None:
    guest = boot("""
    start:
        mov ecx, 0x10
        xor eax, eax
        mov edx, 0x1000
        wrmsr
        rdtsc
        mov [HEAP], edx
        mov ecx, 0x10
        rdmsr
        mov [HEAP + 4], edx
        mov ecx, 0x3b
        xor eax, eax
        xor edx, edx
        wrmsr                       # as if it had never been adjusted
        rdmsr
        mov [HEAP + 8], rax
        rdtsc
        mov [HEAP + 12], edx
        END
    """)
    guest.run()
    high, read_high, adjust, restored = guest.numbers(guests.HEAP, 4, 4)
    assert (high, read_high, adjust) == (0x1000, 0x1000, 0)
    assert restored < 0x1000_0000


@pytest.mark.parametrize("cr", [0, 4])
def test_lmsw_and_legal_control_registers_still_work(boot: Boot, cr: int) -> None:
    guest = boot(f"""
    start:
        mov rax, cr{cr}
        mov cr{cr}, rax
        smsw ax
        or al, 8
        lmsw ax
        mov rax, cr0
        clts
        and eax, 8
        mov [HEAP], eax
        END
    """)
    guest.run()
    assert guest.number(guests.HEAP, 4) == 8 and guest.traps() == []


def test_rdrand_gives_different_numbers_and_sets_carry(boot: Boot, engine: SoftEngine) -> None:
    guest = boot("""
    start:
        rdrand rax
        jnc bad
        rdrand rbx
        jnc bad
        mov [HEAP], rax
        mov [HEAP + 8], rbx
        END 1
    bad:
        END 2
    """)
    assert guest.run() == 1
    first, second = guest.numbers(guests.HEAP, 2)
    assert first != second


def test_sysenter_from_32_bit_code_reaches_the_kernel(boot: Boot) -> None:
    """As programs of 32 bits enter a 64-bit Linux."""
    guest = boot("""
    start:
        mov ecx, 0x174
        mov eax, 8
        xor edx, edx
        wrmsr
        mov ecx, 0x175
        mov eax, 0x41000
        wrmsr
        mov ecx, 0x176
        lea rax, [entry]
        wrmsr
        push 0x33
        push USER + 0x61000
        push 0x202
        push 0x2b
        push offset USER + user
        iretq
    entry:
        pushfq
        pop rbx
        mov [HEAP], ebx
        mov eax, cs
        mov [HEAP + 4], eax
        mov eax, ss
        mov [HEAP + 8], eax
        END 3
        .code32
    user:
        mov ecx, esp
        sysenter
        ud2
        .code64
    """)
    assert guest.run() == 3
    flags, cs, ss = guest.numbers(guests.HEAP, 3, 4)
    assert (flags & 0x200, cs, ss) == (0, 8, 16)


def test_sysenter_without_a_kernel_entry_is_a_general_protection_fault(boot: Boot) -> None:
    guest = boot("start: CATCH done; fault: sysenter; done: END")
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error, trap.rip) == (GENERAL_PROTECTION, 0, guest.label("fault"))


def test_syscall_in_32_bit_code_is_undefined_as_on_intel(boot: Boot) -> None:
    guest = boot("""
    start:
        CATCH done
        push 0x33
        push USER + 0x61000
        push 0x202
        push 0x2b
        push offset USER + user
        iretq
        .code32
    user:
        syscall
        .code64
    done:
        END
    """)
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.rip) == (6, guests.USER + guest.label("user"))
