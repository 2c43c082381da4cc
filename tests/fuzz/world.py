"""The world in which every generated program lives: physical frames, address spaces, and what is mapped where.

A world has FRAMES page frames. Programs know a frame by its number; where it is in guest-physical memory is a matter of
the layout: at the bottom, above 4 GiB, or on both sides of the hole below 4 GiB, with the hole in the middle of the
code frames.

    frame   0 GDT  1 IDT  2 TSS  3 handlers  4 record  5-7 stacks of handlers  8 main stack  9 user stack
            10-30 three address spaces of seven tables each   31-36 tables that all spaces share
            60-67 code that is called and changed   68-83 data   84-95 the program itself

There are three address spaces. Four regions show frame n at n * 4096 in all of them, always:

    K   upper half, supervisor; handlers run here. Its pages are global or not, as the program wants
    L   the same below 4 GiB
    U   the frames from 9 on that ring 3 may use
    B   nothing at first: 2 MiB pages that a program maps over its frames, one region in each half

and four windows of 512 pages are for the program's own mappings; not one page is present at first. What is in a local
window differs from space to space and is never global; a global window is the same in all of them and may be.
"""

from typing import Final, NamedTuple

from hibana.memory.layout import RAM_ABOVE_4G
from hibana.units import GIB, MIB, PAGE

FRAMES: Final = 96
SPLIT: Final = 64
"""The first frame of the second half."""
MEMORY_SIZE: Final = 3 * GIB + 4 * MIB

GDT: Final = 0
IDT: Final = 1
TSS: Final = 2
HANDLERS: Final = 3
RECORD: Final = 4
ASYNC_STACK: Final = 5
"""Where handlers of interrupts push, at moments that nobody knows: not compared."""
TRAP_STACK: Final = 6
DOUBLE_FAULT_STACK: Final = 7
STACK: Final = 8
USER_STACK: Final = 9
SPACE: Final = 10
SPACES: Final = 3
TABLES: Final = 7
"""Frames of a space: PML4, lower PDPT, PD, PT of the local window, then the upper three."""
PT_L: Final = 31
PT_U: Final = 32
PT_LOW_GLOBAL: Final = 33
PT_HIGH_GLOBAL: Final = 34
PT_K: Final = 35
CODE: Final = 60
CODE_FRAMES: Final = 8
DATA: Final = 68
DATA_FRAMES: Final = 16
PROGRAM: Final = 84

K: Final = 0xFFFFFFFF80000000
L: Final = 0x40000000
U: Final = 0x40200000
HIGH_BIG: Final = K + 0x600000
LOW_BIG: Final = L + 0x800000

# Offsets of tables in a space, in frames.
LOW_PDPT, LOW_PD, LOW_PT, HIGH_PDPT, HIGH_PD, HIGH_PT = range(1, TABLES)

LAPIC_PAGE: Final = K + FRAMES * PAGE
"""The local APIC, in region K behind the last frame."""
DEVICE: Final = 0xD0000000
"""Physical: memory-mapped registers of a device that answers with numbers it makes up."""
USER_DEVICE: Final = U + 511 * PAGE
"""The same, for ring 3: what other programs do with ports, those in ring 3 do with registers."""
REGISTER_ACT: Final = 0xF00
REGISTER_END: Final = 0xF08

# Page table entries.
PRESENT: Final = 1
WRITABLE: Final = 2
USER: Final = 4
ACCESSED: Final = 0x20
DIRTY: Final = 0x40
LARGE: Final = 0x80
GLOBAL: Final = 0x100
ON_DEMAND: Final = 0x200
"""Ours: the page fault handler makes such a page present and tries again."""
NO_EXECUTE: Final = 1 << 63

CR0: Final = 0x80010033  # PG WP NE ET MP PE
CR0_WP: Final = 1 << 16
CR4: Final = 0x620  # PAE OSFXSR OSXMMEXCPT
CR4_PGE: Final = 1 << 7
CR4_SMEP: Final = 1 << 20
EFER: Final = 0xD01  # NXE LMA LME SCE

KERNEL_CODE: Final = 0x08
KERNEL_DATA: Final = 0x10
TASK: Final = 0x18
USER_DATA: Final = 0x33
USER_CODE: Final = 0x3B
NARROW_CODE: Final = 0x40
"""32 bit, ring 0."""
SHIFTED_CODE: Final = 0x48
"""The same with its base at SHIFT."""
SHIFT: Final = L

PORT_END: Final = 0xF4
PORT_SAY: Final = 0xE9
PORT_ASK: Final = 0x7E
"""Reads as numbers it makes up."""
PORT_ACT: Final = 0xF0
"""The host does what the program has prepared under this number."""
PORT_PULSE: Final = 0xF1
"""The host pulses this interrupt line."""
PORT_KICK: Final = 0xF2
"""The host kicks the runner."""

LINES: Final = range(5, 9)
"""Interrupt lines that devices may pulse."""
FIRST_LINE_VECTOR: Final = 0x30
IPI_VECTORS: Final = range(0x38, 0x3C)
TIMER_VECTOR: Final = 0x40
ASYNC_VECTORS: Final = range(0x30, 0x48)
SYSTEM_CALL: Final = 0x80

# The record, in region K: what handlers write down.
AT_RECORD: Final = K + RECORD * PAGE
TRAPS: Final = 0x00  # u32: exceptions so far
TRAP_LIMIT: Final = 600
FROM_PHYSICAL: Final = 0x08  # u64: what to add to the physical address of a table for its address in region K
PASSES: Final = 0x10  # u32: how often the whole program is still to run
ARMED: Final = 0x18  # u32: how often the timer was started
COUNTS: Final = 0x40  # u32 for each of ASYNC_VECTORS
STEPS: Final = 0x100  # u64: a number made of all addresses single-stepped through
CALLS: Final = 0x108  # u64: system calls
LAST: Final = 0x110  # u64[3]: RAX, RCX, RDX at the end
LOG: Final = 0x800  # 32 bytes for each of the last 64 exceptions


class Layout(NamedTuple):
    """Where the two halves of a world are in guest-physical memory."""

    name: str
    low: int
    high: int

    def gpa(self, frame: int) -> int:
        """Give the guest-physical address of a frame."""
        return self.low + frame * PAGE if frame < SPLIT else self.high + (frame - SPLIT) * PAGE


LAYOUTS: Final = (
    Layout("at the bottom", 0, SPLIT * PAGE),
    Layout("above 4 GiB", RAM_ABOVE_4G + 2 * MIB, RAM_ABOVE_4G + 2 * MIB + SPLIT * PAGE),
    Layout("around the hole", 3 * GIB - SPLIT * PAGE, RAM_ABOVE_4G),
)


class Window(NamedTuple):
    """512 virtual pages that a program maps as it likes."""

    base: int
    table: int
    """Frame of the page table: in a local window that of space 0."""
    local: bool

    def table_in(self, space: int) -> int:
        """Give the frame of the page table in a space."""
        return self.table + TABLES * space if self.local else self.table


LOW_LOCAL: Final = Window(L + 0x400000, SPACE + LOW_PT, True)
LOW_GLOBAL: Final = Window(L + 0x600000, PT_LOW_GLOBAL, False)
HIGH_LOCAL: Final = Window(K + 0x200000, SPACE + HIGH_PT, True)
HIGH_GLOBAL: Final = Window(K + 0x400000, PT_HIGH_GLOBAL, False)
WINDOWS: Final = (LOW_LOCAL, LOW_GLOBAL, HIGH_LOCAL, HIGH_GLOBAL)
WINDOW_PAGES: Final = 512


def at(region: int, frame: int, offset: int = 0) -> int:
    """Give the virtual address of a place in a frame, as a region shows it."""
    return region + frame * PAGE + offset


def space_table(space: int, table: int = 0) -> int:
    """Give the frame of a table of a space."""
    return SPACE + TABLES * space + table


def big_entry(half: int) -> tuple[int, int]:
    """Give (table, index) of the page directory entry behind region B in the lower (0) or upper (1) half."""
    return (HIGH_PD, 3) if half else (LOW_PD, 4)
