"""Blocks that execute code through mappings of their own making, from ring 0, ring 3 and 32-bit segments."""

from collections.abc import Callable
from typing import Final

from hibana.units import PAGE
from tests.fuzz import functions, integer, vector, world
from tests.fuzz.cpus import FETCH_FAULT_LATER
from tests.fuzz.encoder import R11, R12, R13, R14, R15, RAX, RBX, RCX, RDI, RDX, RSP
from tests.fuzz.functions import call, write_function, write_immediate
from tests.fuzz.generator import AF, ARITHMETIC, FREE, Entry, Generator
from tests.fuzz.paging import (
    CLEAR,
    SET,
    change_control,
    data_frame,
    enter_space,
    entry,
    invalidate,
    map_pages,
    pages,
    touch,
    write_entries,
)
from tests.fuzz.world import (
    CODE,
    DATA,
    GLOBAL,
    LOW_LOCAL,
    NO_EXECUTE,
    PRESENT,
    USER,
    WINDOWS,
    WRITABLE,
    K,
    L,
    U,
    Window,
    at,
)

_USABLE: Final = PRESENT | WRITABLE
_SMEP_BIT: Final = 20
_USER_FLAGS: Final = 0x202
_IRETQ, _RETFQ, _SYSRETQ, _SYSCALL = b"\x48\xcf", b"\x48\xcb", b"\x48\x0f\x07", b"\x0f\x05"
_INT_80: Final = b"\xcd\x80"


def _code_frame(g: Generator) -> int:
    return CODE + g.below(world.CODE_FRAMES)


def _slot_offset(g: Generator) -> int:
    return functions.slot(g)[1]


def _flags(g: Generator, window: Window) -> int:
    return _USABLE | (0 if window.local or g.chance(0.5) else GLOBAL)


# --- through windows --------------------------------------------------------------------------------------------------


def _execute(g: Generator) -> None:
    """Map code frames, call functions there, map others in their place, call again."""
    window, space = g.pick(WINDOWS), g.below(world.SPACES)
    enter_space(g, space)
    index, offset = pages(g, 2), _slot_offset(g)
    address = window.base + index * PAGE
    for _ in range(1 + g.below(3)):
        map_pages(g, window, space, index, [entry(g, _code_frame(g), _flags(g, window)) for _ in range(2)])
        call(g, address + offset)
        if g.chance(0.6):  # from one page into the other
            call(g, address + PAGE - 1 - g.split)
        if g.chance(0.5):  # only the second page changes
            write_entries(g, window.table_in(space), index + 1, [entry(g, _code_frame(g), _flags(g, window))])
            invalidate(g, address + PAGE)
            call(g, address + PAGE - 1 - g.split)
            call(g, address + offset)


def _execute_in_spaces(g: Generator) -> None:
    """Show different code at one address in different spaces; call there after switches."""
    window = g.pick([window for window in WINDOWS if window.local])
    index, offset = pages(g, 1), _slot_offset(g)
    for space in range(world.SPACES):
        write_entries(g, window.table_in(space), index, [entry(g, _code_frame(g))])
    for _ in range(2 + g.below(5)):
        enter_space(g, g.below(world.SPACES))
        call(g, window.base + index * PAGE + offset)


def _write_here_run_there(g: Generator) -> None:
    """Map a code frame and write functions through the one address that run through the other."""
    window, space = g.pick(WINDOWS), g.below(world.SPACES)
    enter_space(g, space)
    index, frame, offset = pages(g, 1), _code_frame(g), _slot_offset(g)
    runs_in_window = g.chance(0.5)
    flags = _flags(g, window) | (NO_EXECUTE if not runs_in_window and g.chance(0.5) else 0)
    map_pages(g, window, space, index, [entry(g, frame, flags)])
    inside, outside = window.base + index * PAGE + offset, at(g.pick((K, L)), frame, offset)
    runs, writes = (inside, outside) if runs_in_window else (outside, inside)
    write_function(g, writes, functions.with_immediate(g.dice))
    g.serialize()
    for _ in range(1 + g.below(3)):
        call(g, runs)
        write_immediate(g, writes)
        g.serialize()
        call(g, runs)


def _forbidden(g: Generator) -> None:
    """Call where one may not: no page, not executable, the second half missing, a user page under SMEP."""
    space = g.below(world.SPACES)
    enter_space(g, space)
    index, offset = pages(g, 2), _slot_offset(g)
    address = LOW_LOCAL.base + index * PAGE
    frame = _code_frame(g)
    kind = g.below(4)
    if kind == 2 and g.split == functions.WHOLE_NUMBER and not g.may(FETCH_FAULT_LATER):
        kind = 1
    first, second = (
        (0, 0), (_USABLE | NO_EXECUTE, 0), (_USABLE, g.pick((0, _USABLE | NO_EXECUTE))), (_USABLE | USER,) * 2
    )[kind]  # fmt: skip
    map_pages(g, LOW_LOCAL, space, index, [entry(g, frame, first), entry(g, _code_frame(g), second)])
    if kind == 3:
        change_control(g, 4, SET, _SMEP_BIT)
    for _ in range(1 + g.below(2)):
        place = address + (PAGE - 1 - g.split if kind == 2 else offset)
        g.may_fault(lambda place=place: call(g, place))  # type: ignore[misc]
    if kind == 3:
        change_control(g, 4, CLEAR, _SMEP_BIT)
        call(g, address + offset)
        return
    write_entries(g, LOW_LOCAL.table_in(space), index, [entry(g, frame)])
    invalidate(g, address)
    call(g, address + offset)


# --- ring 3 -----------------------------------------------------------------------------------------------------------


def in_user_mode(g: Generator, body: Callable[[], None]) -> None:
    """Go to ring 3, do something there, come back."""
    code = g.code
    inside, out = code.label(), code.label()
    user_stack = at(U, world.USER_STACK, PAGE - 8 * g.below(32))
    g.need(ARITHMETIC)
    flags = _USER_FLAGS if g.chance(0.8) else 2
    if g.chance(0.5):
        for value in (world.USER_DATA, user_stack, flags, world.USER_CODE):
            code.load(RAX, value)
            code.push(RAX)
        code.absolute(RAX, inside, U)
        code.push(RAX)
        code.raw(_IRETQ)
    else:
        code.absolute(RCX, inside, U)
        code.load(R11, flags)
        code.load(RSP, user_stack)
        code.raw(_SYSRETQ)
    code.bind(inside)
    code.mov(R14, RSP)
    g.undefined, g.user = 0, True
    leave = code.label()
    code.lea_label(R15, leave)
    body()
    code.bind(leave)
    g.define_flags()
    code.absolute(R15, out, g.home)
    code.load(R14, g.stack_top)
    code.raw(g.pick((_SYSCALL, _INT_80)))
    g.user = False
    code.bind(out)


def _user(g: Generator) -> None:
    """Compute in ring 3."""

    def body() -> None:
        g.aim_at_data()
        g.pick((integer.soup, vector.sse))(g, 4 + g.below(12))

    in_user_mode(g, body)


def _user_code(g: Generator) -> None:
    """Write code in ring 3 and run it there, then in ring 0; or the other way round."""
    frame, offset = functions.slot(g)
    address = at(U, frame, offset)
    if g.chance(0.5):
        write_function(g, at(g.pick(g.regions), frame, offset), functions.function(g.dice))
        g.serialize()

    def body() -> None:
        call(g, address)
        for _ in range(g.below(3)):
            write_function(g, address, functions.function(g.dice))
            call(g, address)

    in_user_mode(g, body)
    call(g, at(g.pick(g.regions), frame, offset))
    if g.chance(0.5):
        in_user_mode(g, body)


def _user_pages(g: Generator) -> None:
    """Use a window in ring 3: some pages are not for users."""
    window, space = g.pick(WINDOWS), g.below(world.SPACES)
    enter_space(g, space)
    index = pages(g, 3)
    choices = (_USABLE | USER, _USABLE | USER, PRESENT | USER, _USABLE, 0)
    kept = 0 if window.local or g.chance(0.5) else GLOBAL
    values = [entry(g, data_frame(g), g.pick(choices) | kept) for _ in range(3)]
    for _ in range(1 + g.below(2)):
        map_pages(g, window, space, index, values)

        def body() -> None:
            for _ in range(1 + g.below(4)):
                touch(g, window.base + (index + g.below(3)) * PAGE)

        in_user_mode(g, body)
        if g.chance(0.6):
            enter_space(g, (space + g.below(2)) % world.SPACES)
            touch(g, at(K, data_frame(g)))
            enter_space(g, space)
            in_user_mode(g, body)
        g.dice.shuffle(values)


def _user_spaces(g: Generator) -> None:
    """Run user code at one address in several spaces, as processes do."""
    index, offset = pages(g, 1), _slot_offset(g)
    for space in range(world.SPACES):
        write_entries(g, LOW_LOCAL.table_in(space), index, [entry(g, _code_frame(g), _USABLE | USER)])
    address = LOW_LOCAL.base + index * PAGE
    for _ in range(2 + g.below(3)):
        enter_space(g, g.below(world.SPACES))

        def body() -> None:
            call(g, address + offset)
            if g.chance(0.3):
                g.code.load(RDI, address + 0xB80)
                g.code.store(RBX, RDI)

        in_user_mode(g, body)


def _system_calls(g: Generator) -> None:
    """Call the kernel from ring 3 and return."""

    def body() -> None:
        for _ in range(1 + g.below(4)):
            g.define_flags()
            g.code.alu(6, R15, R15)  # R15 = 0: the kernel returns
            g.flags(ARITHMETIC & ~AF, AF)
            g.define_flags()
            g.code.raw(_SYSCALL)
            integer.soup(g, g.below(3))

    def aimed() -> None:
        g.aim_at_data()
        body()

    in_user_mode(g, aimed)


# --- 32-bit segments --------------------------------------------------------------------------------------------------

_NARROW: Final = (
    b"\x40", b"\x41", b"\x4a", b"\x4b", b"\x01\xd8", b"\x29\xca", b"\x31\xc3", b"\x83\xc0\x05", b"\x0f\xaf\xc2",
    b"\x05\x01\x02\x03\x04", b"\x8d\x04\x4b", b"\x0f\xb6\xc8", b"\xd1\xe2", b"\x11\xc3", b"\x19\xd1",
)  # fmt: skip
"""Instructions that mean something else, or the same, in 64-bit mode; flags are defined by the last one."""


def _narrow(g: Generator) -> None:
    """Run through a 32-bit segment, whose base may not be 0, and come back to 64 bits."""
    code = g.code
    narrow, wide, on = code.label(), code.label(), code.label()
    shifted = g.chance(0.5)
    pointer = at(L, DATA + g.below(world.DATA_FRAMES), 8 * g.below(500))
    g.aim(pointer)
    code.absolute(RDX, wide, L)
    code.store(RDX, R12, 0, 4)
    code.dm(b"\xc7", 0, R12, 4)
    code.imm(world.KERNEL_CODE, 4)
    code.load(RAX, world.SHIFTED_CODE if shifted else world.NARROW_CODE)
    code.push(RAX)
    code.absolute(RAX, narrow, L - world.SHIFT if shifted else L)
    code.push(RAX)
    g.define_flags()
    code.raw(_RETFQ)
    code.bind(narrow)
    for _ in range(2 + g.below(10)):
        code.raw(g.pick(_NARROW))
    code.raw(b"\x39\xd8")  # cmp eax, ebx
    code.raw(b"\xbe" + pointer.to_bytes(4, "little") + b"\xff\x2e")  # mov esi, pointer; jmp far [esi]
    code.bind(wide)
    for register in (*FREE, R12, R13, R15):
        code.mov(register, register, 4)  # 32-bit mode leaves the upper halves undefined
    code.load(RSP, g.stack_top)
    code.mov(R14, RSP)
    code.absolute(RAX, on, g.home)
    code.jump_to(RAX)
    code.bind(on)
    g.undefined = 0


BLOCKS: Final[dict[str, Entry]] = {
    "execute": Entry(6, _execute),
    "execute in spaces": Entry(4, _execute_in_spaces),
    "write here, run there": Entry(5, _write_here_run_there),
    "forbidden": Entry(3, _forbidden),
    "user": Entry(4, _user),
    "user code": Entry(4, _user_code),
    "user pages": Entry(4, _user_pages),
    "user spaces": Entry(3, _user_spaces),
    "system calls": Entry(2, _system_calls),
    "narrow": Entry(2, _narrow),
}
