"""SSE, SSE2 and x87 instructions at random; what is only an approximation on real CPUs is left out."""

from typing import Final

from tests.fuzz.cpus import DENORMALS_ARE_ZERO, PRECISION, SSE_EXCEPTIONS, TWO_NANS
from tests.fuzz.encoder import R12, RAX
from tests.fuzz.generator import AF, ARITHMETIC, Generator

_NONE: Final = b""
_66: Final = b"\x66"
_F2: Final = b"\xf2"
_F3: Final = b"\xf3"

_FLOATS: Final = (0x51, 0x58, 0x59, 0x5C, 0x5D, 0x5E, 0x5F)  # SQRT ADD MUL SUB MIN DIV MAX
_OF_TWO: Final = (0x58, 0x59, 0x5C, 0x5E)
_LOGIC: Final = (0x14, 0x15, 0x54, 0x55, 0x56, 0x57)  # UNPCKL UNPCKH AND ANDN OR XOR
_INTEGERS: Final = (
    *range(0x60, 0x6E), *range(0x74, 0x77), *range(0xD1, 0xD6), *range(0xD8, 0xE6), *range(0xE8, 0xF0),
    *range(0xF1, 0xF7), *range(0xF8, 0xFF),
)  # fmt: skip
"""66 0F xx: unpack, pack, compare, shift, add, subtract, multiply, average, minimum, maximum, logic."""
_CONVERSIONS: Final = (
    (_NONE, 0x5A), (_66, 0x5A), (_F2, 0x5A), (_F3, 0x5A),  # between single and double
    (_NONE, 0x5B), (_66, 0x5B), (_F3, 0x5B), (_F3, 0xE6), (_66, 0xE6), (_F2, 0xE6),  # and int32, packed
)  # fmt: skip
_LOADS: Final = (
    (_NONE, 0x10, 16), (_66, 0x10, 16), (_F3, 0x6F, 16), (_F3, 0x10, 4), (_F2, 0x10, 8), (_F3, 0x7E, 8),
    (_NONE, 0x12, 8), (_NONE, 0x16, 8), (_66, 0x12, 8), (_66, 0x16, 8), (_66, 0x6E, 4),
)  # fmt: skip
_STORES: Final = (
    (_NONE, 0x11, 16), (_66, 0x11, 16), (_F3, 0x7F, 16), (_F3, 0x11, 4), (_F2, 0x11, 8), (_66, 0xD6, 8),
    (_NONE, 0x13, 8), (_NONE, 0x17, 8), (_66, 0x13, 8), (_66, 0x17, 8), (_66, 0x7E, 4),
)  # fmt: skip
_ALIGNED: Final = (
    (_NONE, 0x28), (_66, 0x28), (_66, 0x6F), (_NONE, 0x29), (_66, 0x29), (_66, 0x7F), (_NONE, 0x2B), (_66, 0xE7)
)  # fmt: skip

_AND: Final = 4
_MXCSR_MASKED: Final = 0x1F80
_MXCSR_CONTROL: Final = 0xFFC0
_ROUNDING: Final = 13
_FLUSH_TO_ZERO: Final = 1 << 15
_DENORMALS_ARE_ZERO: Final = 1 << 6


def _xmm(g: Generator) -> int:
    return g.below(16)


def _operate(g: Generator, opcode: bytes, prefix: bytes, size: int, aligned: bool = False) -> None:
    """Emit reg op= reg or memory; a memory operand of 16 bytes must be aligned except where the opcode says not."""
    if g.chance(0.6):
        g.code.rr(opcode, _xmm(g), _xmm(g), prefix=prefix)
    else:
        g.code.rm(opcode, _xmm(g), R12, g.reach(size, aligned=aligned or size == 16), prefix=prefix)


def _float(g: Generator) -> None:
    prefix, opcode = g.pick((_NONE, _66, _F2, _F3)), g.pick(_FLOATS)
    if opcode in _OF_TWO and not g.may(TWO_NANS):
        _float_without_two_nans(g, opcode, prefix)
    else:
        _operate(g, bytes((0x0F, opcode)), prefix, {_F2: 8, _F3: 4}.get(prefix, 16))


def _float_without_two_nans(g: Generator, opcode: int, prefix: bytes) -> None:
    """Emit reg op= reg, after clearing those elements of the first that are NaNs in both; XMM14 and XMM15 are used."""
    code, target, source = g.code, g.below(14), g.below(14)
    packed = {_F2: _66, _F3: _NONE}.get(prefix, prefix)
    for scratch, operand in ((14, target), (15, source)):
        code.rr(b"\x0f\x28", scratch, operand)  # movaps
        code.rr(b"\x0f\xc2", scratch, scratch, prefix=packed)  # cmpunordps, cmpunordpd
        code.imm8(3)
    code.rr(b"\x0f\x54", 14, 15)  # andps
    code.rr(b"\x0f\x55", 14, target)  # andnps
    code.rr(b"\x0f\x28", target, 14)
    code.rr(bytes((0x0F, opcode)), target, source, prefix=prefix)


def _logic(g: Generator) -> None:
    _operate(g, bytes((0x0F, g.pick(_LOGIC))), g.pick((_NONE, _66)), 16)


def _integer(g: Generator) -> None:
    _operate(g, bytes((0x0F, g.pick(_INTEGERS))), _66, 16)


def _shift(g: Generator) -> None:
    opcode, digits = g.pick(((0x71, (2, 4, 6)), (0x72, (2, 4, 6)), (0x73, (2, 3, 6, 7))))
    g.code.dr(bytes((0x0F, opcode)), g.pick(digits), _xmm(g), prefix=_66)
    g.code.imm8(g.below(70))


def _shuffle(g: Generator) -> None:
    prefix, opcode = g.pick(((_NONE, 0xC6), (_66, 0xC6), (_66, 0x70), (_F2, 0x70), (_F3, 0x70)))
    g.code.rr(bytes((0x0F, opcode)), _xmm(g), _xmm(g), prefix=prefix)
    g.code.imm8(g.below(256))


def _compare(g: Generator) -> None:
    if g.chance(0.5):
        g.code.rr(b"\x0f\xc2", _xmm(g), _xmm(g), prefix=g.pick((_NONE, _66, _F2, _F3)))
        g.code.imm8(g.below(8))
    else:  # COMIS, UCOMIS
        g.code.rr(g.pick((b"\x0f\x2e", b"\x0f\x2f")), _xmm(g), _xmm(g), prefix=g.pick((_NONE, _66)))
        g.flags(ARITHMETIC)


def _convert(g: Generator) -> None:
    kind, code = g.below(3), g.code
    if kind == 0:
        prefix, opcode = g.pick(_CONVERSIONS)
        code.rr(bytes((0x0F, opcode)), _xmm(g), _xmm(g), prefix=prefix)
    elif kind == 1:
        code.rr(b"\x0f\x2a", _xmm(g), g.free(), g.pick((4, 8)), prefix=g.pick((_F2, _F3)))
    else:
        code.rr(g.pick((b"\x0f\x2c", b"\x0f\x2d")), g.free(), _xmm(g), g.pick((4, 8)), prefix=g.pick((_F2, _F3)))


def _move(g: Generator) -> None:
    kind, code = g.below(6), g.code
    if kind == 0:
        prefix, opcode, size = g.pick(_LOADS)
        code.rm(bytes((0x0F, opcode)), _xmm(g), R12, g.reach(size), prefix=prefix)
    elif kind == 1:
        prefix, opcode, size = g.pick(_STORES)
        code.rm(bytes((0x0F, opcode)), _xmm(g), R12, g.reach(size), prefix=prefix)
    elif kind == 2:
        prefix, opcode = g.pick(_ALIGNED)
        code.rm(bytes((0x0F, opcode)), _xmm(g), R12, g.reach(16, aligned=True), prefix=prefix)
    elif kind == 3:
        code.rr(g.pick((b"\x0f\x6e", b"\x0f\x7e")), _xmm(g), g.free(), g.pick((4, 8)), prefix=_66)
    elif kind == 4:
        prefix, opcode = g.pick(((_66, 0xD7), (_NONE, 0x50), (_66, 0x50)))  # PMOVMSKB, MOVMSKPS, MOVMSKPD
        code.rr(bytes((0x0F, opcode)), g.free(), _xmm(g), prefix=prefix)
    else:  # MOVNTI
        code.rm(b"\x0f\xc3", g.free(), R12, g.reach(8), g.pick((4, 8)))


def store(g: Generator) -> None:
    """Store a register or a part of it where R12 points."""
    prefix, opcode, _ = g.pick(_STORES)
    g.code.rm(bytes((0x0F, opcode)), _xmm(g), R12, prefix=prefix)


def _control(g: Generator) -> None:
    """LDMXCSR with everything masked, STMXCSR."""
    value = _MXCSR_MASKED | g.below(4) << _ROUNDING
    value |= g.pick((0, 0, _FLUSH_TO_ZERO)) | (g.pick((0, 0, _DENORMALS_ARE_ZERO)) if g.may(DENORMALS_ARE_ZERO) else 0)
    at = g.reach(4)
    g.code.dm(b"\xc7", 0, R12, at)
    g.code.imm(value, 4)
    g.code.dm(b"\x0f\xae", 2, R12, at)
    at = g.reach(4)
    g.code.dm(b"\x0f\xae", 3, R12, at)
    _forget_exceptions(g, at)


def _forget_exceptions(g: Generator, at: int) -> None:
    """Clear what has happened in an MXCSR in memory, if not every CPU has noticed."""
    if not g.may(SSE_EXCEPTIONS):
        g.code.dm(b"\x81", _AND, R12, at)
        g.code.imm(_MXCSR_CONTROL, 4)
        g.flags(ARITHMETIC & ~AF, AF)


_SSE: Final = (
    *(_move,) * 6, *(_float,) * 5, *(_integer,) * 6, *(_convert,) * 2, _logic, _shift, _shuffle, _compare, _control
)  # fmt: skip


def sse(g: Generator, count: int) -> None:
    """Write some SSE instructions; R12 points to data."""
    for _ in range(count):
        g.pick(_SSE)(g)


# --- x87 --------------------------------------------------------------------------------------------------------------

_PUSHES: Final = ((b"\xd9", 0, 4), (b"\xdd", 0, 8), (b"\xdb", 5, 10), (b"\xdf", 0, 2), (b"\xdb", 0, 4), (b"\xdf", 5, 8))
"""FLD of three sizes, FILD of three."""
_POPS: Final = (
    (b"\xd9", 3, 4), (b"\xdd", 3, 8), (b"\xdb", 7, 10), (b"\xdf", 3, 2), (b"\xdb", 3, 4), (b"\xdf", 7, 8),
    (b"\xdb", 1, 4), (b"\xdd", 1, 8), (b"\xdf", 1, 2),
)  # fmt: skip
"""FSTP and FISTP of three sizes, FISTTP."""
_ARITHMETIC: Final = (0, 1, 4, 5, 6, 7)
"""FADD FMUL FSUB FSUBR FDIV FDIVR; between them are comparisons, of which one pops."""
_MEMORY: Final = ((b"\xd8", 4), (b"\xdc", 8), (b"\xda", 4), (b"\xde", 2))
_CONSTANTS: Final = (0xE8, 0xE9, 0xEA, 0xEB, 0xEC, 0xED, 0xEE)
_UNARY: Final = (0xE0, 0xE1, 0xFA, 0xFC, 0xE5)  # FCHS FABS FSQRT FRNDINT FXAM
_CONTROL_WORD: Final = 0x37F
_DEEPEST: Final = 6
_TOP: Final = 0x3800
"""What is defined of the status word after any instruction, with exceptions aside."""
_KEPT_OF_IMAGE: Final = {
    0: _TOP << 16 | 0xFFFF,  # control and status word
    4: 0xFF,  # tag word; last opcode
    **dict.fromkeys(range(8, 24, 4), 0),  # addresses of the last instruction and of its operand
    28: 0,  # which bits of MXCSR there are
    **{32 + 16 * register + 8: 0xFFFF for register in range(8)},  # the registers are of 80 bits
    **{32 + 16 * register + 12: 0 for register in range(8)},
    **dict.fromkeys(range(416, 512, 4), 0),  # reserved
}
"""Offset in an image of FXSAVE → the bits there that all CPUs agree on."""


def x87(g: Generator, count: int) -> None:
    """Write x87 instructions that neither overflow nor underflow the register stack; R12 points to data."""
    code, depth = g.code, 0
    code.raw(b"\xdb\xe3")  # fninit
    for _ in range(count):
        kind = g.below(10)
        if depth < 2 or (kind < 3 and depth < _DEEPEST):
            depth += 1
            _push(g)
        elif kind < 4:
            depth -= 1
            opcode, digit, size = g.pick(_POPS)
            code.dm(opcode, digit, R12, g.reach(size))
        elif kind < 6:
            opcode, size = g.pick(_MEMORY)
            code.dm(opcode, g.pick(_ARITHMETIC), R12, g.reach(size))
        else:
            _on_registers(g, depth)
    _leave_x87(g)


def _push(g: Generator) -> None:
    if g.chance(0.2):
        g.code.raw(bytes((0xD9, g.pick(_CONSTANTS))))
    else:
        opcode, digit, size = g.pick(_PUSHES)
        g.code.dm(opcode, digit, R12, g.reach(size))


def _on_registers(g: Generator, depth: int) -> None:
    code, other, kind = g.code, g.below(depth), g.below(6)
    if kind < 2:  # ST, ST(i) or ST(i), ST
        code.raw(bytes(((0xD8, 0xDC)[kind], 0xC0 | g.pick(_ARITHMETIC) << 3 | other)))
    elif kind == 2:
        code.raw(bytes((0xD9, 0xC8 | other)))  # FXCH
    elif kind == 3:
        code.raw(bytes((0xD9, g.pick(_UNARY))))
    elif kind == 4:
        code.raw(bytes((0xDB, g.pick((0xE8, 0xF0)) | other)))  # FUCOMI, FCOMI
        g.flags(ARITHMETIC)
    else:
        at = g.reach(2)
        precision = g.pick((0, 2, 3) if g.may(PRECISION) else (3,))
        code.dm(b"\xc7", 0, R12, at, 2)
        code.imm(_CONTROL_WORD & ~0x300 | precision << 8 | g.below(4) << 10, 2)
        code.dm(b"\xd9", 5, R12, at)  # fldcw


def define_image(g: Generator, at: int) -> None:
    """Clear what is not the same on all CPUs in what FXSAVE has stored."""
    for offset, kept in _KEPT_OF_IMAGE.items():
        g.code.dm(b"\x81", _AND, R12, at + offset)
        g.code.imm(kept, 4)
    g.flags(ARITHMETIC & ~AF, AF)
    _forget_exceptions(g, at + 24)


def _leave_x87(g: Generator) -> None:
    code = g.code
    if g.chance(0.3):  # FXSAVE, and often FXRSTOR of the same
        at = g.reach(512, aligned=True)
        code.dm(b"\x0f\xae", 0, R12, at, g.pick((4, 8)))
        define_image(g, at)
        if g.chance(0.6):
            code.raw(b"\xdb\xe3")
            code.dm(b"\x0f\xae", 1, R12, at)
    else:
        code.raw(b"\xdf\xe0")  # fnstsw ax
        code.alui(_AND, RAX, _TOP, 4)
        g.flags(ARITHMETIC & ~AF, AF)
        code.raw(b"\xdb\xe3")
