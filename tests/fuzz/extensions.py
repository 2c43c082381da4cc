"""Instructions that came after SSE2, as far as the soft engine announces them: SSE3 to SSE4.2, AES, PCLMULQDQ."""

from collections.abc import Callable
from typing import Final

from tests.fuzz.cpus import EXPLICIT_LENGTHS, TWO_NANS
from tests.fuzz.encoder import R12
from tests.fuzz.generator import ARITHMETIC, CF, ZF, Generator

_66: Final = b"\x66"
_F2: Final = b"\xf2"
_F3: Final = b"\xf3"

# 0F 38 xx and 0F 3A xx, all with 66: SSSE3, SSE4.1, SSE4.2, AES.
_OF_TWO: Final = (
    *range(0x0C), *range(0x1C, 0x1F), 0x10, 0x14, 0x15, *range(0x20, 0x26), 0x28, 0x29, 0x2B, *range(0x30, 0x36),
    0x37, *range(0x38, 0x42), *range(0xDB, 0xE0),
)  # fmt: skip
_WITH_NUMBER: Final = (0x0C, 0x0D, 0x0E, 0x0F, 0x21, 0x42, 0x44, 0xDF)
_EXTRACTED: Final = ((0x14, 4), (0x16, 4), (0x16, 8), (0x17, 4))
_INSERTED: Final = ((0x20, 4), (0x22, 4), (0x22, 8))
_COMPARED_STRINGS: Final = (0x60, 0x61, 0x62, 0x63)
_HORIZONTAL: Final = ((_F2, 0x7C), (_66, 0x7C), (_F2, 0x7D), (_66, 0x7D), (_F2, 0xD0), (_66, 0xD0))
_DUPLICATED: Final = ((_F2, 0x12), (_F3, 0x12), (_F3, 0x16))


def _xmm(g: Generator) -> int:
    return g.below(16)


def _of_two(g: Generator) -> None:
    opcode = bytes((0x0F, 0x38, g.pick(_OF_TWO)))
    if g.chance(0.7):
        g.code.rr(opcode, _xmm(g), _xmm(g), prefix=_66)
    else:
        g.code.rm(opcode, _xmm(g), R12, g.reach(16, aligned=True), prefix=_66)


def _with_number(g: Generator) -> None:
    g.code.rr(bytes((0x0F, 0x3A, g.pick(_WITH_NUMBER))), _xmm(g), _xmm(g), prefix=_66)
    g.code.imm8(g.below(256))


def _test(g: Generator) -> None:
    """PTEST."""
    g.code.rr(b"\x0f\x38\x17", _xmm(g), _xmm(g), prefix=_66)
    g.flags(ARITHMETIC)


def _between(g: Generator) -> None:
    """PEXTRB, PEXTRD, PEXTRQ, EXTRACTPS, PINSRB, PINSRD, PINSRQ."""
    opcode, size = g.pick((*_EXTRACTED, *_INSERTED))
    g.code.rr(bytes((0x0F, 0x3A, opcode)), _xmm(g), g.free(), size, prefix=_66)
    g.code.imm8(g.below(256))


def _compare_strings(g: Generator) -> None:
    """PCMPESTRM, PCMPESTRI, PCMPISTRM, PCMPISTRI."""
    opcode = g.pick(_COMPARED_STRINGS if g.may(EXPLICIT_LENGTHS) else _COMPARED_STRINGS[2:])
    g.code.rr(bytes((0x0F, 0x3A, opcode)), _xmm(g), _xmm(g), prefix=_66)
    g.code.imm8(g.below(128))
    g.flags(ARITHMETIC)


def _horizontal(g: Generator) -> None:
    prefix, opcode = g.pick((*_HORIZONTAL, *_DUPLICATED) if g.may(TWO_NANS) else _DUPLICATED)
    g.code.rr(bytes((0x0F, opcode)), _xmm(g), _xmm(g), prefix=prefix)


def _crc(g: Generator) -> None:
    """CRC32."""
    size = g.pick((1, 2, 4, 8))
    g.code.rr(b"\x0f\x38\xf0" if size == 1 else b"\x0f\x38\xf1", g.free(), g.free(), size, prefix=_F2)


def _swapped(g: Generator) -> None:
    """MOVBE."""
    size = g.pick((2, 4, 8))
    g.code.rm(g.pick((b"\x0f\x38\xf0", b"\x0f\x38\xf1")), g.free(), R12, g.reach(size), size)


def _count_zeros(g: Generator) -> None:
    """LZCNT. (TZCNT is BMI1, and BSF without it.)"""
    g.code.rr(b"\x0f\xbd", g.free(), g.free(), g.pick((2, 4, 8)), prefix=_F3)
    g.flags(CF | ZF, ARITHMETIC & ~CF & ~ZF)


_FORMS: Final[tuple[Callable[[Generator], None], ...]] = (
    *(_of_two,) * 6, *(_with_number,) * 2, _test, *(_between,) * 2, _compare_strings, _horizontal, _crc, _swapped,
    _count_zeros,
)  # fmt: skip


def soup(g: Generator, count: int) -> None:
    """Write some instructions; R12 points to data."""
    for _ in range(count):
        g.pick(_FORMS)(g)
