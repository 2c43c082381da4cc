"""Rings: user code, SYSCALL and SYSRET, IRET, stacks from the TSS, and what ring 3 may not do."""

from typing import Final

import pytest

from tests.contract.engine import guests
from tests.contract.engine.guests import USER
from tests.contract.engine.harness import Boot

STAR: Final = 0x0028_0008 << 32  # SYSRET base 0x28, SYSCALL base 0x08
FORBIDDEN: Final = [
    "hlt",
    "cli",
    "sti",
    "clts",
    "invd",
    "wbinvd",
    "mov rax, cr0",
    "mov cr3, rax",
    "mov rax, dr7",
    "lgdt [rip]",
    "lidt [rip]",
    "ltr ax",
    "lldt ax",
    "lmsw ax",
    "invlpg [rip]",
    "rdmsr",
    "wrmsr",
    "swapgs",
    "sysretq",
    "in al, 0x77",
    "out 0x77, al",
    "insb",
    "rep outsb",
]


def test_ring_3_runs_and_comes_back_by_an_interrupt(boot: Boot) -> None:
    guest = boot(f"""
    start:
        CATCH back
        ENTER_USER user
    user:
        mov eax, 0x1234
        mov [USER + {guests.HEAP:#x}], eax
        LEAVE_USER
    after:
    back:
        END
    """)
    guest.run()
    (trap,) = guest.traps()
    assert guest.number(guests.HEAP, 4) == 0x1234
    assert (trap.vector, trap.rip) == (0x80, USER + guest.label("after"))
    assert (trap.cs, trap.ss, trap.rsp) == (guests.USER_CODE, guests.USER_DATA, USER + guests.USER_STACK)
    assert trap.rflags & 0x3202 == 0x202


@pytest.mark.parametrize("instruction", FORBIDDEN)
def test_ring_3_may_not(boot: Boot, instruction: str) -> None:
    guest = boot(f"""
    start:
        CATCH back
        ENTER_USER user
    user:
        xor eax, eax
        mov ecx, 1
        mov esi, USER + HEAP
        mov edi, USER + HEAP
    fault:
        {instruction}
        nop
    back:
        END
    """)
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error, trap.rip) == (13, 0, USER + guest.label("fault"))
    assert guest.bus.seen("port", "write") == []


def test_ring_3_may_not_call_a_gate_of_ring_0(boot: Boot) -> None:
    guest = boot("start: CATCH back; ENTER_USER user; user: int 0x81; back: END")
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error, trap.rip) == (13, 0x81 * 8 + 2, USER + guest.label("user"))


def test_ring_3_may_not_load_a_segment_of_ring_0(boot: Boot) -> None:
    guest = boot("start: CATCH back; ENTER_USER user; user: mov eax, 0x10; fault: mov ds, eax; back: END")
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error, trap.rip) == (13, 0x10, USER + guest.label("fault"))


def test_ring_3_with_iopl_3_may_use_ports_and_cli(boot: Boot) -> None:
    guest = boot("""
    start:
        CATCH back
        ENTER_USER user, 0x3202
    user:
        cli
        mov al, 5
        out 0x77, al
        sti
        LEAVE_USER
    back:
        END
    """)
    guest.run()
    assert guest.bus.seen("port", "write") == [(0x77, 1, 5)]
    assert [t.vector for t in guest.traps()] == [0x80]


@pytest.mark.parametrize(("width", "allowed"), [("al", True), ("ax", False)])
def test_the_io_bitmap_opens_single_ports_to_ring_3(boot: Boot, width: str, allowed: bool) -> None:
    """Port 0x77 is open and 0x78 is not, so a two-byte access is refused."""
    guest = boot(f"""
    start:
        btr dword ptr [{guests.TSS + 104 + 0x77 // 8:#x}], {0x77 % 8}
        CATCH back
        ENTER_USER user
    user:
        mov eax, 9
        out 0x77, {width}
        LEAVE_USER
    back:
        END
    """)
    guest.run()
    assert [t.vector for t in guest.traps()] == [0x80 if allowed else 13]
    assert len(guest.bus.seen("port", "write")) == (1 if allowed else 0)


def test_popf_in_ring_3_leaves_the_interrupt_flag_alone(boot: Boot) -> None:
    guest = boot("""
    start:
        CATCH back
        ENTER_USER user
    user:
        push 0x3002                         # IF clear, IOPL 3: both ignored
        popfq
        LEAVE_USER
    back:
        END
    """)
    guest.run()
    (trap,) = guest.traps()
    assert trap.rflags & 0x3200 == 0x200


def test_an_interrupt_from_ring_3_takes_the_stack_of_the_tss(boot: Boot) -> None:
    guest = boot("""
    start:
        CATCH back
        ON 3, look
        ENTER_USER user
    user:
        int3
        LEAVE_USER
    back:
        END
    look:
        mov [stack], rdi
        mov word ptr [selectors], ss
        mov word ptr [selectors + 2], cs
        pushfq
        pop qword ptr [flags]
        ret
    stack: .quad 0
    flags: .quad 0
    selectors: .word 0xffff, 0xffff
    """)
    guest.run()
    # RDI points to the vector, below the error code and the five words the CPU pushed on RSP0.
    assert guest.number("stack") == guests.RSP0 - 5 * 8 - 2 * 8
    assert guest.numbers("selectors", 2, 2) == [0, guests.KERNEL_CODE]  # SS is null after a change of ring
    assert guest.number("flags") & 0x200 == 0  # an interrupt gate clears IF


def test_a_trap_gate_leaves_the_interrupt_flag_set(boot: Boot) -> None:
    guest = boot("""
    start:
        CATCH back
        ON 3, look
        ENTER_USER user
    user:
        int3
        LEAVE_USER
    back:
        END
    look:
        pushfq
        pop qword ptr [flags]
        cli
        ret
    flags: .quad 0
    """)
    guests.write_gate(guest.memory, 3, dpl=3, kind=0x8F)
    guest.run()
    assert guest.number("flags") & 0x200


@pytest.mark.parametrize("ist", [1, 2])
@pytest.mark.parametrize("ring", [0, 3])
def test_an_ist_gate_takes_its_own_stack(boot: Boot, ist: int, ring: int) -> None:
    guest = boot(f"""
    start:
        CATCH back
        .if {ring} == 3
        ENTER_USER fault
        .endif
        mov rax, rsp
        mov [before], rax
    fault:
        ud2
    back:
        mov [after], rsp
        END
    before: .quad 0
    after: .quad 0
    """)
    guests.write_gate(guest.memory, 6, ist=ist)
    guest.memory.write(guest.label("stubs") + 16 * 6, _note_rsp(guest.label("stubs") + 16 * 6, guest.label("trap")))
    guest.run()
    (trap,) = guest.traps()
    assert trap.error == guests.IST[ist - 1] - 5 * 8
    assert trap.cs == (guests.KERNEL_CODE if ring == 0 else guests.USER_CODE)
    if ring == 0:
        assert guest.number("before") == guest.number("after") == trap.rsp


def _note_rsp(at: int, trap: int) -> bytes:
    """Assemble a stub that passes RSP off as the error code: push rsp; push 6; jmp trap."""
    return bytes.fromhex("54 6a 06 e9") + (trap - (at + 8)).to_bytes(4, "little", signed=True)


def test_the_stack_is_aligned_before_an_interrupt_frame_is_pushed(boot: Boot) -> None:
    guest = boot("start: CATCH back; mov esp, 0x40ff3; fault: ud2; back: END")
    guest.memory.write(guest.label("stubs") + 16 * 6, _note_rsp(guest.label("stubs") + 16 * 6, guest.label("trap")))
    guest.run()
    (trap,) = guest.traps()
    assert trap.error == 0x40FF0 - 5 * 8
    assert trap.rsp == 0x40FF3


# --- SYSCALL ----------------------------------------------------------------------------------------------------------

SYSCALL_SETUP: Final = f"""
    start:
        SET_MSR 0xc0000081, {STAR:#x}
        SET_MSR_TO 0xc0000082, entry
        SET_MSR 0xc0000084, {{mask:#x}}
        CATCH back
        ENTER_USER user, {{flags:#x}}
    back:
        END
"""


def test_syscall_saves_rip_and_flags_and_masks_flags(boot: Boot) -> None:
    guest = boot(
        SYSCALL_SETUP.format(mask=0x4_0700, flags=0x202)
        + """
    user:
        mov eax, 7
        stc
        std
        syscall
    after:
        hlt
    entry:
        mov [regs], rcx
        mov [regs + 8], r11
        mov [regs + 16], rsp
        mov rsp, [kernel_rsp]
        pushfq
        pop qword ptr [regs + 24]
        mov ecx, cs
        mov [regs + 32], rcx
        mov ecx, ss
        mov [regs + 40], rcx
        cld
        END
    regs: .quad 0, 0, 0, 0, 0, 0
    """
    )
    guest.run()
    rcx, r11, rsp, flags, cs, ss = guest.numbers("regs", 6)
    assert rcx == USER + guest.label("after")
    assert r11 & 0xD5 == 0x01 and r11 & 0x602 == 0x602 and not r11 & 0x10000
    assert rsp == USER + guests.USER_STACK  # SYSCALL does not change the stack
    assert flags & 0x40700 == 0 and flags & 1  # IF, DF, TF, AC are masked, CF is not
    assert (cs, ss) == (guests.KERNEL_CODE, guests.KERNEL_DATA)


@pytest.mark.parametrize("flags", [0x202, 0x246, 0xAD7])
def test_syscall_and_sysret_bring_everything_back(boot: Boot, flags: int) -> None:
    """A thousand round trips; R11's flags return, RSP and the other registers are untouched."""
    guest = boot(
        SYSCALL_SETUP.format(mask=0x47700, flags=0x202)
        + f"""
    user:
        mov rbx, 1000
        mov rbp, rsp
    again:
        push {flags}
        popfq
        mov edx, 0x55
        syscall
        pushfq
        pop rax
        cld
        cmp rsp, rbp
        jne wrong
        cmp eax, {flags}
        jne wrong
        cmp edx, 0x56
        jne wrong
        mov eax, cs
        cmp eax, {guests.USER_CODE}
        jne wrong
        mov eax, ss
        cmp eax, {guests.USER_DATA}
        jne wrong
        dec rbx
        jnz again
    wrong:
        LEAVE_USER
    entry:
        inc edx
        inc dword ptr [calls]
        sysretq
    calls: .long 0
    """
    )
    guest.run()
    assert guest.number("calls", 4) == 1000
    (trap,) = guest.traps()
    assert (trap.vector, trap.cs, trap.ss) == (0x80, guests.USER_CODE, guests.USER_DATA)


def test_an_interrupt_flag_masked_by_syscall_holds_interrupts_until_sysret(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        SET_MSR 0xc0000081, 0x0028000800000000
        SET_MSR_TO 0xc0000082, entry
        SET_MSR 0xc0000084, 0x200
        ON 0x60, count
        CATCH back
        ENTER_USER user
    user:
        syscall
    after:
        nop
        nop
        LEAVE_USER
    back:
        END
    entry:
        mov r14d, LAPIC
        mov dword ptr [r14 + 0x300], 0x40060    # an interrupt to myself
        mov eax, 100
    1:  dec eax
        jnz 1b
        mov eax, [interrupts]
        mov [at_sysret], eax
        sysretq
    count:
        inc dword ptr [interrupts]
        EOI
        ret
    interrupts: .long 0
    at_sysret: .long 77
    """
    )
    guest.run()
    assert guest.number("at_sysret", 4) == 0
    assert guest.number("interrupts", 4) == 1
    interrupt = guest.traps()[0]
    assert (interrupt.vector, interrupt.cs, interrupt.rip) == (0x60, guests.USER_CODE, USER + guest.label("after"))


def test_sysret_can_return_to_32_bit_code(boot: Boot) -> None:
    guest = boot(f"""
    start:
        SET_MSR 0xc0000081, {STAR:#x}
        CATCH back
        mov [kernel_rsp], rsp
        mov ecx, offset USER + narrow
        mov r11d, 0x202
        mov esp, USER + {guests.USER_STACK:#x}
        sysretd
    .code32
    narrow:
        mov eax, 0x11111111
        dec eax                             # in 64-bit mode: a REX prefix
        inc eax
        mov [USER + {guests.HEAP:#x}], eax
        int 0x80
    .code64
    back:
        END
    """)
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.cs, trap.ss) == (0x80, guests.USER_CODE_32, guests.USER_DATA)
    assert guest.number(guests.HEAP, 4) == 0x11111111


def test_swapgs_exchanges_the_gs_bases(boot: Boot) -> None:
    guest = boot("""
    start:
        SET_MSR 0xc0000101, HEAP            # GS.base
        SET_MSR 0xc0000102, HEAP + 0x1000   # KERNEL_GS_BASE
        mov dword ptr gs:[0], 1
        swapgs
        mov dword ptr gs:[0], 2
        mov ecx, 0xc0000101
        rdmsr
        mov [got], eax
        mov ecx, 0xc0000102
        rdmsr
        mov [got + 4], eax
        swapgs
        mov dword ptr gs:[4], 3
        END
    got: .long 0, 0
    """)
    guest.run()
    assert guest.numbers("got", 2, 4) == [guests.HEAP + 0x1000, guests.HEAP]
    assert guest.numbers(guests.HEAP, 2, 4) == [1, 3]
    assert guest.number(guests.HEAP + 0x1000, 4) == 2


def test_sysenter_and_sysexit_go_to_ring_0_and_back(boot: Boot) -> None:
    """Only Intel's CPUs have SYSENTER in 64-bit mode."""
    guest = boot(f"""
    start:
        xor eax, eax
        cpuid
        cmp ecx, 0x6c65746e                 # "ntel"
        jne not_intel
        SET_MSR 0x174, {guests.KERNEL_CODE}
        SET_MSR 0x175, 0x40800
        SET_MSR_TO 0x176, entry
        CATCH back
        ENTER_USER user
    not_intel:
        END 2
    user:
        sysenter
    entry:
        mov [got], rsp
        mov word ptr [got + 8], cs
        mov word ptr [got + 10], ss
        SET_MSR 0x174, 0x18                 # SYSEXIT: CS is 32 above, SS 40
        mov edx, offset USER + user_again
        mov ecx, USER + {guests.USER_STACK:#x}
        .byte 0x48, 0x0f, 0x35              # sysexit to 64-bit code
    user_again:
        LEAVE_USER
    back:
        END
    got: .quad 0, 0
    """)
    if guest.run() == 2:
        pytest.skip("the guest's CPU is not Intel's")
    (trap,) = guest.traps()
    assert guest.number("got") == 0x40800
    assert guest.numbers(guest.label("got") + 8, 2, 2) == [guests.KERNEL_CODE, guests.KERNEL_DATA]
    assert (trap.vector, trap.cs, trap.ss) == (0x80, guests.USER_CODE, 0x43)
    assert trap.rsp == USER + guests.USER_STACK


# --- IRET and segments ------------------------------------------------------------------------------------------------


def test_iret_within_ring_0_restores_stack_and_flags(boot: Boot) -> None:
    guest = boot(f"""
    start:
        mov rbx, rsp
        push {guests.KERNEL_DATA}
        push 0x40800
        push 0x200cd7                       # ID, OF, DF and all arithmetic flags
        push {guests.KERNEL_CODE}
        push offset there
        iretq
    there:
        mov [got], rsp
        pushfq
        pop qword ptr [got + 8]
        mov rsp, rbx
        cld
        END
    got: .quad 0, 0
    """)
    guest.run()
    assert guest.numbers("got", 2) == [0x40800, 0x200CD7]


def test_far_calls_and_returns_change_the_code_width(boot: Boot) -> None:
    guest = boot(f"""
    start:
        mov esp, 0x40800
        push {guests.KERNEL_CODE}
        push offset wide
        push {guests.KERNEL_CODE_32}
        push offset narrow
        retfq
    .code32
    narrow:
        mov eax, 0x22222222
        dec eax
        mov [HEAP], eax
        add esp, 4                          # the 64-bit pushes, popped 32 bits at a time
        push {guests.KERNEL_CODE}
        push offset wide
        retf
    .code64
    wide:
        mov rax, 0x1111111122222222
        mov [HEAP + 8], rax
        mov esp, 0x40800
        END
    """)
    guest.run()
    assert guest.number(guests.HEAP, 4) == 0x22222221
    assert guest.number(guests.HEAP + 8) == 0x1111111122222222


def test_segment_bases_work_through_msrs_and_survive_interrupts(boot: Boot) -> None:
    guest = boot("""
    start:
        SET_MSR 0xc0000100, 0xffff800000000000
        SET_MSR 0xc0000100, HEAP
        SET_MSR 0xc0000101, HEAP + 0x1000
        mov dword ptr fs:[8], 0x11
        CATCH 1f
        ud2
    1:  mov dword ptr fs:[12], 0x22
        mov dword ptr gs:[8], 0x33
        END
    """)
    guest.run()
    assert guest.numbers(guests.HEAP + 8, 2, 4) == [0x11, 0x22]
    assert guest.number(guests.HEAP + 0x1008, 4) == 0x33
