"""x87 and SSE: results, rounding and state are those of the IEEE and of Intel."""

import math
import struct
from typing import Final

import pytest

from tests.contract.engine import guests
from tests.contract.engine.harness import Boot

NEAREST, DOWN, UP, ZERO = range(4)
MODES: Final = [NEAREST, DOWN, UP, ZERO]


def _rounded(numerator: int, denominator: int, bits: int, mode: int) -> tuple[int, int]:
    """Divide two positive integers to so many significant bits: (mantissa, exponent of its lowest bit)."""
    exponent = numerator.bit_length() - denominator.bit_length() - bits
    while True:
        scaled = numerator << max(0, -exponent)
        divisor = denominator << max(0, exponent)
        mantissa, rest = divmod(scaled, divisor)
        if mantissa.bit_length() > bits:
            exponent += 1
        elif mantissa.bit_length() < bits:
            exponent -= 1
        else:
            break
    if (mode == UP and rest) or (mode == NEAREST and (2 * rest > divisor or (2 * rest == divisor and mantissa & 1))):
        mantissa += 1
    if mantissa.bit_length() > bits:
        mantissa, exponent = mantissa >> 1, exponent + 1
    return mantissa, exponent


def _extended(mantissa: int, exponent: int) -> bytes:
    """Encode mantissa * 2**exponent as an 80-bit number."""
    shift = 64 - mantissa.bit_length()
    return struct.pack("<QH", mantissa << shift, exponent - shift + 63 + 16383)


def _root(value: int, bits: int, mode: int) -> tuple[int, int]:
    """Take a square root to so many significant bits."""
    exponent = -2 * bits
    mantissa = math.isqrt(value << 2 * bits - exponent - 2 * bits)
    while mantissa.bit_length() > bits:
        exponent += 2
        mantissa = math.isqrt(value << -exponent)
    exact = mantissa * mantissa == value << -exponent
    above = (2 * mantissa + 1) ** 2 <= 4 * (value << -exponent)
    if not exact and (mode == UP or (mode == NEAREST and above)):
        mantissa += 1
    return mantissa, exponent // 2


# --- x87 --------------------------------------------------------------------------------------------------------------

CONSTANTS: Final = {
    "fld1": "00 00 00 00 00 00 00 80 ff 3f",
    "fldz": "00 00 00 00 00 00 00 00 00 00",
    "fldpi": "35 c2 68 21 a2 da 0f c9 00 40",
    "fldl2e": "bc f0 17 5c 29 3b aa b8 ff 3f",
    "fldl2t": "fe 8a 1b cd 4b 78 9a d4 00 40",
    "fldlg2": "99 f7 cf fb 84 9a 20 9a fd 3f",
    "fldln2": "ac 79 cf d1 f7 17 72 b1 fe 3f",
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_an_x87_constant_has_all_its_bits(boot: Boot, name: str) -> None:
    guest = boot(f"start: fninit; {name}; fstp tbyte ptr [HEAP]; END")
    guest.run()
    assert guest.memory.read(guests.HEAP, 10) == bytes.fromhex(CONSTANTS[name])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("precision", "bits"), [(0, 24), (2, 53), (3, 64)])
def test_x87_division_rounds_as_the_control_word_says(boot: Boot, mode: int, precision: int, bits: int) -> None:
    guest = boot(f"""
    start:
        fninit
        mov word ptr [HEAP], {0x7F | precision << 8 | mode << 10}
        fldcw [HEAP]
        fld1
        fild word ptr [three]
        fdivp
        fstp tbyte ptr [HEAP + 16]
        END
    three: .word 3
    """)
    guest.run()
    assert guest.memory.read(guests.HEAP + 16, 10) == _extended(*_rounded(1, 3, bits, mode))


@pytest.mark.parametrize("mode", MODES)
def test_x87_square_roots_round_correctly(boot: Boot, mode: int) -> None:
    guest = boot(f"""
    start:
        fninit
        mov word ptr [HEAP], {0x37F | mode << 10}
        fldcw [HEAP]
        fild word ptr [two]
        fsqrt
        fstp tbyte ptr [HEAP + 16]
        END
    two: .word 2
    """)
    guest.run()
    assert guest.memory.read(guests.HEAP + 16, 10) == _extended(*_root(2, 64, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [2.5, 3.5, -2.5, 0.3, -0.7, 123456.5])
def test_x87_integer_stores_round_as_the_control_word_says(boot: Boot, mode: int, value: float) -> None:
    guest = boot(f"""
    start:
        fninit
        mov word ptr [HEAP], {0x37F | mode << 10}
        fldcw [HEAP]
        fld qword ptr [value]
        fistp qword ptr [HEAP + 16]
        END
    value: .quad {struct.unpack("<Q", struct.pack("<d", value))[0]:#x}
    """)
    guest.run()
    expected = {NEAREST: round(value), DOWN: math.floor(value), UP: math.ceil(value), ZERO: math.trunc(value)}[mode]
    assert struct.unpack("<q", guest.memory.read(guests.HEAP + 16, 8)) == (expected,)


def test_x87_comparisons_set_the_flags_of_the_integer_unit(boot: Boot) -> None:
    guest = boot("""
    .macro COMPARE first, second
        fld qword ptr [\\second]
        fld qword ptr [\\first]
        fucomip st, st(1)
        pushfq
        pop rax
        and eax, 0x45                       # ZF PF CF
        stosb
        fstp st(0)
    .endm
    start:
        fninit
        mov edi, HEAP
        COMPARE one, two
        COMPARE two, one
        COMPARE one, one
        COMPARE one, nan
        END
    one: .double 1.0
    two: .double 2.0
    nan: .quad 0x7ff8000000000000
    """)
    guest.run()
    assert list(guest.memory.read(guests.HEAP, 4)) == [0x01, 0x00, 0x40, 0x45]


X87_CASES: Final = {
    "invalid": ("fldz", "fdiv qword ptr [zero]", 0x01),
    "division by zero": ("fld1", "fdiv qword ptr [zero]", 0x04),
    "inexact": ("fld1", "fdiv dword ptr [three]", 0x20),
    "overflow": ("fld tbyte ptr [largest]", "fadd st, st(0)", 0x28),
    "denormal operand and underflow": ("fld tbyte ptr [smallest]", "fdiv dword ptr [three]", 0x32),
}


@pytest.mark.parametrize("name", X87_CASES)
def test_the_x87_status_word_remembers_exceptions_that_are_masked(boot: Boot, name: str) -> None:
    load, instruction, flags = X87_CASES[name]
    guest = boot(f"""
    start:
        fninit
        {load}
        {instruction}
        fnstsw [HEAP]
        END
    zero: .double 0.0
    three: .float 3.0
    largest: .quad 0xffffffffffffffff; .word 0x7ffe
    smallest: .quad 0x0000000000000001; .word 0
    """)
    guest.run()
    assert guest.number(guests.HEAP, 2) & 0x3F == flags


def test_an_x87_push_onto_a_full_stack_is_a_stack_fault(boot: Boot) -> None:
    guest = boot("""
    start:
        fninit
        .rept 9
        fld1
        .endr
        fnstsw [HEAP]
        fstp tbyte ptr [HEAP + 16]
        END
    """)
    guest.run()
    assert guest.number(guests.HEAP, 2) & 0x241 == 0x241  # C1 SF IE
    assert guest.memory.read(guests.HEAP + 16, 10) == bytes.fromhex("000000000000 00c0ffff".replace(" ", ""))


def test_x87_integers_and_decimals_convert_exactly(boot: Boot) -> None:
    guest = boot("""
    start:
        fninit
        fild qword ptr [big]
        fbstp [HEAP]
        fbld [HEAP]
        fistp qword ptr [HEAP + 16]
        END
    big: .quad -123456789012345678
    """)
    guest.run()
    assert guest.memory.read(guests.HEAP, 10) == bytes.fromhex("78563412907856341280")
    assert struct.unpack("<q", guest.memory.read(guests.HEAP + 16, 8)) == (-123456789012345678,)


# --- SSE --------------------------------------------------------------------------------------------------------------


def _double(mantissa: int, exponent: int) -> bytes:
    return struct.pack("<d", math.ldexp(mantissa, exponent))


@pytest.mark.parametrize("mode", MODES)
def test_sse_rounds_as_mxcsr_says(boot: Boot, mode: int) -> None:
    guest = boot(f"""
    start:
        mov dword ptr [HEAP], {0x1F80 | mode << 13}
        ldmxcsr [HEAP]
        movsd xmm0, [one]
        divsd xmm0, [three]
        movsd [HEAP + 16], xmm0
        sqrtsd xmm1, [two]
        movsd [HEAP + 24], xmm1
        cvtsd2si rax, [half]
        mov [HEAP + 32], rax
        cvttsd2si rax, [half]
        mov [HEAP + 40], rax
        movsd xmm2, [one]
        divsd xmm2, [three]
        cvtsd2ss xmm2, xmm2
        movss [HEAP + 48], xmm2
        END
    one: .double 1.0
    two: .double 2.0
    three: .double 3.0
    half: .double -2.5
    """)
    guest.run()
    assert guest.memory.read(guests.HEAP + 16, 8) == _double(*_rounded(1, 3, 53, mode))
    assert guest.memory.read(guests.HEAP + 24, 8) == _double(*_root(2, 53, mode))
    expected = {NEAREST: -2, DOWN: -3, UP: -2, ZERO: -2}[mode]
    assert struct.unpack("<qq", guest.memory.read(guests.HEAP + 32, 16)) == (expected, -2)
    third, shift = _rounded(1, 3, 53, mode)
    mantissa, exponent = _rounded(third, 1, 24, mode)
    assert struct.unpack("<f", guest.memory.read(guests.HEAP + 48, 4))[0] == math.ldexp(mantissa, exponent + shift)


MXCSR_CASES: Final = {
    "invalid": ("divsd xmm0, xmm0", "0.0", "1.0", 0x01),
    "denormal operand": ("addsd xmm0, xmm1", "5e-324", "1.0", 0x22),
    "division by zero": ("divsd xmm0, xmm1", "1.0", "0.0", 0x04),
    "overflow": ("mulsd xmm0, xmm0", "1e300", "1.0", 0x28),
    "underflow": ("mulsd xmm0, xmm0", "1e-200", "1.0", 0x30),
    "inexact": ("divsd xmm0, xmm1", "1.0", "3.0", 0x20),
}


@pytest.mark.parametrize("name", MXCSR_CASES)
def test_mxcsr_remembers_exceptions_that_are_masked(boot: Boot, name: str) -> None:
    instruction, first, second, flags = MXCSR_CASES[name]
    guest = boot(f"""
    start:
        movsd xmm0, [first]
        movsd xmm1, [second]
        {instruction}
        stmxcsr [HEAP]
        END
    first: .double {first}
    second: .double {second}
    """)
    guest.run()
    assert guest.number(guests.HEAP, 4) == 0x1F80 | flags


DENORMALS: Final = {
    "flush to zero": (0x9F80, "mulsd xmm0, xmm0", "1e-160", 0),
    "denormals are zero": (0x1FC0, "addsd xmm0, xmm1", "5e-324", 0),
    "neither": (0x1F80, "addsd xmm0, xmm1", "5e-324", 1),
}


@pytest.mark.parametrize("name", DENORMALS)
def test_mxcsr_treats_denormals_as_told(boot: Boot, name: str) -> None:
    setting, instruction, value, result = DENORMALS[name]
    guest = boot(f"""
    start:
        mov dword ptr [HEAP], {setting}
        ldmxcsr [HEAP]
        movsd xmm0, [value]
        xorps xmm1, xmm1
        {instruction}
        movsd [HEAP + 16], xmm0
        END
    value: .double {value}
    """)
    guest.run()
    assert guest.number(guests.HEAP + 16) == result


A: Final = bytes(range(0x70, 0xF0, 8))
B: Final = bytes((i * 67 + 5) & 0xFF for i in range(16))


def _lanes(code: str, data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{16 // struct.calcsize(code)}{code}", data)


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


PACKED: Final = {
    "paddb": bytes((a + b) & 0xFF for a, b in zip(A, B, strict=True)),
    "paddusb": bytes(min(a + b, 255) for a, b in zip(A, B, strict=True)),
    "psubusb": bytes(max(a - b, 0) for a, b in zip(A, B, strict=True)),
    "pavgb": bytes((a + b + 1) // 2 for a, b in zip(A, B, strict=True)),
    "pmaxub": bytes(max(a, b) for a, b in zip(A, B, strict=True)),
    "pxor": bytes(a ^ b for a, b in zip(A, B, strict=True)),
    "pandn": bytes(~a & b & 0xFF for a, b in zip(A, B, strict=True)),
    "paddsw": struct.pack(
        "<8h", *(_clamp(a + b, -32768, 32767) for a, b in zip(_lanes("h", A), _lanes("h", B), strict=True))
    ),
    "pmullw": struct.pack("<8H", *((a * b) & 0xFFFF for a, b in zip(_lanes("h", A), _lanes("h", B), strict=True))),
    "pmulhw": struct.pack("<8h", *((a * b) >> 16 for a, b in zip(_lanes("h", A), _lanes("h", B), strict=True))),
    "pmuludq": struct.pack("<2Q", *(_lanes("I", A)[i] * _lanes("I", B)[i] for i in (0, 2))),
    "pmaddwd": struct.pack(
        "<4i",
        *(
            _lanes("h", A)[i] * _lanes("h", B)[i] + _lanes("h", A)[i + 1] * _lanes("h", B)[i + 1]
            for i in range(0, 8, 2)
        ),
    ),
    "psadbw": struct.pack("<2Q", *(sum(abs(A[i] - B[i]) for i in range(at, at + 8)) for at in (0, 8))),
    "pcmpgtb": bytes(0xFF if a > b else 0 for a, b in zip(_lanes("b", A), _lanes("b", B), strict=True)),
    "packuswb": bytes(_clamp(v, 0, 255) for v in _lanes("h", A) + _lanes("h", B)),
    "punpcklbw": bytes(v for pair in zip(A[:8], B[:8], strict=True) for v in pair),
    "pshufb": bytes(0 if b & 0x80 else A[b & 15] for b in B),
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_integers_are_computed_lane_by_lane(boot: Boot, name: str) -> None:
    guest = boot(f"""
    start:
        movups xmm9, [HEAP]
        movups xmm14, [HEAP + 16]
        {name} xmm9, xmm14
        movups [HEAP + 32], xmm9
        END
    """)
    guest.memory.write(guests.HEAP, A + B)
    guest.run()
    assert guest.memory.read(guests.HEAP + 32, 16) == PACKED[name]


# --- state ------------------------------------------------------------------------------------------------------------


def _fill(register: int) -> bytes:
    return bytes((register * 16 + i) & 0xFF for i in range(16))


def test_fxsave_and_fxrstor_carry_the_whole_state(boot: Boot) -> None:
    """Save, wipe, restore, save: both images are the same, and as SDM table 10-2 lays them out."""
    loads = "".join(f"movups xmm{i}, [HEAP + {16 * i}]\n" for i in range(16))
    wipes = "".join(f"pxor xmm{i}, xmm{i}\n" for i in range(16))
    guest = boot(f"""
    start:
        fninit
        fld1
        fldpi
        fldl2e
        mov word ptr [scratch], 0xe7f       # double precision, towards zero, all masked
        fldcw [scratch]
        mov dword ptr [scratch], 0x3fa0
        ldmxcsr [scratch]
        {loads}
        fxsave64 [HEAP + 0x1000]
        fninit
        mov dword ptr [scratch], 0x1f80
        ldmxcsr [scratch]
        {wipes}
        fxrstor64 [HEAP + 0x1000]
        fxsave64 [HEAP + 0x2000]
        END
    scratch: .quad 0
    """)
    guest.memory.write(guests.HEAP, b"".join(_fill(i) for i in range(16)))
    guest.run()
    first, second = guest.memory.read(guests.HEAP + 0x1000, 416), guest.memory.read(guests.HEAP + 0x2000, 416)
    control, status, tags = struct.unpack_from("<HHB", first)
    assert control & ~0x40 == 0xE3F  # bit 6 is reserved: Intel reads one, TCG keeps what was written
    assert status >> 11 & 7 == 5
    assert tags == 0xE0  # the three highest physical registers
    assert struct.unpack_from("<I", first, 24)[0] == 0x3FA0
    assert first[32:42] == bytes.fromhex(CONSTANTS["fldl2e"])
    assert first[48:58] == bytes.fromhex(CONSTANTS["fldpi"])
    assert first[64:74] == bytes.fromhex(CONSTANTS["fld1"])
    assert first[160:416] == b"".join(_fill(i) for i in range(16))
    assert (first[:6], first[24:28], first[32:]) == (second[:6], second[24:28], second[32:])


def test_fnsave_and_frstor_carry_the_x87_state(boot: Boot) -> None:
    guest = boot("""
    start:
        fninit
        fldpi
        fld1
        fnsave [HEAP]
        fnstsw [HEAP + 0x80]
        frstor [HEAP]
        fstp tbyte ptr [HEAP + 0x90]
        fstp tbyte ptr [HEAP + 0xa0]
        END
    """)
    guest.run()
    assert guest.number(guests.HEAP + 0x80, 2) == 0  # FNSAVE initialises
    assert guest.memory.read(guests.HEAP + 0x90, 10) == bytes.fromhex(CONSTANTS["fld1"])
    assert guest.memory.read(guests.HEAP + 0xA0, 10) == bytes.fromhex(CONSTANTS["fldpi"])


def test_mmx_registers_are_the_x87_mantissas(boot: Boot) -> None:
    guest = boot("""
    start:
        fninit
        mov rax, 0x0123456789abcdef
        movq mm3, rax
        paddb mm3, mm3
        movq [HEAP], mm3
        fnsave [HEAP + 16]
        emms
        END
    """)
    guest.run()
    assert guest.memory.read(guests.HEAP, 8) == bytes((2 * b) & 0xFF for b in bytes.fromhex("efcdab8967452301"))
    assert guest.memory.read(guests.HEAP + 16 + 28 + 30, 10) == guest.memory.read(guests.HEAP, 8) + b"\xff\xff"


def test_floating_point_state_survives_interrupts_that_use_it(boot: Boot) -> None:
    guest = boot("""
    start:
        ENABLE_APIC
        ON 0x40, disturb
        APIC 0x3e0, 0xb
        APIC 0x320, 0x20040
        APIC 0x380, 300000
        fninit
        fld1
        fld1
        movsd xmm5, [one]
        movsd xmm6, [factor]
        mov ecx, 30000
        fild dword ptr [three]
        sti
    1:  fadd st(1), st
        mulsd xmm5, xmm6
        dec ecx
        jnz 1b
    2:  cmp dword ptr [interrupts], 3
        jb 2b
        cli
        fstp st(0)
        fistp qword ptr [HEAP]
        movsd [HEAP + 8], xmm5
        END
    disturb:
        fxsave [HEAP + 0x1000]
        fninit
        fldpi
        fldz
        pxor xmm5, xmm5
        pxor xmm6, xmm6
        fxrstor [HEAP + 0x1000]
        inc dword ptr [interrupts]
        EOI
        ret
    interrupts: .long 0
    three: .long 3
    one: .double 1.0
    factor: .double 1.0001
    """)
    guest.run()
    product = 1.0
    for _ in range(30000):
        product *= 1.0001
    assert guest.number(guests.HEAP) == 1 + 3 * 30000
    assert guest.memory.read(guests.HEAP + 8, 8) == struct.pack("<d", product)
