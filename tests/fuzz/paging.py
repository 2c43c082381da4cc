"""Changing the page tables so that the result is defined: entries, the ways to write them, the ways to make them seen.

The rules of SDM vol. 3, "Invalidation of TLBs and Paging-Structure Caches", as blocks keep them: after an entry that
was present has changed, nobody uses an address it translates before INVLPG of that address, a write to CR3 (if neither
the old nor the new entry was global) or a change of CR4.PGE. An entry that was not present needs nothing.
"""

from collections.abc import Sequence
from typing import Final

from hibana.units import PAGE
from tests.fuzz import vector, world
from tests.fuzz.cpus import READ_MODIFY_FAULT, SSE
from tests.fuzz.encoder import R12, RAX, RBX, RCX, RDI, RDX
from tests.fuzz.generator import ARITHMETIC, CF, Generator, Write, quad
from tests.fuzz.world import DATA, PRESENT, WRITABLE, K, L, Window, at, space_table

SET: Final = 5
CLEAR: Final = 6
_COMPLEMENT: Final = 7
"""Digits of the BTS, BTR and BTC with an immediate."""
_PGE_BIT: Final = 7
_RAX_FROM_CR3, _CR3_FROM_RAX = b"\x0f\x20\xd8", b"\x0f\x22\xd8"


def entry(g: Generator, frame: int, flags: int = PRESENT | WRITABLE) -> int:
    """Make a page table entry."""
    return g.layout.gpa(frame) | flags


def data_frame(g: Generator) -> int:
    """Choose a frame that may be written anywhere, with another one behind it."""
    return DATA + g.below(world.DATA_FRAMES - 1)


def pages(g: Generator, count: int) -> int:
    """Choose the first of some neighbouring pages of a window; few, so that programs meet their own old mappings."""
    if g.chance(0.2):
        return g.below(world.WINDOW_PAGES - count)
    return g.pick((0, 8, 64, 256)) + g.below(8)


def write_entries(g: Generator, table: int, index: int, values: Sequence[int]) -> None:
    """Write neighbouring entries of the table in a frame; RAX, RCX and RDI are used."""
    code, how = g.code, g.below(6)
    if how == 0:
        g.act([Write(table, 8 * index, b"".join(map(quad, values)))], through_window=g.chance(0.5))
        return
    code.load(RDI, at(g.pick((K, K, L)), table, 8 * index))
    for position, value in enumerate(values):
        code.load(RAX, value)
        if how == 1:
            code.rm(b"\x87", RAX, RDI, 8 * position, 8)  # xchg
        elif how == 2:  # upper half first: what is half written is used by nobody
            code.mov(RCX, RAX)
            code.dr(b"\xc1", 5, RCX, 8)
            code.imm8(32)
            g.flags(ARITHMETIC, ARITHMETIC)
            code.store(RCX, RDI, 8 * position + 4, 4)
            code.store(RAX, RDI, 8 * position, 4)
        elif how == 3:
            code.raw(b"\xfc\x48\xab")  # cld; stosq
        else:
            code.store(RAX, RDI, 8 * position)


def enter_space(g: Generator, space: int) -> None:
    """Switch to an address space; RAX is used."""
    g.code.load(RAX, g.layout.gpa(space_table(space)))
    g.code.raw(_CR3_FROM_RAX)


def reload(g: Generator) -> None:
    """Write CR3 with what it holds."""
    g.code.raw(_RAX_FROM_CR3 + _CR3_FROM_RAX)


def toggle_global_pages(g: Generator, times: int) -> None:
    """Change CR4.PGE; RAX is used."""
    for _ in range(times):
        change_control(g, 4, _COMPLEMENT, _PGE_BIT)


def change_control(g: Generator, register: int, how: int, bit: int) -> None:
    """Set, clear or complement a bit of CR0 or CR4; RAX is used."""
    number = bytes((0xC0 | register << 3,))
    g.code.raw(b"\x0f\x20" + number)
    g.code.dr(b"\x0f\xba", how, RAX, 8)
    g.code.imm8(bit)
    g.code.raw(b"\x0f\x22" + number)
    g.flags(CF, ARITHMETIC & ~CF)


def invalidate(g: Generator, address: int, count: int = 1) -> None:
    """INVLPG of some pages; RDX is used."""
    for page in range(count):
        g.code.load(RDX, address + page * PAGE + g.pick((0, 0, g.below(PAGE))))
        g.code.dm(b"\x0f\x01", 7, RDX)


def flush(g: Generator, window: Window, index: int, count: int) -> None:
    """Make changed entries of a window seen, in any way that is enough."""
    kind = g.below(5)
    if kind == 0 and window.local:
        reload(g)
    elif kind == 1:
        toggle_global_pages(g, 1 + g.below(2))
    else:
        invalidate(g, window.base + index * PAGE, count)


def map_pages(g: Generator, window: Window, space: int, index: int, values: Sequence[int]) -> None:
    """Map pages of a window, in the current space `space`, whatever was there before."""
    table = window.table_in(space)
    if g.chance(0.3):  # by way of "not present", so that the second change needs no flush
        write_entries(g, table, index, [0] * len(values))
        flush(g, window, index, len(values))
        write_entries(g, table, index, values)
    else:
        write_entries(g, table, index, values)
        flush(g, window, index, len(values))


def touch(g: Generator, address: int, reach: int = PAGE) -> None:
    """Access a page, which may fault; what is read goes into RBX."""
    code, size = g.code, g.pick((1, 2, 4, 8, 8))
    kind, offset = g.below(8), g.below(reach - 8)

    def access() -> None:
        code.load(R12, address + offset)
        if kind < 2:
            code.rm(b"\x02" if size == 1 else b"\x03", RBX, R12, 0, size)  # add rbx, [r12]
            g.flags(ARITHMETIC)
        elif kind < 4 or (kind == 4 and not g.may(READ_MODIFY_FAULT)):
            code.store(g.free(), R12, 0, size)
        elif kind == 4:
            code.lock()
            code.rm(b"\x00" if size == 1 else b"\x01", g.free(), R12, 0, size)  # add [r12], r
            g.flags(ARITHMETIC)
        elif kind == 5:
            code.rm(b"\x38" if size == 1 else b"\x39", g.free(), R12, 0, size)  # cmp
            g.flags(ARITHMETIC)
        elif kind == 6 and g.may(SSE):
            code.load(R12, address + (offset & -512))
            vector.store(g)
        else:
            code.dm(b"\xff", 6, R12)  # push qword ptr [r12]
            code.pop(RBX)

    g.may_fault(access)


def read_entry(g: Generator, table: int, index: int) -> None:
    """Add a page table entry to RBX; RAX is used."""
    g.code.load(RAX, at(g.pick((K, L)), table, 8 * index))
    g.code.rm(b"\x03", RBX, RAX, 0, 8)
    g.flags(ARITHMETIC)
