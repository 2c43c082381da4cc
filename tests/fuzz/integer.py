"""Integer instructions at random: everything in the baseline that computes, with what it does to the flags."""

from collections.abc import Callable
from typing import Final

from tests.fuzz.cpus import CMPXCHG_32, LOCKED_NEG, PAIR_16, PAIRS, POPCNT
from tests.fuzz.encoder import R12, R14, RAX, RBX, RCX, RDX, RSP
from tests.fuzz.generator import AF, ARITHMETIC, CF, OF, PF, SF, ZF, Generator

_SIZES: Final = (1, 2, 4, 4, 8, 8)
_WIDE: Final = (2, 4, 8)
_ADC, _SBB, _CMP = 2, 3, 7
_LOGIC: Final = (1, 4, 6)
_RCL, _RCR = 2, 3
_NEG: Final = 3
_CMPXCHG: Final = 2

Form = Callable[[Generator], None]


def _wide(size: int, opcode: int) -> bytes:
    """Give the opcode for bytes or for larger operands."""
    return bytes((opcode | (size != 1),))


def _alu_flags(g: Generator, operation: int) -> None:
    if operation in _LOGIC:
        g.flags(ARITHMETIC & ~AF, AF)
    else:
        g.flags(ARITHMETIC)


def alu(g: Generator) -> None:
    """ADD, OR, ADC, SBB, AND, SUB, XOR, CMP."""
    operation, size, code = g.below(8), g.pick(_SIZES), g.code
    if operation in (_ADC, _SBB):
        g.need(CF)
    kind = g.below(6)
    if kind == 0:
        code.alu(operation, g.free(), g.free(), size)
    elif kind == 1:
        code.alui(operation, g.free(), g.number() >> 32 if size == 8 else g.below(1 << 31), size)
    elif kind == 2:
        code.rm(_wide(size, operation << 3 | 2), g.free(), R12, g.reach(size), size)
    else:
        if operation != _CMP and g.chance(0.3):
            code.lock()
        if kind == 3:
            code.rm(_wide(size, operation << 3), g.free(), R12, g.reach(size), size)
        else:
            code.dm(b"\x80" if size == 1 else b"\x81", operation, R12, g.reach(size), size)
            code.imm(g.number(), size)
    _alu_flags(g, operation)


def unary(g: Generator) -> None:
    """INC, DEC, NOT, NEG."""
    size, digit, code = g.pick(_SIZES), g.below(2), g.code
    changes = g.chance(0.5)
    opcode, digit = (_wide(size, 0xFE), digit) if changes else (_wide(size, 0xF6), digit + 2)
    if g.chance(0.5):
        code.dr(opcode, digit, g.free(), size)
    else:
        if g.chance(0.3) and (digit != _NEG or changes or g.may(LOCKED_NEG)):
            code.lock()
        code.dm(opcode, digit, R12, g.reach(size), size)
    if changes:
        g.flags(ARITHMETIC & ~CF)
    elif digit == _NEG:
        g.flags(ARITHMETIC)


def test(g: Generator) -> None:
    """TEST."""
    size = g.pick(_SIZES)
    if g.chance(0.5):
        g.code.rr(_wide(size, 0x84), g.free(), g.free(), size)
    else:
        g.code.rm(_wide(size, 0x84), g.free(), R12, g.reach(size), size)
    g.flags(ARITHMETIC & ~AF, AF)


def move(g: Generator) -> None:
    """MOV in all directions."""
    size, code, kind = g.pick(_SIZES), g.code, g.below(5)
    if kind == 0:
        code.load(g.free(), g.number())
    elif kind == 1:
        code.mov(g.free(), g.free(), size)
    elif kind == 2:
        code.fetch(g.free(), R12, g.reach(size), size)
    elif kind == 3:
        code.store(g.free(), R12, g.reach(size), size)
    else:
        code.dm(_wide(size, 0xC6), 0, R12, g.reach(size), size)
        code.imm(g.number(), size)


def extend(g: Generator) -> None:
    """MOVZX, MOVSX, MOVSXD, CBW … CQO, BSWAP."""
    code, kind = g.code, g.below(5)
    opcode = g.pick((b"\x0f\xb6", b"\x0f\xb7", b"\x0f\xbe", b"\x0f\xbf"))
    if kind == 0:
        code.rr(opcode, g.free(), g.free(), g.pick((4, 8)), narrow=True)
    elif kind == 1:
        code.rm(opcode, g.free(), R12, g.reach(2), g.pick((4, 8)))
    elif kind == 2:
        code.rr(b"\x63", g.free(), g.free(), 8)
    elif kind == 3:
        code.raw(g.pick((b"\x66\x98", b"\x98", b"\x48\x98", b"\x66\x99", b"\x99", b"\x48\x99")))
    else:
        reg, wide = g.free(), g.pick((0x40, 0x48))
        code.raw(bytes((wide | reg >> 3, 0x0F, 0xC8 | reg & 7)))


def address(g: Generator) -> None:
    """LEA with everything."""
    index = g.free()
    g.code.rm(
        b"\x8d", g.free(), g.pick((g.free(), R12)), g.number() >> 33, g.pick(_WIDE), index=index, scale=g.below(4)
    )


def indexed(g: Generator) -> None:
    """Load or store with a scaled index."""
    index, size, code = g.free(), g.pick(_SIZES), g.code
    code.alui(4, index, g.pick((0x3F, 0x1FF)), 4)
    g.flags(ARITHMETIC & ~AF, AF)
    opcode = _wide(size, 0x88 | g.below(2) << 1)
    code.rm(opcode, g.free(), R12, g.below(0x100), size, index=index, scale=g.below(4))


def shift(g: Generator) -> None:
    """ROL, ROR, RCL, RCR, SHL, SHR, SAR by 1, by a number, by CL."""
    size, digit, kind, code = g.pick(_SIZES), g.pick((0, 1, 2, 3, 4, 5, 7)), g.below(3), g.code
    if kind == 2:  # a count of the operand's size or more would leave CF undefined
        code.alui(4, RCX, 8 * size - 1, 1)
        g.flags(ARITHMETIC & ~AF, AF)
    if digit in (_RCL, _RCR):
        g.need(CF)
    opcode = _wide(size, (0xD0, 0xC0, 0xD2)[kind])
    if g.chance(0.7):
        code.dr(opcode, digit, g.free(), size)
    else:
        code.dm(opcode, digit, R12, g.reach(size), size)
    if kind == 1:
        code.imm8(1 + g.below(8 * size - 1))
    unclear = 0 if kind == 0 else OF
    if digit < 4:
        # A count of 0 changes nothing, so CL keeps what was undefined.
        g.flags(CF | OF if kind < 2 else 0, unclear)
    else:
        g.flags(ARITHMETIC if kind < 2 else 0, unclear | AF)


def double_shift(g: Generator) -> None:
    """SHLD, SHRD."""
    size, opcode, code = g.pick(_WIDE), g.pick((0xA4, 0xAC)), g.code
    by_cl = g.chance(0.5)
    if by_cl:
        code.alui(4, RCX, 8 * size - 1, 1)
        g.flags(ARITHMETIC & ~AF, AF)
    g.code.rr(bytes((0x0F, opcode | by_cl)), g.free(), g.free(), size)
    if not by_cl:
        code.imm8(1 + g.below(8 * size - 1))
    g.flags(0 if by_cl else ARITHMETIC, OF | AF)


def multiply(g: Generator) -> None:
    """MUL and IMUL with one, two and three operands."""
    size, code, kind = g.pick(_SIZES), g.code, g.below(4)
    if kind == 0:
        code.dr(_wide(size, 0xF6), g.pick((4, 5)), g.free(), size)
    elif kind == 1:
        code.dm(_wide(size, 0xF6), g.pick((4, 5)), R12, g.reach(size), size)
    elif kind == 2:
        code.rr(b"\x0f\xaf", g.free(), g.free(), max(size, 2))
    else:
        size = max(size, 2)
        code.rr(b"\x69", g.free(), g.free(), size)
        code.imm(g.number(), size)
    g.flags(CF | OF, SF | ZF | AF | PF)


def divide(g: Generator) -> None:
    """DIV and IDIV that cannot fail: a small dividend, a divisor that is not 0."""
    size, code = g.pick(_WIDE), g.code
    divisor = g.pick((RBX, RCX))
    signed = g.chance(0.5)
    code.alui(1, divisor, 1, size)
    if signed:
        code.alui(4, RAX, 0x7F, size)
        code.raw({2: b"\x66\x99", 4: b"\x99", 8: b"\x48\x99"}[size])
    else:
        code.alu(6, RDX, RDX, size)
    code.dr(b"\xf7", 7 if signed else 6, divisor, size)
    g.flags(0, ARITHMETIC)


def bit(g: Generator) -> None:
    """BT, BTS, BTR, BTC."""
    size, digit, code, kind = g.pick(_WIDE), g.below(4), g.code, g.below(3)
    if kind == 0:
        code.rr(bytes((0x0F, 0xA3 | digit << 3)), g.free(), g.free(), size)
    elif kind == 1:
        code.dr(b"\x0f\xba", digit | 4, g.free(), size)
        code.imm8(g.below(256))
    else:
        if digit and g.chance(0.3):
            code.lock()
        code.dm(b"\x0f\xba", digit | 4, R12, g.reach(size), size)
        code.imm8(g.below(256))
    g.flags(CF, OF | SF | AF | PF)


def scan(g: Generator) -> None:
    """BSF, BSR of something that is not 0; POPCNT."""
    size, source, code = g.pick(_WIDE), g.free(), g.code
    if g.chance(0.3) and g.may(POPCNT):
        code.rr(b"\x0f\xb8", g.free(), source, size, prefix=b"\xf3")
        g.flags(ARITHMETIC)
        return
    code.alui(1, source, 1 << g.below(7), size)
    code.rr(g.pick((b"\x0f\xbc", b"\x0f\xbd")), g.free(), source, size)
    g.flags(ZF, ARITHMETIC & ~ZF)


def conditional(g: Generator) -> None:
    """SETcc, CMOVcc."""
    condition, code = g.condition(), g.code
    if g.chance(0.3):
        code.dr(bytes((0x0F, 0x90 | condition)), 0, g.free(), 1)
    elif g.chance(0.3):
        code.dm(bytes((0x0F, 0x90 | condition)), 0, R12, g.reach(1))
    else:
        code.rr(bytes((0x0F, 0x40 | condition)), g.free(), g.free(), g.pick(_WIDE))


def branch(g: Generator) -> None:
    """Jcc over a few instructions."""
    over = g.code.label()
    if g.chance(0.1):
        g.code.short(0xE3, over)  # jrcxz
    elif g.chance(0.1):
        g.need(ZF)
        g.code.short(g.pick((0xE0, 0xE1, 0xE2)), over)  # loopne, loope, loop: forward
    else:
        g.code.jcc(g.condition(), over)
    before = g.undefined
    for _ in range(g.below(3)):
        g.pick(_STRAIGHT)(g)
    g.code.bind(over)
    g.undefined |= before


def exchange(g: Generator) -> None:
    """XCHG, XADD, CMPXCHG."""
    size, code, kind = g.pick(_SIZES), g.code, g.below(3)
    if kind == _CMPXCHG and size == 4 and not g.may(CMPXCHG_32):
        size = 8
    opcode = (_wide(size, 0x86), b"\x0f" + _wide(size, 0xC0), b"\x0f" + _wide(size, 0xB0))[kind]
    if g.chance(0.4):
        code.rr(opcode, g.free(), g.free(), size)
    else:
        if g.chance(0.5):
            code.lock()
        code.rm(opcode, g.free(), R12, g.reach(size), size)
    if kind:
        g.flags(ARITHMETIC)


def exchange_pair(g: Generator) -> None:
    """CMPXCHG8B, CMPXCHG16B."""
    if not g.may(PAIRS):
        exchange(g)
        return
    size = g.pick((4, 8) if g.may(PAIR_16) else (4,))
    if g.chance(0.5):
        g.code.lock()
    g.code.dm(b"\x0f\xc7", 1, R12, g.reach(2 * size, aligned=True), size)
    g.flags(ZF)


def flag(g: Generator) -> None:
    """CLC, STC, CMC, LAHF, SAHF, PUSHF and POPF."""
    code, kind = g.code, g.below(6)
    if kind < 2:
        code.raw((b"\xf8", b"\xf9")[kind])
        g.flags(CF)
    elif kind == 2:
        g.need(CF)
        code.raw(b"\xf5")
    elif kind == 3:
        g.need(ARITHMETIC & ~OF)
        code.raw(b"\x9f")
    elif kind == 4:
        code.raw(b"\x9e")
        g.flags(ARITHMETIC & ~OF)
    else:
        g.need(ARITHMETIC)
        code.raw(b"\x9c")
        code.dm(b"\x81", 6, RSP)  # xor dword ptr [rsp], some of the arithmetic flags
        code.imm(g.dice.getrandbits(12) & ARITHMETIC, 4)
        code.raw(b"\x9d")
        g.flags(ARITHMETIC)


def stack(g: Generator) -> None:
    """PUSH and POP, ENTER and LEAVE, CALL and RET."""
    code, kind = g.code, g.below(5)
    if kind == 0:
        code.push(g.free())
        g.pick(_STRAIGHT)(g)
        code.pop(g.free())
    elif kind == 1:
        code.raw(b"\x68")
        code.imm(g.number(), 4)
        code.dm(b"\x8f", 0, R12, g.reach(8))
    elif kind == 2:
        code.dm(b"\xff", 6, R12, g.reach(8))
        code.raw(b"\x66\x8f\xc0\x66\x8f\xc1\x66\x8f\xc2\x66\x8f\xc3")  # pop ax, cx, dx, bx
    elif kind == 3:
        code.raw(bytes((0xC8, 8 * g.below(16), 0, 0)))  # enter n, 0
        g.pick(_STRAIGHT)(g)
        code.mov(RSP, R14)
    else:
        _call(g)


def _call(g: Generator) -> None:
    code = g.code
    function, after = code.label(), code.label()
    code.call(function)
    code.jmp(after)
    code.bind(function)
    for _ in range(1 + g.below(3)):
        g.pick(_STRAIGHT)(g)
    code.raw(b"\xc3")
    code.bind(after)


_STRAIGHT: Final[tuple[Form, ...]] = (
    *(alu,) * 8, *(move,) * 6, *(shift,) * 5, *(conditional,) * 4, *(multiply,) * 2, *(unary,) * 3, *(exchange,) * 3,
    *(extend,) * 2, *(bit,) * 2, *(indexed,) * 2, test, address, double_shift, divide, scan, exchange_pair, flag, flag,
)  # fmt: skip
FORMS: Final[tuple[Form, ...]] = (*_STRAIGHT, *(branch,) * 4, *(stack,) * 2)


def soup(g: Generator, count: int) -> None:
    """Write some instructions; R12 points to data."""
    forms, pick = FORMS, g.pick
    for _ in range(count):
        pick(forms)(g)
