"""The tables of a world as bytes: descriptors, gates, page tables; and the CPU state in which a program starts."""

import functools
from struct import pack_into
from typing import Final

from hibana.engine.state import RUNNABLE, DescriptorTable, Regs, Segment, Sregs, VcpuState
from hibana.memory.layout import LAPIC
from hibana.units import PAGE
from tests.fuzz import handlers, world
from tests.fuzz.world import ACCESSED, DIRTY, GLOBAL, PRESENT, USER, WRITABLE, K, Layout, at, space_table

_DESCRIPTORS: Final = (
    0,
    0x00AF9B000000FFFF,  # 0x08 ring 0 code, 64 bit
    0x00CF93000000FFFF,  # 0x10 ring 0 data
    0,  # 0x18 TSS (two entries)
    0,
    0x00CFFB000000FFFF,  # 0x28 ring 3 code, 32 bit: SYSRET's base
    0x00CFF3000000FFFF,  # 0x30 ring 3 data
    0x00AFFB000000FFFF,  # 0x38 ring 3 code, 64 bit
    0x00CF9B000000FFFF,  # 0x40 ring 0 code, 32 bit
    0x00CF9B000000FFFF | (world.SHIFT & 0xFFFFFF) << 16 | world.SHIFT >> 24 << 56,  # 0x48 the same, shifted
)
_GATE: Final = 0x8E
_OPEN_GATE: Final = 0xEE
_TRAP_IST: Final = 1
_ASYNC_IST: Final = 2
_DOUBLE_FAULT_IST: Final = 3
_DOUBLE_FAULT: Final = 8
_OPEN_VECTORS: Final = (3, 4, world.SYSTEM_CALL)

_KEPT: Final = PRESENT | WRITABLE | ACCESSED | DIRTY
"""Entries that handlers use at unknown moments have their A and D bits set from the start."""

_LINE_VECTORS: Final = {line: world.FIRST_LINE_VECTOR + line - world.LINES[0] for line in world.LINES}
REDIRECTIONS: Final = [_LINE_VECTORS.get(pin, 0x10000) for pin in range(24)]
"""The I/O APIC's table: edge-triggered, to CPU 0."""


@functools.cache
def image(layout: Layout, k_global: bool, low_global: bool, ist: bool) -> bytes:
    """Build the frames of a world without a program; `ist`: exceptions have a stack of their own."""
    frames = bytearray(world.FRAMES * PAGE)
    pack_into(f"<{len(_DESCRIPTORS)}Q", frames, world.GDT * PAGE, *_DESCRIPTORS)
    task = at(K, world.TSS)
    low = 103 | (task & 0xFFFFFF) << 16 | 0x8B << 40 | (task >> 24 & 0xFF) << 56
    pack_into("<QQ", frames, world.GDT * PAGE + world.TASK, low, task >> 32)
    _write_gates(frames, ist)
    stacks = [at(K, frame + 1) for frame in (world.TRAP_STACK, world.ASYNC_STACK, world.DOUBLE_FAULT_STACK)]
    pack_into("<Q", frames, world.TSS * PAGE + 4, stacks[0])
    pack_into("<3Q", frames, world.TSS * PAGE + 36, *stacks)
    pack_into("<H", frames, world.TSS * PAGE + 102, 104)
    frames[world.HANDLERS * PAGE : world.HANDLERS * PAGE + len(handlers.CODE)] = handlers.CODE
    pack_into("<Q", frames, world.RECORD * PAGE + world.FROM_PHYSICAL, K - layout.low & (1 << 64) - 1)
    _write_regions(frames, layout, GLOBAL if k_global else 0, GLOBAL if low_global else 0)
    for space in range(world.SPACES):
        _write_space(frames, layout, space)
    return bytes(frames)


def _write_gates(frames: bytearray, ist: bool) -> None:
    for vector, offset in handlers.ENTRIES.items():
        target = at(K, world.HANDLERS, offset)
        stack = _TRAP_IST if ist else 0
        if vector in world.ASYNC_VECTORS:
            stack = _ASYNC_IST
        elif vector == _DOUBLE_FAULT:
            stack = _DOUBLE_FAULT_IST
        kind = _OPEN_GATE if vector in _OPEN_VECTORS else _GATE
        low = target & 0xFFFF | world.KERNEL_CODE << 16 | stack << 32 | kind << 40 | (target >> 16 & 0xFFFF) << 48
        pack_into("<QQ", frames, world.IDT * PAGE + 16 * vector, low, target >> 32)


def _write_regions(frames: bytearray, layout: Layout, k_flags: int, low_flags: int) -> None:
    for frame in range(world.FRAMES):
        gpa = layout.gpa(frame)
        pack_into("<Q", frames, world.PT_K * PAGE + 8 * frame, gpa | _KEPT | k_flags)
        pack_into("<Q", frames, world.PT_L * PAGE + 8 * frame, gpa | _KEPT | low_flags)
        if frame == world.USER_STACK or frame >= world.CODE:
            pack_into("<Q", frames, world.PT_U * PAGE + 8 * frame, gpa | _KEPT | USER | low_flags)
    pack_into("<Q", frames, world.PT_K * PAGE + 8 * world.FRAMES, LAPIC | _KEPT | 0x10 | k_flags)
    user_device = (world.USER_DEVICE - world.U) // PAGE
    pack_into("<Q", frames, world.PT_U * PAGE + 8 * user_device, world.DEVICE | _KEPT | 0x10 | USER | low_flags)


def _write_space(frames: bytearray, layout: Layout, space: int) -> None:
    pml4, low_pdpt, low_pd, low_pt, high_pdpt, high_pd, high_pt = (space_table(space, n) for n in range(world.TABLES))
    entries = {
        (pml4, 0): low_pdpt,
        (pml4, 511): high_pdpt,
        (low_pdpt, 1): low_pd,
        (high_pdpt, 510): high_pd,
        (low_pd, 0): world.PT_L,
        (low_pd, 1): world.PT_U,
        (low_pd, 2): low_pt,
        (low_pd, 3): world.PT_LOW_GLOBAL,
        (high_pd, 0): world.PT_K,
        (high_pd, 1): high_pt,
        (high_pd, 2): world.PT_HIGH_GLOBAL,
    }
    for (table, index), target in entries.items():
        pack_into("<Q", frames, table * PAGE + 8 * index, layout.gpa(target) | _KEPT | USER)


def start_state(reset: VcpuState, layout: Layout, ring: int, regs: Regs, cr4: int, msrs: dict[int, int]) -> VcpuState:
    """Turn a CPU after reset into one in 64-bit mode, in space 0."""
    data = Segment(limit=0xFFFFFFFF, selector=world.USER_DATA, type=3, dpl=3, db=1, g=1)
    stack = data if ring else Segment(limit=0xFFFFFFFF, selector=world.KERNEL_DATA, type=3, db=1, g=1)
    code = world.USER_CODE if ring else world.KERNEL_CODE
    sregs = Sregs(
        cs=Segment(limit=0xFFFFFFFF, selector=code, type=0xB, dpl=ring, l=1, g=1),
        # Of ring 3 already: a return to ring 3 would make others unusable, and when the first one comes is not known.
        ds=data, es=data, fs=data, gs=data, ss=stack,
        tr=Segment(base=at(K, world.TSS), limit=103, selector=world.TASK, type=0xB, s=0),
        ldt=Segment(limit=0, type=2, s=0, present=0, unusable=1),
        gdt=DescriptorTable(base=at(K, world.GDT), limit=8 * len(_DESCRIPTORS) - 1),
        idt=DescriptorTable(base=at(K, world.IDT), limit=0xFFF),
        cr0=world.CR0, cr3=layout.gpa(space_table(0)), cr4=cr4, efer=world.EFER, apic_base=reset.sregs.apic_base,
    )  # fmt: skip
    return VcpuState(
        regs, sregs, reset.fpu, reset.debugregs, reset.events, {**reset.msrs, **msrs}, reset.lapic, reset.xcr0, RUNNABLE
    )
