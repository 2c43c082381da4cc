"""What the tables of the accelerations promise, checked against the TLB and the translated code as they are.

Between two instructions of a guest all of this must hold, whatever the guest has done.
"""

import ctypes
from collections.abc import Iterator
from typing import Final, NamedTuple

from hibana.engine.soft import machine_code
from hibana.engine.soft.fast import switch
from hibana.engine.soft.offsets import CPU, ENV, TB, TLB, TLBE
from hibana.engine.soft.processor import Processor
from hibana.memory.guest import GuestMemory
from hibana.units import PAGE

EMPTY: Final = (1 << 64) - 1
FLAGS: Final = PAGE - 1
SLOW: Final = 0xE40  # asks before a store, in one way or another
INVALID: Final = 1 << 18
USER_MODE: Final = 1
UPPER_HALF: Final = 1 << 63


class Entry(NamedTuple):
    """An entry of the software TLB."""

    mmu: int
    read: int
    write: int
    code: int
    addend: int

    @property
    def page(self) -> int:
        """Give the virtual page."""
        return next(addr & ~FLAGS for addr in (self.read, self.write, self.code) if addr != EMPTY)


def tlb(processor: Processor) -> Iterator[Entry]:
    """Read all entries that are in use, those that were pushed out as well."""
    for mmu in range(TLB.MODES):
        mask, table = _u64s(processor.env + TLB.mask + TLB.FAST_SIZE * mmu, 2)
        victims = processor.env + TLB.vtable + TLB.DESC_SIZE * mmu
        for start, count in ((table, mask // TLBE.SIZE + 1), (victims, TLB.VICTIMS)):
            for number in range(count):
                read, write, code, _, addend = _u64s(start + TLBE.SIZE * number, 5)
                if read & write & code != EMPTY:
                    yield Entry(mmu, read, write, code, addend)


def blocks(processor: Processor) -> set[int]:
    """Give the blocks that the library's cache and ours point to."""
    found = set(_u64s(processor.cpu + CPU.tb_jmp_cache, 4096))
    if cache := switch.load().on.get("block-cache"):
        found |= set(_u64s(cache.get("blocks"), 2 * cache.get("last_pair") + 2))
    return found - {0}


def broken(processor: Processor, memory: GuestMemory, tables_unchanged: bool = False) -> list[str]:
    """Name the promises that do not hold; `tables_unchanged` says that no page table has changed since it was used."""
    return [
        *_stores_that_do_not_ask(processor),
        *_pages_that_hold_code(processor),
        *_pages_that_stay(processor, memory, tables_unchanged),
        *_cached_blocks(),
    ]


def _stores_that_do_not_ask(processor: Processor) -> Iterator[str]:
    plain = machine_code.load()[1]
    ram, size, table = plain.get("ram"), plain.get("ram_size"), plain.get("holds_code")
    for entry in tlb(processor):
        if entry.write != EMPTY and not entry.write & SLOW:
            offset = (entry.write + entry.addend) % (1 << 64) - ram
            if not 0 <= offset < size:
                yield f"{entry.write:#x} is writable and not in RAM"
            elif ctypes.c_uint8.from_address(table + offset // PAGE).value:
                yield f"{entry.write:#x} is writable without asking, and its page holds code"


def _pages_that_hold_code(processor: Processor) -> Iterator[str]:
    plain = machine_code.load()[1]
    size, table = plain.get("ram_size"), plain.get("holds_code")
    for block in blocks(processor):
        if not ctypes.c_uint32.from_address(block + TB.cflags).value & INVALID:
            for page in _u64s(block + TB.page_addr, 2):
                if page < size and not ctypes.c_uint8.from_address(table + page // PAGE).value:
                    yield f"there is a block of page {page:#x}, of which the table says that it holds no code"


def _pages_that_stay(processor: Processor, memory: GuestMemory, tables_unchanged: bool) -> Iterator[str]:
    unit = switch.load().on.get("global-pages")
    if not unit or unit.byte("everything").value:
        return
    listed = unit.get("listed")
    if listed > unit.get("list_length"):
        yield f"{listed} pages are listed"
        return
    listed_pages = _u64s(unit.get("list"), listed)
    for entry in tlb(processor):
        if entry.page & UPPER_HALF:
            if tables_unchanged and not is_global(processor, memory, entry.page):
                yield f"{entry.page:#x} would stay, and is not global"
        elif not unit.byte("user").value and (entry.mmu == USER_MODE or entry.code != EMPTY):
            yield f"{entry.page:#x} is a user's or executable, and would stay"
        elif entry.mmu != USER_MODE and entry.page not in listed_pages:
            yield f"{entry.page:#x} is not listed and would stay"


def is_global(processor: Processor, memory: GuestMemory, page: int) -> bool:
    """Walk four levels of page tables to the G bit."""
    table = ctypes.c_uint64.from_address(processor.env + ENV.cr + 8 * 3).value
    for shift in (39, 30, 21, 12):
        addr = (table & 0x000FFFFFFFFFF000) + 8 * (page >> shift & 511)
        table = int.from_bytes(memory.read(addr, 8), "little")
        if shift == 12 or table & 0x80:
            break
    return bool(table & 0x100)


def _cached_blocks() -> Iterator[str]:
    cache = switch.load().on.get("block-cache")
    if not cache:
        return
    last = cache.get("last_pair")
    for place, block in enumerate(_u64s(cache.get("blocks"), 2 * last + 2)):
        if block:
            pc = ctypes.c_uint64.from_address(block + TB.pc).value
            if (pc ^ pc >> 11) & last != place // 2:
                yield f"a block of {pc:#x} is at place {place} of the cache"


def _u64s(address: int, count: int) -> tuple[int, ...]:
    return tuple((ctypes.c_uint64 * count).from_address(address))
