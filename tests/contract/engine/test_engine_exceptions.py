"""Exceptions: each gives the vector, error code, RIP and CR2 of the Intel manual (SDM vol. 3, chapter 6)."""

from typing import Final, NamedTuple

import pytest

from hibana.engine.interface import SHUTDOWN
from tests.contract.engine import guests
from tests.contract.engine.guests import ABSENT_DATA
from tests.contract.engine.harness import Boot


class Case(NamedTuple):
    """An instruction that must not simply work, run in ring 0 between `before` and a label `next`."""

    instruction: str
    vector: int
    error: int = 0
    before: str = ""
    at: str = "fault"  # faults point to the instruction, traps behind it (`next`)


CASES: Final = {
    "#DE division by zero": Case("div ecx", 0, before="mov eax, 1; xor edx, edx; xor ecx, ecx"),
    "#DE quotient too large": Case("div cl", 0, before="mov eax, 0x1000; mov ecx, 1"),
    "#DE idiv of the smallest number by -1": Case("idiv ecx", 0, before="mov eax, 1 << 31; cdq; mov ecx, -1"),
    "#DB by INT1": Case(".byte 0xf1", 1, at="next"),
    "#BP by INT3": Case("int3", 3, at="next"),
    "#BP by INT 3": Case(".byte 0xcd, 3", 3, at="next"),
    "#OF by INT 4": Case("int 4", 4, at="next"),
    "#UD by UD2": Case("ud2", 6),
    "#UD by UD1": Case(".byte 0x0f, 0xb9, 0xc0", 6),
    "#UD by INTO in 64-bit mode": Case(".byte 0xce", 6),
    "#UD by PUSH ES in 64-bit mode": Case(".byte 0x06", 6),
    "#UD by LOCK without a memory operand": Case(".byte 0xf0, 0x01, 0xc0", 6),
    "#UD by MOV from CR1": Case(".byte 0x0f, 0x20, 0xc8", 6),
    "#UD by LEA of a register": Case(".byte 0x8d, 0xc0", 6),
    "#UD by SSE when CR0.EM": Case("xorps xmm0, xmm0", 6, before="mov rax, cr0; or al, 4; mov cr0, rax"),
    "#UD by SSE without CR4.OSFXSR": Case("xorps xmm0, xmm0", 6, before="mov rax, cr4; and ah, 0xfd; mov cr4, rax"),
    "#UD by SYSCALL without EFER.SCE": Case("syscall", 6, before="mov ecx, 0xc0000080; rdmsr; and al, 0xfe; wrmsr"),
    "#NM by x87 when CR0.TS": Case("fld1", 7, before="mov rax, cr0; or al, 8; mov cr0, rax"),
    "#NM by SSE when CR0.TS": Case("xorps xmm0, xmm0", 7, before="mov rax, cr0; or al, 8; mov cr0, rax"),
    "#NM by x87 when CR0.EM": Case("fld1", 7, before="mov rax, cr0; or al, 4; mov cr0, rax"),
    "#NM by WAIT when CR0.MP and TS": Case("fwait", 7, before="mov rax, cr0; or al, 0xa; mov cr0, rax"),
    "#NP by a data segment": Case("mov ds, eax", 11, error=ABSENT_DATA, before=f"mov eax, {ABSENT_DATA}"),
    "#NP by a gate": Case("int 0x90", 11, error=0x90 * 8 + 2),
    "#SS by a non-canonical stack": Case("push rax", 12, before="mov rbp, rsp; mov rsp, 0x800000000000"),
    "#SS by a non-canonical address through RBP": Case("mov eax, [rbp]", 12, before="mov rbp, 0x800000000008"),
    "#SS by a stack segment": Case("mov ss, eax", 12, error=ABSENT_DATA, before=f"mov eax, {ABSENT_DATA}"),
    "#GP by a non-canonical address": Case("mov eax, [rax]", 13, before="mov rax, 0x800000000000"),
    "#GP by a jump to a non-canonical address": Case("jmp rax", 13, before="mov rax, 0x800000000000"),
    "#GP by a selector beyond the GDT": Case("mov ds, eax", 13, error=0xFF8, before="mov eax, 0xff8"),
    "#GP by a selector into an empty LDT": Case("mov ds, eax", 13, error=0xC, before="mov eax, 0xc"),
    "#GP by code in SS": Case("mov ss, eax", 13, error=8, before="mov eax, 8"),
    "#GP by a vector beyond the IDT": Case("int 0xf8", 13, error=0xF8 * 8 + 2, before="lidt [short_idt]"),
    "#GP by CR0.PG without PE": Case("mov cr0, rax", 13, before="mov rax, cr0; and al, 0xfe"),
    "#GP by CR0.NW without CD": Case("mov cr0, rax", 13, before="mov rax, cr0; or eax, 1 << 29"),
    "#GP by upper bits of CR0": Case("mov cr0, rax", 13, before="mov rax, cr0; bts rax, 40"),
    "#GP by a reserved bit of CR4": Case("mov cr4, rax", 13, before="mov rax, cr4; bts rax, 31"),
    "#GP by clearing CR4.PAE in long mode": Case("mov cr4, rax", 13, before="mov rax, cr4; btr rax, 5"),
    "#GP by upper bits of CR8": Case("mov cr8, rax", 13, before="mov eax, 0x10"),
    "#GP by a reserved bit of EFER": Case("wrmsr", 13, before="mov ecx, 0xc0000080; rdmsr; bts eax, 5"),
    "#GP by clearing EFER.LME while paging": Case("wrmsr", 13, before="mov ecx, 0xc0000080; rdmsr; btr eax, 8"),
    "#GP by a non-canonical LSTAR": Case("wrmsr", 13, before="mov ecx, 0xc0000082; xor eax, eax; mov edx, 0x8000"),
    "#GP by a non-canonical FS base": Case("wrmsr", 13, before="mov ecx, 0xc0000100; xor eax, eax; mov edx, 0x8000"),
    "#GP by reading an unknown MSR": Case("rdmsr", 13, before="mov ecx, 0x40000f00"),
    "#GP by writing an unknown MSR": Case("wrmsr", 13, before="mov ecx, 0x40000f00; xor eax, eax; xor edx, edx"),
    "#GP by an unaligned MOVAPS": Case("movaps xmm0, [HEAP + 1]", 13),
    "#GP by an unaligned FXSAVE": Case("fxsave [HEAP + 8]", 13),
    "#GP by reserved bits of MXCSR": Case("ldmxcsr [bad_mxcsr]", 13),
    "#GP by IRET to a null code segment": Case(
        "iretq", 13, before="mov rbp, rsp; push 0x10; push rbp; push 2; push 0; push offset next"
    ),
    "#GP by IRET when NT": Case("iretq", 13, before="pushfq; or dword ptr [rsp], 1 << 14; popfq"),
    "#GP by LTR of a busy TSS": Case("ltr ax", 13, error=0x18, before="mov eax, 0x18"),
    "#MF by a division by zero, seen at the next instruction": Case(
        "fwait", 16, before="fninit; mov word ptr [HEAP], 0x37b; fldcw [HEAP]; fldz; fld1; fdivrp"
    ),
    "#XM by a division by zero": Case(
        "divss xmm0, xmm1", 19, before="ldmxcsr [no_zero_mask]; xorps xmm1, xmm1; movss xmm0, [one]"
    ),
}
DATA: Final = """
    .balign 16
short_idt: .word 0x8ff; .quad 0x2000
bad_mxcsr: .long 0x10000
no_zero_mask: .long 0x1d80
one: .float 1.0
"""


@pytest.mark.parametrize("name", CASES)
def test_an_exception_is_delivered_precisely(boot: Boot, name: str) -> None:
    case = CASES[name]
    guest = boot(f"""
    start:
        CATCH done
        {case.before}
    fault:
        {case.instruction}
    next:
        mov qword ptr [went_on], 1
    done:
        mov rsp, 0x41000
        END
    went_on: .quad 0
    {DATA}
    """)
    guests.write_gate(guest.memory, 0x90, kind=0x0E)
    guests.write_gate(guest.memory, 12, ist=1)  # the ordinary stack may be what is wrong
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error) == (case.vector, case.error)
    assert trap.rip == guest.label(case.at)
    assert guest.number("went_on") == 0
    assert (trap.cs, trap.ss) == (guests.KERNEL_CODE, guests.KERNEL_DATA)


def test_into_traps_in_compatibility_mode(boot: Boot) -> None:
    guest = boot(f"""
    start:
        CATCH done
        mov eax, 0x7fffffff
        push {guests.KERNEL_CODE_32}
        push offset narrow
        retfq
    .code32
    narrow:
        inc eax
        into
    next:
        hlt
    .code64
    done:
        END
    """)
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.rip, trap.cs) == (4, guest.label("next"), guests.KERNEL_CODE_32)


def test_bound_faults_in_compatibility_mode(boot: Boot) -> None:
    guest = boot(f"""
    start:
        CATCH done
        mov eax, 11
        push {guests.KERNEL_CODE_32}
        push offset fault
        retfq
    .code32
    fault:
        .byte 0x62, 0x05                    # bound eax, [limits]
        .long limits
        hlt
    .code64
    done:
        END
    limits: .long 1, 10
    """)
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.rip) == (5, guest.label("fault"))


# --- single steps -----------------------------------------------------------------------------------------------------


def test_the_trap_flag_steps_through_every_instruction(boot: Boot) -> None:
    guest = boot("""
    start:
        ON 1, note
        pushfq
        or dword ptr [rsp], 0x100
        popfq
    a:  nop
    b:  mov eax, 7
    c:  push rax
    d:  pop rax
    e:  jmp f
        nop
    f:  pushfq
    g:  and dword ptr [rsp], ~0x100
    h:  popfq
    i:  nop
    j:  nop
        END
    note:
        mov rax, dr6
        mov [status], rax
        xor eax, eax
        mov dr6, rax
        ret
    status: .quad 0
    """)
    guest.run()
    assert {t.vector for t in guest.traps()} == {1}
    assert [t.rip for t in guest.traps()] == [guest.label(x) for x in "bcdefghi"]
    assert guest.number("status") & 0x4000  # BS
    assert all(t.rflags & 0x100 for t in guest.traps()[:-1])


def test_a_single_step_waits_for_the_instruction_after_mov_ss(boot: Boot) -> None:
    guest = boot("""
    start:
        ON 1, ignore
        mov ecx, 0x10
        pushfq
        or dword ptr [rsp], 0x100
        popfq
    a:  mov ss, ecx
    b:  nop
    c:  pushfq
    d:  and dword ptr [rsp], ~0x100
    e:  popfq
    f:  END
    ignore:
        ret
    """)
    guest.run()
    assert [t.rip for t in guest.traps()] == [guest.label(x) for x in "cdef"]


def test_a_single_step_sees_each_iteration_of_a_repeated_string(boot: Boot) -> None:
    guest = boot("""
    start:
        ON 1, ignore
        mov edi, HEAP
        mov ecx, 3
        pushfq
        or dword ptr [rsp], 0x100
        popfq
    a:  rep stosb
    b:  pushfq
    c:  and dword ptr [rsp], ~0x100
    d:  popfq
    e:  END
    ignore:
        ret
    """)
    guest.run()
    assert [t.rip for t in guest.traps()] == [guest.label(x) for x in "aabcde"]


# --- alignment checks, double and triple faults -----------------------------------------------------------------------


def test_alignment_checks_catch_user_code_that_asks_for_them(boot: Boot) -> None:
    guest = boot(f"""
    start:
        mov rax, cr0
        bts rax, 18                         # AM
        mov cr0, rax
        CATCH done
        ENTER_USER user, 0x40202            # AC
    user:
        mov eax, [USER + {guests.HEAP:#x}]
    fault:
        mov eax, [USER + {guests.HEAP:#x} + 1]
        LEAVE_USER
    done:
        END
    """)
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error, trap.rip) == (17, 0, guests.USER + guest.label("fault"))


DOUBLE_FAULTS: Final = {
    "a page fault whose gate is absent": "mov byte ptr [0x2000 + 16 * 14 + 5], 0x0e; mov eax, [PAGES]",
    "a page fault without a stack": "mov esp, PAGES + 0x800; mov eax, [PAGES]",
    "a general protection fault whose gate is absent": "mov byte ptr [0x2000 + 16 * 13 + 5], 0x0e; mov ds, ecx",
}


@pytest.mark.parametrize("name", DOUBLE_FAULTS)
def test_a_fault_during_delivery_becomes_a_double_fault(boot: Boot, name: str) -> None:
    """#DF runs on an IST stack, as in any kernel that wants to survive its own stack overflow."""
    guest = boot(f"start: ON 8, caught; mov ecx, 0xff8; {DOUBLE_FAULTS[name]}; nop; caught: mov esp, 0x41000; END 8")
    guests.write_gate(guest.memory, 8, ist=1)
    assert guest.run() == 8
    (trap,) = guest.traps()
    assert (trap.vector, trap.error) == (8, 0)


def test_a_contributory_fault_during_another_becomes_a_double_fault(boot: Boot) -> None:
    """#DE, whose gate is absent, gives #NP: two contributory exceptions (SDM table 6-5)."""
    guest = boot("""
    start:
        ON 8, caught
        mov byte ptr [0x2000 + 5], 0x0e
        xor ecx, ecx
        div ecx
    caught:
        END 8
    """)
    assert guest.run() == 8
    assert [t.vector for t in guest.traps()] == [8]


def test_a_benign_exception_without_a_gate_is_only_the_second_fault(boot: Boot) -> None:
    """#UD is benign: its absent gate gives #NP, not #DF."""
    guest = boot("start: CATCH done; mov byte ptr [0x2000 + 16 * 6 + 5], 0x0e; fault: ud2; done: END")
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error & ~1, trap.rip) == (11, 6 * 8 + 2, guest.label("fault"))


TRIPLE_FAULTS: Final = {
    "an empty IDT": "lidt [empty]; ud2",
    "no gate for the double fault": "mov byte ptr [0x2000 + 16 * 8 + 5], 0; mov esp, PAGES + 0x800; mov eax, [PAGES]",
    "lost page tables": "xor eax, eax; mov cr3, rax; nop",
}


@pytest.mark.parametrize("name", TRIPLE_FAULTS)
def test_a_triple_fault_shuts_the_vm_down(boot: Boot, name: str) -> None:
    guest = boot(f"start: {TRIPLE_FAULTS[name]}; END; empty: .word 0; .quad 0")
    assert guest.run_to_stop() == SHUTDOWN
