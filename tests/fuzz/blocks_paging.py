"""Blocks that change page tables and control registers, and look at the result with data accesses."""

from typing import Final

from hibana.units import MIB, PAGE
from tests.fuzz import blocks_compute, vector, world
from tests.fuzz.cpus import DEVICES_DIRTY, UNALIGNED_DEVICES
from tests.fuzz.encoder import R12, R14, RAX, RBX, RCX, RDI, RDX, RSI, RSP
from tests.fuzz.generator import AF, ARITHMETIC, Entry, Generator
from tests.fuzz.paging import (
    CLEAR,
    SET,
    change_control,
    data_frame,
    enter_space,
    entry,
    flush,
    invalidate,
    map_pages,
    pages,
    read_entry,
    reload,
    toggle_global_pages,
    touch,
    write_entries,
)
from tests.fuzz.world import (
    ACCESSED,
    DATA,
    DEVICE,
    DIRTY,
    GLOBAL,
    LARGE,
    LOW_LOCAL,
    NO_EXECUTE,
    ON_DEMAND,
    PRESENT,
    USER,
    WINDOWS,
    WRITABLE,
    K,
    L,
    Window,
    at,
    space_table,
)

_USABLE: Final = PRESENT | WRITABLE
_WP_BIT: Final = 16
_PCD: Final = 0x10
_LOCALS: Final = tuple(window for window in WINDOWS if window.local)
_GLOBALS: Final = tuple(window for window in WINDOWS if not window.local)


def _somewhere(g: Generator) -> tuple[Window, int]:
    """Choose a window, and switch to the space whose mappings will change."""
    window, space = g.pick(WINDOWS), g.below(world.SPACES)
    enter_space(g, space)
    return window, space


def _flags(g: Generator, window: Window) -> int:
    return 0 if window.local or g.chance(0.4) else GLOBAL


def _remap(g: Generator) -> None:
    """Map pages, use them, map them elsewhere, use them again."""
    window, space = _somewhere(g)
    count = 1 + g.below(4)
    index = pages(g, count)
    for _ in range(1 + g.below(3)):
        values = [entry(g, data_frame(g), _USABLE | _flags(g, window)) for _ in range(count)]
        map_pages(g, window, space, index, values)
        for _ in range(1 + g.below(4)):
            touch(g, window.base + (index + g.below(count)) * PAGE)
        if count > 1 and g.chance(0.5):  # across the boundary of two pages that are not neighbours in memory
            touch(g, window.base + (index + 1) * PAGE - 8 + g.below(8), 9)


def _protect(g: Generator) -> None:
    """Take rights away, and everything; some of the accesses fault."""
    window, space = _somewhere(g)
    index = pages(g, 1)
    for _ in range(2 + g.below(3)):
        kind = g.pick((_USABLE, PRESENT, PRESENT | USER, _USABLE | USER, _USABLE | NO_EXECUTE, WRITABLE, 0))
        map_pages(g, window, space, index, [entry(g, data_frame(g), kind)])
        for _ in range(1 + g.below(3)):
            touch(g, window.base + index * PAGE)


def _accessed_and_dirty(g: Generator) -> None:
    """Clear the A and D bits, use the page, read its entry."""
    window, space = _somewhere(g)
    index, frame = pages(g, 1), data_frame(g)
    for _ in range(1 + g.below(3)):
        flags = _USABLE | g.pick((0, 0, ACCESSED, ACCESSED | DIRTY)) | _flags(g, window)
        map_pages(g, window, space, index, [entry(g, frame, flags)])
        for _ in range(g.below(3)):
            touch(g, window.base + index * PAGE)
            read_entry(g, window.table_in(space), index)
        read_entry(g, window.table_in(space), index)


def _spaces(g: Generator) -> None:
    """Show different frames at one address in different spaces, and switch between them."""
    window, index = g.pick(_LOCALS), pages(g, 1)
    for space in range(world.SPACES):
        write_entries(g, window.table_in(space), index, [entry(g, data_frame(g))])
    for _ in range(2 + g.below(6)):
        enter_space(g, g.below(world.SPACES))
        touch(g, window.base + index * PAGE)
        if g.chance(0.3):
            touch(g, at(g.pick((K, L)), data_frame(g)))


def _other_space(g: Generator) -> None:
    """Change the entry of a space that is not the current one, then go there."""
    window, index = g.pick(_LOCALS), pages(g, 1)
    here, there = g.dice.sample(range(world.SPACES), 2)
    for _ in range(1 + g.below(3)):
        enter_space(g, there)
        touch(g, window.base + index * PAGE)
        enter_space(g, here)
        write_entries(g, window.table_in(there), index, [entry(g, data_frame(g))])
        touch(g, at(K, data_frame(g)))
        enter_space(g, there)
        touch(g, window.base + index * PAGE)


def _global(g: Generator) -> None:
    """Use pages in a shared window across switches, global or not, and remap them as either kind allows."""
    window, index = g.pick(_GLOBALS), pages(g, 2)
    address = window.base + index * PAGE
    for _ in range(1 + g.below(3)):
        stays = g.chance(0.5)
        flags = _USABLE | (GLOBAL if stays else 0)
        write_entries(g, window.table, index, [entry(g, data_frame(g), flags) for _ in range(2)])
        invalidate(g, address, 2)  # whatever was there before
        touch(g, address)
        touch(g, address + PAGE)
        enter_space(g, g.below(world.SPACES))
        touch(g, address)
        write_entries(g, window.table, index, [entry(g, data_frame(g), flags) for _ in range(2)])
        choice = g.below(2)
        if stays and choice:
            toggle_global_pages(g, 1 + g.below(2))
        elif stays:
            invalidate(g, address, 2)
        elif choice:
            reload(g)
        else:
            enter_space(g, g.below(world.SPACES))
        touch(g, address)
        touch(g, address + PAGE)


def _big(g: Generator) -> None:
    """Map 2 MiB at once, or the same region by small pages, and change from one to the other."""
    half, space = g.below(2), g.below(world.SPACES)
    enter_space(g, space)
    table, index = world.big_entry(half)
    base = world.HIGH_BIG if half else world.LOW_BIG
    for _ in range(1 + g.below(3)):
        frame = data_frame(g)
        gpa = g.layout.gpa(frame)
        if g.chance(0.7):
            value = gpa & -2 * MIB | _USABLE | LARGE | g.pick((0, 0, GLOBAL, NO_EXECUTE, USER))
            address = base + (gpa & 2 * MIB - 1)
        else:
            value = entry(g, g.pick((world.PT_L, world.PT_U)))
            address = base + frame * PAGE
        write_entries(g, space_table(space, table), index, [value])
        toggle_global_pages(g, 1 + g.below(2))  # many pages are meant, and some may be global
        for _ in range(1 + g.below(3)):
            touch(g, address)
        if value & LARGE and g.chance(0.6):  # one INVLPG is for the whole of a large page
            write_entries(g, space_table(space, table), index, [0])
            invalidate(g, base + g.below(512) * PAGE)
            touch(g, address)
    write_entries(g, space_table(space, table), index, [0])
    toggle_global_pages(g, 2)


def _sweep(g: Generator) -> None:
    """Map and touch so many pages that caches of any size overflow, before and after a switch."""
    window, space = _somewhere(g)
    count = g.pick((20, 70, 100, 200, 400))
    first = g.below(world.WINDOW_PAGES - count + 1)
    flags = _flags(g, window)
    for _ in range(1 + g.below(2)):
        _map_many(g, at(K, window.table_in(space), 8 * first), g.layout.gpa(DATA + g.below(8)) | _USABLE | flags, count)
        if flags or not window.local:
            toggle_global_pages(g, 1 + g.below(2))
        else:
            reload(g)
        _touch_many(g, window.base + first * PAGE, count)
        if g.chance(0.7):
            enter_space(g, (space + 1) % world.SPACES)
            if g.chance(0.5):
                touch(g, at(L, data_frame(g)))
            enter_space(g, space)
            _touch_many(g, window.base + first * PAGE, count)


def _map_many(g: Generator, table: int, value: int, count: int) -> None:
    """Map `count` pages to eight frames in turn; RAX, RCX, RDX and RDI are used."""
    code = g.code
    code.load(RDI, table)
    code.load(RDX, value)
    code.load(RCX, count)
    top = code.here()
    code.mov(RAX, RCX)
    code.alui(4, RAX, 7)
    code.dr(b"\xc1", 4, RAX)  # shl eax, 12
    code.imm8(12)
    code.alu(0, RDX, RAX, 8)
    code.raw(b"\xfc\x48\xab")  # cld; stosq
    code.short(0xE2, top)  # loop
    g.flags(ARITHMETIC)


def _touch_many(g: Generator, address: int, count: int) -> None:
    code, step = g.code, PAGE + g.pick((0, 0, 8, 64))
    count = min(count, count * PAGE // step)

    def sweep() -> None:
        code.load(RSI, address)
        code.load(RCX, count)
        top = code.here()
        if g.chance(0.6):
            code.rm(b"\x03", RBX, RSI, 0, 8)  # add rbx, [rsi]
        else:
            code.rm(b"\x01", RBX, RSI, 0, 8)
        code.alui(0, RSI, step, 8)
        code.short(0xE2, top)
        g.flags(ARITHMETIC)

    g.may_fault(sweep)


def _on_demand(g: Generator) -> None:
    """Map pages when they fault, and try the instruction again."""
    space, count = g.below(world.SPACES), 3
    enter_space(g, space)
    index = pages(g, count)
    values = [entry(g, data_frame(g), WRITABLE | ON_DEMAND) for _ in range(count)]
    write_entries(g, LOW_LOCAL.table_in(space), index, values)
    flush(g, LOW_LOCAL, index, count)
    base = LOW_LOCAL.base + index * PAGE
    kind = g.below(4)
    if kind == 0:
        for _ in range(3):
            touch(g, base + g.pick((0, PAGE - 4, 2 * PAGE - 6)), PAGE - 8)
    elif kind == 1:
        g.may_fault(lambda: _copy_across(g, base))
    elif kind == 2 and g.ist:  # the stack: CALL, PUSH, ENTER
        g.may_fault(lambda: _stack_across(g, base))
    else:
        g.need(ARITHMETIC)
        g.aim(base + PAGE - 256)
        g.code.dm(b"\x0f\xae", 0, R12)  # fxsave
        vector.define_image(g, 0)
    for page in range(count):
        read_entry(g, LOW_LOCAL.table_in(space), index + page)


def _copy_across(g: Generator, base: int) -> None:
    code, backwards = g.code, g.chance(0.4)
    code.load(RSI, at(K, DATA + 4, g.below(PAGE)))
    code.load(RDI, base + 2 * PAGE + g.below(PAGE - 64) if backwards else base + g.below(PAGE))
    code.load(RCX, 1 + g.below(PAGE // 4))
    code.raw(b"\xfd" if backwards else b"\xfc")
    code.raw(g.pick((b"\xf3\xa4", b"\xf3\x48\xa5", b"\xf3\xaa", b"\xf3\x48\xab", b"\xf3\xac")))
    code.raw(b"\xfc")


def _stack_across(g: Generator, base: int) -> None:
    code, after, function = g.code, g.code.label(), g.code.label()
    code.load(RSP, base + 2 * PAGE + 8 * g.below(3))
    for _ in range(1 + g.below(3)):
        code.push(g.free())
    code.call(function)
    code.jmp(after)
    code.bind(function)
    code.raw(b"\xc8\x20\x00\x00\xc9\xc3")  # enter 32, 0; leave; ret
    code.bind(after)
    code.mov(RSP, R14)


def _table_in_window(g: Generator) -> None:
    """Map a page table into its own window and change it there."""
    window, space = _somewhere(g)
    code, index = g.code, pages(g, 2)
    table = window.table_in(space)
    map_pages(g, window, space, index, [entry(g, table, _USABLE), entry(g, data_frame(g))])
    for _ in range(1 + g.below(3)):
        touch(g, window.base + (index + 1) * PAGE)
        code.load(RDI, window.base + index * PAGE + 8 * (index + 1))
        code.load(RAX, entry(g, data_frame(g)))
        code.store(RAX, RDI)
        invalidate(g, window.base + (index + 1) * PAGE)
        touch(g, window.base + (index + 1) * PAGE)


def _write_protect(g: Generator) -> None:
    """Write to a read-only page with CR0.WP clear and set."""
    window, space = _somewhere(g)
    index = pages(g, 1)
    map_pages(g, window, space, index, [entry(g, data_frame(g), PRESENT)])
    for how in g.pick(((CLEAR, SET), (SET, CLEAR, SET))):
        change_control(g, 0, how, _WP_BIT)
        invalidate(g, window.base + index * PAGE)
        touch(g, window.base + index * PAGE)


def _upper_tables(g: Generator) -> None:
    """Take rights away in a page directory, or exchange the tables behind it, and put everything back."""
    space = g.below(world.SPACES)
    enter_space(g, space)
    half = g.below(2)
    window = (LOW_LOCAL, world.HIGH_LOCAL)[half]
    directory, place = space_table(space, world.HIGH_PD if half else world.LOW_PD), 1 if half else 2
    index = pages(g, 1)
    everything = PRESENT | WRITABLE | USER | ACCESSED | DIRTY
    tables = {at_space: window.table_in(at_space) for at_space in range(world.SPACES)}
    for table in tables.values():
        write_entries(g, table, index, [entry(g, data_frame(g))])
    reload(g)
    touch(g, window.base + index * PAGE)
    changed = g.pick((0, everything & ~WRITABLE, everything | NO_EXECUTE, everything & ~PRESENT, everything))
    table = tables[g.below(world.SPACES)] if changed == everything else tables[space]
    write_entries(g, directory, place, [entry(g, table, changed)])
    if g.pick((False, True)):
        invalidate(g, window.base + index * PAGE)
    else:
        reload(g)
    touch(g, window.base + index * PAGE)
    touch(g, window.base + index * PAGE)
    write_entries(g, directory, place, [entry(g, tables[space], everything)])
    reload(g)
    touch(g, window.base + index * PAGE)


def _control_registers(g: Generator) -> None:
    """Write control registers for the sake of it, with accesses in between."""
    for _ in range(2 + g.below(6)):
        kind = g.below(4)
        if kind == 0:
            toggle_global_pages(g, 1)
        elif kind == 1:
            reload(g)
        else:
            enter_space(g, g.below(world.SPACES))
        if g.chance(0.6):
            touch(g, at(g.pick((K, L)), data_frame(g)))


def _device(g: Generator) -> None:
    """Map registers of a device and use them."""
    window, space = _somewhere(g)
    code, index = g.code, pages(g, 1)
    used = 0 if g.may(DEVICES_DIRTY) else ACCESSED | DIRTY
    map_pages(g, window, space, index, [DEVICE | _USABLE | _PCD | used | _flags(g, window)])
    g.aim(window.base + index * PAGE)
    for _ in range(1 + g.below(5)):
        size = g.pick((1, 2, 4, 8))
        offset, kind = size * g.below(64), g.below(4)
        if kind == 0:
            code.store(g.free(), R12, offset, size)
        elif kind == 1:
            code.rm(b"\x30" if size == 1 else b"\x31", g.free(), R12, offset, size)  # xor [r12], r
            g.flags(ARITHMETIC & ~AF, AF)
        else:
            code.fetch(g.free(), R12, offset, size)
    if not g.may(UNALIGNED_DEVICES):  # as other blocks would, when they find it in their window
        map_pages(g, window, space, index, [0])


def _strings(g: Generator) -> None:
    """Copy strings in a space of its own choice."""
    enter_space(g, g.below(world.SPACES))
    blocks_compute.string(g)


BLOCKS: Final[dict[str, Entry]] = {
    "remap": Entry(6, _remap),
    "protect": Entry(4, _protect),
    "accessed and dirty": Entry(3, _accessed_and_dirty),
    "spaces": Entry(5, _spaces),
    "other space": Entry(4, _other_space),
    "global": Entry(6, _global),
    "big": Entry(3, _big),
    "sweep": Entry(3, _sweep),
    "on demand": Entry(4, _on_demand),
    "table in window": Entry(3, _table_in_window),
    "write protect": Entry(2, _write_protect),
    "upper tables": Entry(3, _upper_tables),
    "control registers": Entry(4, _control_registers),
    "device": Entry(2, _device),
    "strings in a space": Entry(2, _strings),
}
