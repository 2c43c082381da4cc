"""What every tiny guest starts with: a memory map, tables, and an assembly prelude.

The guest begins in flat 64-bit mode at `start:`, loaded through `VcpuState` and not through `hibana.boot`: a contract
test must not depend on the boot chapter.

    0x01000 GDT         0x08000 AP trampoline     0x22000 trap log, 64 bytes a record
    0x02000 IDT         0x10000 page tables       0x40000 kernel stacks, one page for each CPU
    0x03000 TSS         0x20000 prelude's cells   0x50000 RSP0 and IST stacks, 0x60000 user stack
                        0x21000 handlers          0x100000 the program

    virtual = physical, supervisor only, in [0, 1 GiB) and [2 GiB, 6 GiB)
    USER  [1 GiB, 2 GiB)   the first GiB again, open to ring 3
    PAGES last 2 MiB of it 512 small pages that tests map as they like; nothing is present at first

A trap is written to the log. Then its handler runs when `handlers` names one (it gets the frame in RDI); otherwise an
exception, or INT 0x80 from user code, continues at `resume` in ring 0; coming from user code, with interrupts off. An
exception nobody asked for ends the guest.
"""

import struct
from typing import Final, NamedTuple

from hibana.engine.state import RUNNABLE, DescriptorTable, Regs, Segment, Sregs, VcpuState
from hibana.memory.guest import GuestMemory
from hibana.units import GIB, MIB

GDT: Final = 0x1000
IDT: Final = 0x2000
TSS: Final = 0x3000
TRAMPOLINE: Final = 0x8000
PML4: Final = 0x10000
PDPT: Final = 0x11000
PD: Final = 0x12000
PT: Final = 0x18000
LOG_COUNT: Final = 0x20008
AP_ENTRY: Final = 0x20018
HANDLERS: Final = 0x21000
LOG: Final = 0x22000
LOG_RECORDS: Final = 512
STACKS: Final = 0x40000
RSP0: Final = 0x52000
IST: Final = (0x54000, 0x56000)
USER_STACK: Final = 0x61000
PROGRAM: Final = 0x100000
HEAP: Final = 0x400000
"""Free RAM for the test's own use."""

USER: Final = 1 * GIB
PAGES: Final = 2 * GIB - 2 * MIB

PORT_END: Final = 0xF4
"""Ends the guest; the value is its result."""
PORT_SAY: Final = 0xE9
"""Says one number to the test."""
PORT_ACT: Final = 0xF0
"""Asks the test to do what it has prepared (pulse a line, write memory)."""
DEVICE: Final = 0xD0000000
"""64 KiB of memory-like MMIO."""
HOLE: Final = 0xE0000000
"""An address with nothing behind it."""

KERNEL_CODE: Final = 0x08
KERNEL_DATA: Final = 0x10
TASK: Final = 0x18
USER_CODE_32: Final = 0x2B
USER_DATA: Final = 0x33
USER_CODE: Final = 0x3B
KERNEL_CODE_32: Final = 0x40
ABSENT_DATA: Final = 0x50

PRESENT: Final = 1
WRITABLE: Final = 2
OPEN: Final = 4
NO_EXECUTE: Final = 1 << 63

_DESCRIPTORS: Final = (
    0,
    0x00AF9B000000FFFF,  # 0x08 ring 0 code, 64 bit
    0x00CF93000000FFFF,  # 0x10 ring 0 data
    0x00008B0000000FFF | TSS << 16,  # 0x18 TSS (two entries)
    0,
    0x00CFFB000000FFFF,  # 0x28 ring 3 code, 32 bit: SYSRET's base
    0x00CFF3000000FFFF,  # 0x30 ring 3 data
    0x00AFFB000000FFFF,  # 0x38 ring 3 code, 64 bit
    0x00CF9B000000FFFF,  # 0x40 ring 0 code, 32 bit
    0x00009B000000FFFF,  # 0x48 ring 0 code, 16 bit
    0x00CF13000000FFFF,  # 0x50 data, not present
)

PRELUDE: Final = f"""
.set resume, 0x20000
.set log_count, {LOG_COUNT:#x}
.set kernel_rsp, 0x20010
.set handlers, {HANDLERS:#x}
.set log, {LOG:#x}
.set USER, {USER:#x}
.set PAGES, {PAGES:#x}
.set HEAP, {HEAP:#x}
.set DEVICE, {DEVICE:#x}
.set HOLE, {HOLE:#x}
.set LAPIC, 0xfee00000
.set IOAPIC, 0xfec00000

.macro END value=0              # the guest is done
    mov eax, \\value
    out {PORT_END:#x}, eax
999:
    cli
    hlt
    jmp 999b
.endm
.macro STOP                     # lets `run` return with EAX, and goes on when it is called again
    out {PORT_END:#x}, eax
    jmp 998f                    # here at the latest an engine notices the kick
998:
.endm
.macro SAY value
    push rax
    mov eax, \\value
    out {PORT_SAY:#x}, eax
    pop rax
.endm
.macro ACT value=0              # the test does what it has prepared
    push rax
    mov eax, \\value
    out {PORT_ACT:#x}, eax
    pop rax
.endm
.macro CATCH label              # the next exception continues at label
    mov qword ptr [resume], offset \\label
.endm
.macro ON vector, label
    mov qword ptr [handlers + 8 * \\vector], offset \\label
.endm
.macro ENTER_USER label, flags=0x202
    mov [kernel_rsp], rsp
    push {USER_DATA}
    push USER + {USER_STACK}
    push \\flags
    push {USER_CODE}
    push offset USER + \\label
    iretq
.endm
.macro LEAVE_USER               # continues at resume in ring 0
    int 0x80
.endm
.macro APIC register, value     # write a local APIC register; uses r15
    mov r15d, LAPIC
    mov dword ptr [r15 + \\register], \\value
.endm
.macro PIN pin, low             # write an I/O APIC redirection entry for CPU 0; uses r15
    mov r15d, IOAPIC
    mov dword ptr [r15], 0x11 + 2 * \\pin
    mov dword ptr [r15 + 16], 0
    mov dword ptr [r15], 0x10 + 2 * \\pin
    mov dword ptr [r15 + 16], \\low
.endm
.macro ENABLE_APIC              # and silence the 8259s, whose lines KVM wires in parallel
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    APIC 0xf0, 0x1ff
.endm
.macro EOI
    APIC 0xb0, 0
.endm
.macro START_APS                # INIT and SIPI to all but self; they continue at ap_start
    APIC 0xf0, 0x1ff
    APIC 0x300, 0xc4500
    APIC 0x300, 0xc4608
.endm
.macro SET_MSR index, value
    mov ecx, \\index
    mov eax, (\\value) & 0xffffffff
    mov edx, (\\value) >> 32
    wrmsr
.endm
.macro SET_MSR_TO index, label
    mov ecx, \\index
    mov eax, offset \\label
    xor edx, edx
    wrmsr
.endm

stubs:
.set vector, 0
.rept 256
    .balign 16
    .if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21
    push 0
    .endif
    push vector
    jmp trap
    .set vector, vector + 1
.endr
    .balign 16
trap:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r15
    cld
    mov eax, 1
    lock xadd [log_count], rax
    cmp eax, {LOG_RECORDS}
    jae log_full
    shl eax, 6
    lea rdi, [rax + log]
    lea rsi, [rsp + 88]
    mov ecx, 7
    rep movsq
    mov rax, cr2
    stosq
    mov ebx, [rsp + 88]
    mov rax, [handlers + 8 * rbx]
    test rax, rax
    jz 1f
    lea rdi, [rsp + 88]
    call rax
    jmp 3f
1:  cmp ebx, 0x80
    je 2f
    cmp ebx, 32
    jae 3f
2:  mov rax, [resume]
    test rax, rax
    jz unexpected
    mov qword ptr [resume], 0
    mov [rsp + 104], rax
    test byte ptr [rsp + 112], 3
    jz 3f
    mov qword ptr [rsp + 112], {KERNEL_CODE}
    and qword ptr [rsp + 120], ~0x200
    mov rax, [kernel_rsp]
    mov [rsp + 128], rax
    mov qword ptr [rsp + 136], {KERNEL_DATA}
3:  pop r15
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16
    iretq
unexpected:
    END 0xdead
log_full:
    END 0xf011
    .balign 64
"""
STUB_SIZE: Final = 16

TRAMPOLINE_SOURCE: Final = f"""
.code16
    cli
    xor ax, ax
    mov ds, ax
    lgdtd [{TRAMPOLINE:#x} + gdtr - trampoline]
    mov eax, 0x620
    mov cr4, eax
    mov eax, {PML4:#x}
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x901
    wrmsr
    mov eax, 0x80010033
    mov cr0, eax
    .byte 0x66, 0xea            # far jump into 64-bit mode
    .long {TRAMPOLINE:#x} + long_mode - trampoline
    .word {KERNEL_CODE}
.code64
long_mode:
    mov eax, {KERNEL_DATA}
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    lidt [idtr]
    mov eax, 1
    cpuid
    shr ebx, 24                 # EBX: this CPU's APIC id
    lea eax, [rbx + 1]
    shl eax, 12
    lea rsp, [rax + {STACKS:#x}]
    jmp [{AP_ENTRY:#x}]
gdtr:
    .word {8 * len(_DESCRIPTORS) - 1}
    .quad {GDT:#x}
idtr:
    .word 0xfff
    .quad {IDT:#x}
"""


class Trap(NamedTuple):
    """One record of the trap log: the frame the CPU pushed, and CR2."""

    vector: int
    error: int
    rip: int
    cs: int
    rflags: int
    rsp: int
    ss: int
    cr2: int


def write_tables(memory: GuestMemory) -> None:
    """Put GDT, IDT, TSS and page tables where the memory map says."""
    memory.write(GDT, struct.pack(f"<{len(_DESCRIPTORS)}Q", *_DESCRIPTORS))
    for vector in range(256):
        write_gate(memory, vector, dpl=3 if vector in (3, 4, 0x80) else 0)
    task = bytearray(0xFF for _ in range(0x1000))  # the I/O bitmap forbids every port
    struct.pack_into("<I11QQHH", task, 0, 0, RSP0, 0, 0, 0, *IST, 0, 0, 0, 0, 0, 0, 0, 104)
    memory.write(TSS, task)
    _write_page_tables(memory)


def write_gate(memory: GuestMemory, vector: int, *, dpl: int = 0, ist: int = 0, kind: int = 0x8E) -> None:
    """Write one IDT entry; 0x8E is a present 64-bit interrupt gate."""
    target = PROGRAM + STUB_SIZE * vector
    low = target & 0xFFFF | KERNEL_CODE << 16 | ist << 32 | (kind | dpl << 5) << 40 | target >> 16 << 48
    memory.write(IDT + 16 * vector, struct.pack("<QQ", low, 0))


def write_page(memory: GuestMemory, index: int, entry: int) -> None:
    """Map the small page PAGES + index * 4096; `entry` is the physical address with its flags."""
    memory.write(PT + 8 * index, struct.pack("<Q", entry))


def _write_page_tables(memory: GuestMemory) -> None:
    memory.write(PML4, struct.pack("<Q", PDPT | 7))
    memory.write(PDPT, struct.pack("<6Q", *(PD + 0x1000 * gib | 7 for gib in range(6))))
    for gib in range(6):
        start, flags = (0, 0x87) if gib * GIB == USER else (gib * GIB, 0x83)
        memory.write(PD + 0x1000 * gib, struct.pack("<512Q", *(start + 2 * MIB * i | flags for i in range(512))))
    memory.write(PD + 0x1FF8, struct.pack("<Q", PT | 7))


def boot_state(reset: VcpuState, entry: int) -> VcpuState:
    """Turn a state into flat 64-bit mode at `entry` with the tables above."""
    reset.mp_state = RUNNABLE
    reset.regs = Regs(rip=entry, rsp=STACKS + 0x1000)
    flat = Segment(limit=0xFFFFFFFF, selector=KERNEL_DATA, type=3, db=1, g=1)
    reset.sregs = Sregs(
        cs=Segment(limit=0xFFFFFFFF, selector=KERNEL_CODE, type=0xB, l=1, g=1),
        ds=flat,
        es=flat,
        fs=flat,
        gs=flat,
        ss=flat,
        tr=Segment(base=TSS, limit=0xFFF, selector=TASK, type=0xB, s=0),
        ldt=Segment(limit=0xFFFF, type=2, s=0),
        gdt=DescriptorTable(base=GDT, limit=8 * len(_DESCRIPTORS) - 1),
        idt=DescriptorTable(base=IDT, limit=0xFFF),
        cr0=0x80010033,  # PG WP NE ET MP PE
        cr3=PML4,
        cr4=0x620,  # PAE OSFXSR OSXMMEXCPT
        efer=0xD01,  # NXE LMA LME SCE
        apic_base=reset.sregs.apic_base,
    )
    return reset
