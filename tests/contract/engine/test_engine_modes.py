"""The older modes of the CPU: real mode, 32-bit protected mode, and its two kinds of paging."""

import struct
from typing import Final

import pytest

from hibana.engine.state import DescriptorTable, Segment
from tests.contract.engine import guests
from tests.contract.engine.guests import HEAP
from tests.contract.engine.harness import Boot, Guest

REAL_SEGMENT: Final = 0x4000
"""Where the real-mode programs of these tests are copied: 0x40000."""


def _enter_real_mode(guest: Guest) -> None:
    """Copy the program between `real` and `real_end` below 1 MiB and start it there as a PC's BIOS would."""
    first, last = guest.label("real"), guest.label("real_end")
    guest.memory.write(REAL_SEGMENT << 4, guest.memory.read(first, last - first))
    vcpu = guest.vm.vcpus[0]
    state = vcpu.save()
    state.sregs.cr0, state.sregs.cr4, state.sregs.efer = 0x10, 0, 0
    for name in ("ds", "es", "fs", "gs", "ss"):
        setattr(state.sregs, name, Segment(base=0, selector=0))
    state.sregs.cs = Segment(base=REAL_SEGMENT << 4, selector=REAL_SEGMENT, type=0xB)
    state.sregs.idt = DescriptorTable(base=0, limit=0x3FF)
    state.regs.rip, state.regs.rsp = 0, 0x7000
    vcpu.load(state)


def _enter_protected_mode(guest: Guest, cr0: int = 0x33, cr3: int = 0, cr4: int = 0x600) -> None:
    """Start at `narrow` in flat 32-bit mode."""
    vcpu = guest.vm.vcpus[0]
    state = vcpu.save()
    state.sregs.cr0, state.sregs.cr3, state.sregs.cr4, state.sregs.efer = cr0, cr3, cr4, 0
    state.sregs.cs = Segment(limit=0xFFFFFFFF, selector=guests.KERNEL_CODE_32, type=0xB, db=1, g=1)
    state.sregs.idt = DescriptorTable(base=HEAP + 0x1000, limit=0x7FF)
    state.regs.rip = guest.label("narrow")
    vcpu.load(state)


def _write_gate_32(guest: Guest, vector: int, target: int, dpl: int = 0) -> None:
    low = guests.KERNEL_CODE_32 << 16 | target & 0xFFFF
    high = target & 0xFFFF0000 | 0x8E00 | dpl << 13
    guest.memory.write(HEAP + 0x1000 + 8 * vector, struct.pack("<II", low, high))


def test_real_mode_addresses_are_segment_times_16_plus_offset(boot: Boot) -> None:
    guest = boot("""
    start:
    .code16
    real:
        mov ax, 0x1234
        mov ds, ax
        mov word ptr [0x10], 0xbeef         # 0x12350
        mov ax, 0x5000
        mov es, ax
        mov di, 0xfffe
        mov byte ptr es:[di], 0x77          # 0x5fffe
        mov ax, cs
        mov word ptr [0x12], ax
        xor eax, eax
        out 0xf4, eax
    1:  hlt
        jmp 1b
    real_end:
    .code64
    """)
    _enter_real_mode(guest)
    guest.run()
    assert guest.numbers(0x12350, 2, 2) == [0xBEEF, REAL_SEGMENT]
    assert guest.number(0x5FFFE, 1) == 0x77


def test_real_mode_interrupts_go_through_the_vector_table(boot: Boot) -> None:
    guest = boot(f"""
    start:
    .code16
    real:
        mov word ptr [4 * 0x21], offset handler - real
        mov word ptr [4 * 0x21 + 2], {REAL_SEGMENT:#x}
        mov word ptr [0], offset divide - real
        mov word ptr [2], {REAL_SEGMENT:#x}
        stc
        sti
        int 0x21
    back:
        xor cl, cl
        mov ax, 1
    bad:
        div cl
    divide:                                 # a fault: the stacked IP is that of DIV
        pop word ptr [0x604]
        mov eax, 1
        out 0xf4, eax
    1:  hlt
        jmp 1b
    handler:
        mov bp, sp
        mov ax, [bp]
        mov [0x600], ax
        mov ax, [bp + 4]
        mov [0x602], ax
        iret
    real_end:
    .code64
    """)
    _enter_real_mode(guest)
    guest.run()
    back, flags, bad = guest.numbers(0x600, 3, 2)
    assert back == guest.label("back") - guest.label("real")
    assert bad == guest.label("bad") - guest.label("real")
    assert flags & 0x203 == 0x203


def test_real_mode_string_io_uses_16_bit_registers(boot: Boot) -> None:
    guest = boot("""
    start:
    .code16
    real:
        mov ax, cs
        mov ds, ax
        mov esi, 0xabc0000 + text - real
        mov ecx, 0x70004
        mov dx, 0x77
        rep outsb
        mov eax, ecx
        out 0xf4, eax
    1:  hlt
        jmp 1b
    text: .ascii "real"
    real_end:
    .code64
    """)
    _enter_real_mode(guest)
    assert guest.run() == 0x70000  # only CX has counted down
    assert bytes(value for _, _, value in guest.bus.seen("port", "write")) == b"real"


def test_a_guest_climbs_from_real_mode_to_64_bit_mode_by_itself(boot: Boot) -> None:
    guest = boot(f"""
    start:
    .code16
    real:
        lgdtd cs:[gdtr - real]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        .byte 0x66, 0xea                    # far jump to 32-bit code
        .long narrow
        .word {guests.KERNEL_CODE_32}
    gdtr:
        .word 0x57
        .long {guests.GDT:#x}
    real_end:
    .code32
    narrow:
        mov eax, {guests.KERNEL_DATA}
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov dword ptr [HEAP], 32
        mov eax, cr4
        or eax, 0x20
        mov cr4, eax
        mov eax, {guests.PML4:#x}
        mov cr3, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 0x100
        wrmsr
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        .byte 0xea
        .long wide
        .word {guests.KERNEL_CODE}
    .code64
    wide:
        mov rax, 0x123456789abcdef0
        mov [HEAP + 8], rax
        mov ecx, 0xc0000080
        rdmsr
        END eax
    """)
    _enter_real_mode(guest)
    assert guest.run() & 0x500 == 0x500  # LMA has come by itself
    assert guest.number(HEAP, 4) == 32
    assert guest.number(HEAP + 8) == 0x123456789ABCDEF0


def test_protected_mode_checks_segment_limits(boot: Boot) -> None:
    guest = boot("""
    start:
    .code32
    narrow:
        mov eax, 0x10
        mov ds, eax
        mov eax, fs:[0xffd]
    fault:
        mov eax, fs:[0xffe]
        mov eax, 2
        out 0xf4, eax
    handler:
        pop dword ptr [HEAP]
        pop dword ptr [HEAP + 4]
        mov eax, 1
        out 0xf4, eax
    1:  hlt
        jmp 1b
    .code64
    """)
    _enter_protected_mode(guest)
    state = guest.vm.vcpus[0].save()
    state.sregs.fs = Segment(base=HEAP + 0x2000, limit=0x1000, selector=guests.KERNEL_DATA, type=3, db=1)
    guest.vm.vcpus[0].load(state)
    _write_gate_32(guest, 13, guest.label("handler"))
    assert guest.run() == 1
    assert guest.numbers(HEAP, 2, 4) == [0, guest.label("fault")]


def test_protected_mode_changes_stacks_through_the_tss(boot: Boot) -> None:
    guest = boot(f"""
    start:
    .code32
    narrow:
        push {guests.USER_DATA}
        push 0x61000
        push 0x3202
        push {guests.USER_CODE_32}
        push offset user
        iretd
    user:
        mov eax, 0x55
        int 0x80
    after:
        hlt
    handler:
        mov edi, HEAP
        mov esi, esp
        mov ecx, 5
        push {guests.KERNEL_DATA}
        pop ds
        push {guests.KERNEL_DATA}
        pop es
        rep movsd
        mov [HEAP + 20], ss
        out 0xf4, eax
    1:  hlt
        jmp 1b
    .code64
    """)
    _enter_protected_mode(guest)
    guest.memory.write(guests.TSS, struct.pack("<III", 0, 0x52000, guests.KERNEL_DATA))  # a 32-bit TSS: SS0:ESP0
    _write_gate_32(guest, 0x80, guest.label("handler"), dpl=3)
    assert guest.run() == 0x55
    eip, cs, eflags, esp, ss = guest.numbers(HEAP, 5, 4)
    assert (eip, cs, esp, ss) == (guest.label("after"), guests.USER_CODE_32, 0x61000, guests.USER_DATA)
    assert eflags & 0x3200 == 0x3200
    assert guest.number(HEAP + 20, 2) == guests.KERNEL_DATA
    assert guest.vm.vcpus[0].save().regs.rsp <= 0x52000


PAGING: Final = """
    start:
    .code32
    narrow:
        mov eax, [0x800000]                 # the mapped page
        mov [HEAP + 0x100], eax
        mov dword ptr [0x800004], 0x22222222
    fault:
        mov eax, [0x801000]                 # the absent one
        mov eax, 2
        out 0xf4, eax
    handler:
        pop dword ptr [HEAP + 0x104]
        pop dword ptr [HEAP + 0x108]
        mov eax, cr2
        out 0xf4, eax
    1:  hlt
        jmp 1b
    .code64
"""


@pytest.mark.parametrize("kind", ["two levels", "PAE"])
def test_protected_mode_paging(boot: Boot, kind: str) -> None:
    """4 MiB (or 2 MiB) pages for the program, small pages at 8 MiB: the first shows HEAP + 0x2000."""
    guest = boot(PAGING)
    tables, frame = HEAP + 0x4000, HEAP + 0x2000
    if kind == "two levels":
        directory = [0x83, 0x400083, tables + 0x1000 | 3]
        guest.memory.write(tables, struct.pack("<3I", *directory))
        guest.memory.write(tables + 0x1000, struct.pack("<I", frame | 3))
        cr4 = 0x610  # PSE
    else:
        guest.memory.write(tables, struct.pack("<Q", tables + 0x1000 | 1))
        directory = [0x83, 0x200083, 0x400083, 0x600083, tables + 0x2000 | 3]
        guest.memory.write(tables + 0x1000, struct.pack("<5Q", *directory))
        guest.memory.write(tables + 0x2000, struct.pack("<Q", frame | 3))
        cr4 = 0x620  # PAE
    guest.memory.write(frame, b"\x11\x11\x11\x11")
    _enter_protected_mode(guest, cr0=0x80010033, cr3=tables, cr4=cr4)
    _write_gate_32(guest, 14, guest.label("handler"))
    assert guest.run() == 0x801000
    assert guest.numbers(HEAP + 0x100, 3, 4) == [0x11111111, 0, guest.label("fault")]
    assert guest.number(frame + 4, 4) == 0x22222222
