"""Blocks that compute: integer, SSE, x87 and string instructions, in ring 0, straight and in loops."""

from typing import Final

from hibana.units import PAGE
from tests.fuzz import extensions, integer, vector, world
from tests.fuzz.encoder import RAX, RBX, RCX, RDI, RSI
from tests.fuzz.generator import ARITHMETIC, Entry, Generator
from tests.fuzz.world import DATA, at

_CLD, _STD = b"\xfc", b"\xfd"
_REP, _REPNE = b"\xf3", b"\xf2"
_MOVS, _CMPS, _STOS, _LODS, _SCAS = 0xA4, 0xA6, 0xAA, 0xAC, 0xAE
_LONGEST: Final = 300
_FAR_INSIDE: Final = 3 * PAGE
"""Strings begin this far inside the data frames, so that they stay there in both directions."""


def _integer(g: Generator) -> None:
    g.aim_at_data()
    integer.soup(g, 8 + g.below(30))


def _integer_loop(g: Generator) -> None:
    g.aim_at_data()
    g.loop(2 + g.below(40), lambda: integer.soup(g, 3 + g.below(8)))


def _sse(g: Generator) -> None:
    g.aim_at_data()
    vector.sse(g, 6 + g.below(14))


def _extensions(g: Generator) -> None:
    g.aim_at_data()
    extensions.soup(g, 6 + g.below(14))


def _x87(g: Generator) -> None:
    g.aim_at_data()
    vector.x87(g, 4 + g.below(12))


def _mixed_loop(g: Generator) -> None:
    g.aim_at_data()

    def body() -> None:
        integer.soup(g, 1 + g.below(3))
        vector.sse(g, 1 + g.below(3))

    g.loop(2 + g.below(10), body)


def _long(g: Generator) -> None:
    """Longer than a translation block may be, and than a page now and then."""
    code = g.code
    for _ in range(40 + g.below(700)):
        code.raw(b"\x48\xff" + bytes((0xC0 | g.below(2) << 3 | g.pick((RAX, RBX, RCX)),)))  # inc, dec


def _place(g: Generator, size: int) -> int:
    """Choose an address of a string in the data frames; often at the end of a page."""
    inside = _FAR_INSIDE + g.below((world.DATA_FRAMES - 6) * PAGE)
    if g.chance(0.3):
        inside = (inside & -PAGE) - g.below(3 * size)
    return at(g.pick(g.regions), DATA, inside)


def string(g: Generator) -> None:
    """One string instruction, repeated or not, in either direction."""
    code, size = g.code, g.pick((1, 2, 4, 8))
    operation, backwards = g.pick((_MOVS, _MOVS, _STOS, _STOS, _LODS, _CMPS, _SCAS)), g.chance(0.4)
    source, target = _place(g, size), _place(g, size)
    if g.chance(0.3):
        target = source + g.below(32) - 16  # overlapping
    code.load(RSI, source)
    code.load(RDI, target)
    code.load(RAX, g.number())
    code.load(RCX, g.below(_LONGEST) if g.chance(0.8) else g.below(4))
    code.raw(_STD if backwards else _CLD)
    prefix = g.pick((b"", _REP, _REP, _REPNE if operation in (_CMPS, _SCAS) else _REP))
    if operation in (_CMPS, _SCAS):
        g.define_flags()  # what stays when the count is 0
    if size == 2:
        code.raw(b"\x66")
    code.raw(prefix)
    if size == 8:
        code.raw(b"\x48")
    code.raw(bytes((operation | (size != 1),)))
    code.raw(_CLD)
    if operation in (_CMPS, _SCAS):
        g.flags(ARITHMETIC)


def _strings(g: Generator) -> None:
    for _ in range(1 + g.below(3)):
        string(g)


def _fill(g: Generator) -> None:
    """Give the data frames something to compute with."""
    code = g.code
    code.load(RDI, at(g.pick(g.regions), DATA + g.below(world.DATA_FRAMES - 1), g.below(PAGE)))
    code.load(RAX, g.dice.getrandbits(64))
    code.load(RCX, 8 + g.below(120))
    top = code.here()
    code.rr(b"\x69", RAX, RAX, 8)  # imul rax, rax, imm32
    code.imm(g.dice.getrandbits(31) | 1, 8)
    code.dr(b"\xff", 0, RAX, 8)
    code.raw(_CLD + b"\x48\xab")  # stosq
    code.short(0xE2, top)  # loop
    g.flags(0, ARITHMETIC)
    g.aim(at(g.regions[0], DATA))


BLOCKS: Final[dict[str, Entry]] = {
    "integer": Entry(10, _integer),
    "integer loop": Entry(6, _integer_loop),
    "sse": Entry(5, _sse),
    "extensions": Entry(4, _extensions),
    "x87": Entry(3, _x87),
    "mixed loop": Entry(3, _mixed_loop),
    "strings": Entry(6, _strings),
    "fill": Entry(3, _fill),
    "long": Entry(1, _long),
}
