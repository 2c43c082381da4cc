"""Blocks that change code: their own, that of functions, by every kind of store, through every address of a page."""

from typing import Final

from hibana.units import PAGE
from tests.fuzz import functions, integer, world
from tests.fuzz.encoder import R12, R13, RAX, RBX, RCX, RDI, RSI
from tests.fuzz.functions import call, write_function, write_immediate
from tests.fuzz.generator import AF, ARITHMETIC, Action, Entry, Generator, Write
from tests.fuzz.world import CODE, DATA, at

_MOV_EAX: Final = 0xB8
_MOST_ROUNDS: Final = 4


def _calls(g: Generator) -> None:
    """Call functions as they are, through all addresses."""
    for _ in range(2 + g.below(6)):
        call(g, at(g.pick(g.regions), *functions.slot(g)))


def _aliases(g: Generator) -> tuple[int, int]:
    """Choose the regions through which code is written and executed."""
    runs = g.pick(g.regions)
    return (runs if g.chance(0.4) else g.pick(g.regions)), runs


def _rewrite(g: Generator) -> None:
    """Replace a function and call it, several times."""
    frame, offset = functions.slot(g)
    for _ in range(1 + g.below(_MOST_ROUNDS)):
        writes, runs = _aliases(g)
        write_function(g, at(writes, frame, offset), functions.function(g.dice))
        if writes != runs:
            g.serialize()
        call(g, at(runs, frame, offset))
        if g.chance(0.3):
            call(g, at(g.pick(g.regions), *functions.slot(g)))


def _renumber(g: Generator) -> None:
    """Change a number inside a function and call it, in a loop."""
    frame, offset = functions.slot(g)
    writes, runs = _aliases(g)
    write_function(g, at(writes, frame, offset), functions.with_immediate(g.dice))
    g.serialize()

    def body() -> None:
        write_immediate(g, at(writes, frame, offset))
        if writes != runs:
            g.serialize()
        call(g, at(runs, frame, offset))

    g.loop(1 + g.below(_MOST_ROUNDS), body)


def _across(g: Generator) -> None:
    """Call a function that crosses a page boundary, and change either part."""
    code, frame = g.code, CODE + g.below(world.CODE_FRAMES - 1)
    for _ in range(1 + g.below(_MOST_ROUNDS)):
        writes, runs = _aliases(g)
        size = g.pick((1, 1, 2, 4))
        code.load(RDI, at(writes, frame, PAGE - g.split) + g.below(5 - size))
        code.load(RAX, g.number())
        code.store(RAX, RDI, 0, size)
        if writes != runs:
            g.serialize()
        call(g, at(runs, frame, PAGE - 1 - g.split))


def _next_instruction(g: Generator) -> None:
    """Rewrite the number in the instruction that follows, in a loop."""
    code = g.code

    def body() -> None:
        target, size = code.label(), g.pick((1, 2, 4))
        code.lea_label(RDI, target)
        code.alu(0, R13, RBX, 4)  # add ebx, r13d
        g.flags(ARITHMETIC)
        kind = g.below(3)
        if kind == 0:
            code.store(RBX, RDI, 1, size)
        elif kind == 1:
            code.lock()
            code.rm(b"\x01", RBX, RDI, 1, 4)
        else:
            code.rm(b"\x87", RBX, RDI, 1, 4)  # xchg
        for _ in range(g.below(3)):
            code.raw(b"\x90")
        code.bind(target)
        code.raw(bytes((_MOV_EAX,)) + b"\0\0\0\0")
        code.alu(6, RAX, RBX, 4)
        g.flags(ARITHMETIC & ~AF, AF)

    g.loop(1 + g.below(_MOST_ROUNDS), body)


def _neighbour(g: Generator) -> None:
    """Change data that lies in the page of the code that runs."""
    code = g.code
    start, number = code.label(), code.label()
    code.jmp(start)
    code.bind(number)
    code.raw(g.dice.randbytes(16))
    code.bind(start)

    def body() -> None:
        for _ in range(1 + g.below(4)):
            code.rip(g.pick((b"\x01", b"\x29", b"\x31", b"\x89")), g.free(), number, g.pick((2, 4, 8)))
            g.flags(ARITHMETIC, AF)
        code.rip(b"\x8b", RAX, number, 8)

    g.loop(1 + g.below(12), body)


def _copy(g: Generator) -> None:
    """Copy functions, or a whole frame of them, over others."""
    code = g.code
    (source, _), (target, offset) = functions.slot(g), functions.slot(g)
    writes, runs = _aliases(g)
    whole = g.chance(0.4)
    start = 0 if whole else offset & ~0x7F
    code.load(RSI, at(g.pick(g.regions), source, start))
    code.load(RDI, at(writes, target, start))
    code.load(RCX, (0xB00 if whole else 0x80) // 8)
    code.raw(b"\xfc\xf3\x48\xa5")
    if writes != runs:
        g.serialize()
    else:
        g.serialize_after_string()
    call(g, at(runs, target, offset))
    call(g, at(runs, target, functions.FIRST_SLOT if whole else offset))


def _by_host(g: Generator) -> None:
    """Let the host replace a function, a part of one, or frames full of them."""
    frame, offset = functions.slot(g)
    runs = g.pick(g.regions)
    call(g, at(runs, frame, offset))
    kind = g.below(3)
    if kind == 0:
        g.act([Write(frame, offset, functions.function(g.dice))])
    elif kind == 1:
        writes = [Write(frame, offset, functions.with_immediate(g.dice))]
        g.act(writes)
        call(g, at(runs, frame, offset))
        g.act([Write(frame, offset + 1, g.dice.randbytes(1 + g.below(4)))])
    else:
        first, count = CODE + g.below(4), 1 + g.below(4)
        pool = functions.POOLS[g.split]
        g.act([Write(first + n, 0, g.pick(pool)) for n in range(count)], through_window=g.chance(0.5))
    call(g, at(runs, frame, offset))


def _across_by_host(g: Generator) -> None:
    """Let the host rewrite a function that crosses pages."""
    frame, runs = CODE + g.below(world.CODE_FRAMES - 1), g.pick(g.regions)
    entry = PAGE - 1 - g.split
    call(g, at(runs, frame, entry))
    g.act(functions.host_write(frame, entry, b"\xb8" + g.dice.randbytes(4) + b"\xc3"))
    call(g, at(runs, frame, entry))


def _own_code_by_host(g: Generator) -> None:
    """Let the host change an instruction of this block, behind a jump."""
    code = g.code
    target = code.label()
    number = g.act([])
    code.jmp(target)
    code.raw(b"\xcc" * g.below(8))
    code.bind(target)
    code.raw(bytes((_MOV_EAX,)) + b"\0\0\0\0")
    code.alu(0, RAX, RBX, 8)
    g.flags(ARITHMETIC)
    g.actions[number] = Action((Write(-1, code.where(target) + 1, g.dice.randbytes(4)),), False)


def _data_by_host(g: Generator) -> None:
    """Read and write data while the host writes it."""
    frame, offset = DATA + g.below(world.DATA_FRAMES - 3), g.below(PAGE)
    g.aim(at(g.pick(g.regions), frame))
    integer.soup(g, 2 + g.below(4))
    g.act([Write(frame, offset, g.dice.randbytes(1 + g.below(PAGE - offset)))], through_window=g.chance(0.5))
    integer.soup(g, 2 + g.below(4))
    g.code.fetch(RCX, R12, offset & ~7)


BLOCKS: Final[dict[str, Entry]] = {
    "calls": Entry(3, _calls),
    "rewrite": Entry(6, _rewrite),
    "renumber": Entry(5, _renumber),
    "across pages": Entry(5, _across),
    "next instruction": Entry(4, _next_instruction),
    "neighbour": Entry(3, _neighbour),
    "copy": Entry(3, _copy),
    "code by host": Entry(5, _by_host),
    "across pages by host": Entry(3, _across_by_host),
    "own code by host": Entry(2, _own_code_by_host),
    "data by host": Entry(3, _data_by_host),
}
