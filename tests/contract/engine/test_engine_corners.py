"""Corners of instructions that a comparison of random programs with real CPUs has found: defined, and overlooked."""

import struct
from typing import Final

import pytest

from tests.contract.engine import guests
from tests.contract.engine.harness import Boot

ARITHMETIC: Final = 0x8D5

# --- integers ---------------------------------------------------------------------------------------------------------


def test_a_comparison_that_fails_does_not_touch_a_register(boot: Boot) -> None:
    guest = boot("""
    start:
        mov rbx, -1
        mov eax, 5
        mov ecx, 7
        cmpxchg ebx, ecx
        mov [HEAP], rbx
        mov [HEAP + 8], rax
        END
    """)
    guest.run()
    assert guest.numbers(guests.HEAP, 2) == [0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF]


SUCCESSFUL: Final = ("cmpxchg ebx, ecx", "cmpxchg [HEAP], ecx", "lock cmpxchg [HEAP], ecx", "cmpxchg8b [HEAP]")


@pytest.mark.parametrize("instruction", SUCCESSFUL)
def test_a_comparison_that_succeeds_does_not_touch_the_accumulator(boot: Boot, instruction: str) -> None:
    guest = boot(f"""
    start:
        mov dword ptr [HEAP], 5
        mov dword ptr [HEAP + 4], 6
        movabs rax, 0x1200000005
        movabs rdx, 0x3400000006
        mov ebx, 5
        mov ecx, 7
        {instruction}
        mov [HEAP + 8], rax
        mov [HEAP + 16], rdx
        END
    """)
    guest.run()
    assert guest.numbers(guests.HEAP + 8, 2) == [0x1200000005, 0x3400000006]


@pytest.mark.parametrize("prefix", ["", "lock"])
def test_a_negation_in_memory_sets_the_flags_of_its_result(boot: Boot, prefix: str) -> None:
    guest = boot(f"""
    start:
        mov dword ptr [HEAP], 1
        {prefix} neg dword ptr [HEAP]
        pushfq
        pop qword ptr [HEAP + 8]
        END
    """)
    guest.run()
    assert guest.number(guests.HEAP, 4) == 0xFFFFFFFF
    assert guest.number(guests.HEAP + 8) & ARITHMETIC == 0x95  # CF PF AF SF


HORIZONTAL: Final = {
    "phaddw": [3, 7, 11, 15, 3, 7, 11, 15],
    "phsubw": [65535] * 8,
    "phaddsw": [3, 7, 11, 15, 3, 7, 11, 15],
    "phsubsw": [65535] * 8,
    "phaddd": [4, 6, 12, 14, 4, 6, 12, 14],
    "phsubd": [65534, 65533, 65534, 65533, 65534, 65533, 65534, 65533],
}


@pytest.mark.parametrize("name", HORIZONTAL)
def test_a_horizontal_sum_of_a_register_and_itself_is_there_twice(boot: Boot, name: str) -> None:
    guest = boot(f"""
    start:
        movups xmm1, [numbers]
        {name} xmm1, xmm1
        movups [HEAP], xmm1
        END
    .balign 16
    numbers: .word 1, 2, 3, 4, 5, 6, 7, 8
    """)
    guest.run()
    assert guest.numbers(guests.HEAP, 8, 2) == HORIZONTAL[name]


HORIZONTAL_MMX: Final = {
    "phaddw": [3, 8, 3, 8],
    "phsubw": [65535, 65534, 65535, 65534],
    "phaddsw": [3, 8, 3, 8],
    "phsubsw": [65535, 65534, 65535, 65534],
    "phaddd": [4, 7, 4, 7],
    "phsubd": [65534, 65532, 65534, 65532],
}


@pytest.mark.parametrize("name", HORIZONTAL_MMX)
def test_a_horizontal_sum_of_an_mmx_register_and_itself_is_there_twice(boot: Boot, name: str) -> None:
    guest = boot(f"""
    start:
        movq mm1, [numbers]
        {name} mm1, mm1
        movq [HEAP], mm1
        END
    .balign 8
    numbers: .word 1, 2, 3, 5
    """)
    guest.run()
    assert guest.numbers(guests.HEAP, 4, 2) == HORIZONTAL_MMX[name]


def test_a_comparison_of_strings_takes_lengths_from_both_registers(boot: Boot) -> None:
    guest = boot("""
    start:
        xorps xmm1, xmm1
        xorps xmm2, xmm2
        movabs rax, 0x100000003                 # EAX alone counts, without a REX.W
        mov edx, -4
        pcmpestri xmm1, xmm2, 0x18              # equal each, negative: the first that differ
        mov [HEAP], ecx
        END
    """)
    guest.run()
    assert guest.number(guests.HEAP, 4) == 3


@pytest.mark.parametrize("size", ["", "64"])
@pytest.mark.parametrize("length", ["0x80000000", "0x8000000000000000", "0x180000000", "-0x7fffffff", "17"])
def test_no_length_of_a_string_is_too_much(boot: Boot, size: str, length: str) -> None:
    guest = boot(f"""
    start:
        xorps xmm1, xmm1
        movabs rax, {length}
        mov rdx, rax
        pcmpestri{size and "q"} xmm1, xmm1, 0x18   # equal each, negative: there is no first that differs
        mov [HEAP], ecx
        pcmpestrm xmm1, xmm1, 0x18
        movq [HEAP + 8], xmm0
        END
    """)
    guest.run()
    assert guest.numbers(guests.HEAP, 2) == [16, 0]


def test_a_substring_is_also_found_where_it_may_go_on_behind_the_register(boot: Boot) -> None:
    guest = boot("""
    start:
        movups xmm1, [text]
        movaps xmm2, xmm1
        pcmpistrm xmm1, xmm2, 0x0C              # bytes, equal ordered
        movq [HEAP], xmm0
        END
    .balign 16
    text: .ascii "AAAAAAAAAAAAAAAA"
    """)
    guest.run()
    assert guest.number(guests.HEAP) == 0xFFFF


# --- x87 --------------------------------------------------------------------------------------------------------------

TRUNCATED: Final = {
    "too large for 32 bits": ("dword", 4, "1e10", 0x80000000),
    "too small for 32 bits": ("dword", 4, "-1e10", 0x80000000),
    "the largest of 32 bits": ("dword", 4, "2147483647.75", 0x7FFFFFFF),
    "the smallest of 32 bits": ("dword", 4, "-2147483648.75", 0x80000000),
    "too large for 64 bits": ("qword", 8, "1e30", 1 << 63),
    "too small for 64 bits": ("qword", 8, "-1e30", 1 << 63),
    "inside 64 bits": ("qword", 8, "-1e15", -(10**15) & (1 << 64) - 1),
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_x87_truncation_gives_the_indefinite_integer_for_what_does_not_fit(boot: Boot, name: str) -> None:
    unit, size, value, result = TRUNCATED[name]
    guest = boot(f"""
    start:
        fninit
        fld qword ptr [value]
        fisttp {unit} ptr [HEAP]
        fnstsw [HEAP + 8]
        END
    value: .double {value}
    """)
    guest.run()
    assert guest.number(guests.HEAP, size) == result
    assert guest.number(guests.HEAP + 8, 2) & 0x3800 == 0  # popped


UP: Final = 0xB7F
ROUNDED_UP: Final = {
    "fldpi": 0xC90FDAA22168C235,
    "fldl2e": 0xB8AA3B295C17F0BC,
    "fldl2t": 0xD49A784BCD1B8AFF,
    "fldlg2": 0x9A209A84FBCFF799,
    "fldln2": 0xB17217F7D1CF79AC,
}
ROUNDED_DOWN: Final = {
    "fldpi": 0xC90FDAA22168C234,
    "fldl2e": 0xB8AA3B295C17F0BB,
    "fldl2t": 0xD49A784BCD1B8AFE,
    "fldlg2": 0x9A209A84FBCFF798,
    "fldln2": 0xB17217F7D1CF79AB,
}


@pytest.mark.parametrize("name", ROUNDED_UP)
def test_an_x87_constant_is_rounded_as_the_control_word_says(boot: Boot, name: str) -> None:
    guest = boot(f"""
    start:
        fninit
        mov word ptr [HEAP], {UP}
        mov word ptr [HEAP + 2], {UP ^ 0xC00}
        mov word ptr [HEAP + 4], {UP | 0xC00}
        .irp at, 0, 2, 4
        fldcw [HEAP + \\at]
        {name}
        fstp tbyte ptr [HEAP + 16 + 8 * \\at]
        .endr
        END
    """)
    guest.run()
    up, down, to_zero = (guest.number(guests.HEAP + at) for at in (16, 32, 48))
    assert (up, down, to_zero) == (ROUNDED_UP[name], ROUNDED_DOWN[name], ROUNDED_DOWN[name])


# The instruction, where it finds its operand, and which bit of the operand's NaN should be set afterwards.
SIGNALING: Final = {
    "FLD m32": "fld dword ptr [single]",
    "FLD m64": "fld qword ptr [double]",
    "FADD m32": "fldz; fadd dword ptr [single]",
    "FMUL m64": "fld1; fmul qword ptr [double]",
}


@pytest.mark.parametrize("name", SIGNALING)
def test_x87_makes_a_signaling_nan_quiet(boot: Boot, name: str) -> None:
    guest = boot(f"""
    start:
        fninit
        {SIGNALING[name]}
        fstp tbyte ptr [HEAP]
        END
    .balign 8
    double: .quad 0x7FF4000000000000
    single: .long 0x7FA00000
    """)
    guest.run()
    assert guest.memory.read(guests.HEAP, 10) == struct.pack("<QH", 0xE000000000000000, 0x7FFF)


# --- SSE --------------------------------------------------------------------------------------------------------------

FIRST: Final = 0xFFF8000000000001
SECOND: Final = 0x7FFFFFFFFFFFFFFF


@pytest.mark.parametrize("operation", ["add", "sub", "mul", "div"])
def test_sse_gives_the_first_of_two_nans(boot: Boot, operation: str) -> None:
    guest = boot(f"""
    start:
        movupd xmm0, [numbers]
        movupd xmm1, [numbers + 16]
        movapd xmm2, xmm0
        {operation}pd xmm0, xmm1
        movupd [HEAP], xmm0
        {operation}sd xmm2, xmm1
        movupd [HEAP + 16], xmm2
        movupd xmm0, [numbers + 32]
        movupd xmm1, [numbers + 48]
        movapd xmm2, xmm0
        {operation}ps xmm0, xmm1
        movupd [HEAP + 32], xmm0
        {operation}ss xmm2, xmm1
        movupd [HEAP + 48], xmm2
        END
    numbers:
        .quad {FIRST:#x}, {FIRST:#x}, {SECOND:#x}, {SECOND:#x}
        .long 0xFFC00001, 0xFFC00002, 0xFFC00003, 0xFFC00004, 0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF
    """)
    guest.run()
    assert guest.numbers(guests.HEAP, 4) == [FIRST] * 4
    assert guest.numbers(guests.HEAP + 32, 8, 4) == [0xFFC00001, 0xFFC00002, 0xFFC00003, 0xFFC00004] * 2


@pytest.mark.parametrize("operation", ["min", "max"])
def test_denormals_are_zero_also_for_the_smaller_and_the_larger(boot: Boot, operation: str) -> None:
    guest = boot(f"""
    start:
        mov dword ptr [HEAP], 0x1FC0            # DAZ
        ldmxcsr [HEAP]
        movupd xmm0, [numbers]
        movupd xmm1, [numbers + 16]
        movapd xmm2, xmm0
        {operation}pd xmm0, xmm1
        movupd [HEAP + 16], xmm0
        {operation}sd xmm2, xmm1
        movsd [HEAP + 32], xmm2
        END
    numbers: .quad 5, 0x8000000000000005, 7, 0x8000000000000007
    """)
    guest.run()
    assert guest.numbers(guests.HEAP + 16, 3) == [0, 1 << 63, 0]


@pytest.mark.parametrize(("control", "vector"), [("bts", 19), ("btr", 6)])
def test_an_sse_exception_that_is_not_masked_leaves_the_destination_alone(
    boot: Boot, control: str, vector: int
) -> None:
    guest = boot(f"""
    start:
        mov rax, cr4
        {control} rax, 10                       # OSXMMEXCPT
        mov cr4, rax
        mov dword ptr [HEAP], 0x1D80            # all but division by zero are masked
        ldmxcsr [HEAP]
        movups xmm0, [numbers]
        CATCH done
        divps xmm0, [numbers + 16]
    done:
        movups [HEAP + 16], xmm0
        stmxcsr [HEAP]
        END
    .balign 16
    numbers: .float 1, 2, 3, 4, 1, 0, 1, 1
    """)
    guest.run()
    assert [trap.vector for trap in guest.traps()] == [vector]
    assert guest.memory.read(guests.HEAP + 16, 16) == struct.pack("<4f", 1, 2, 3, 4)
    assert guest.number(guests.HEAP, 4) == 0x1D84


INEXACT: Final = 0x20
# MXCSR, the instruction, two operands, and the exceptions in MXCSR afterwards, but for that of an inexact result.
UNMASKED: Final = {
    "an invalid operand beside an inexact result": (0x1F00, "divps", (0.0, 1.0), (0.0, 3.0), 0x01),
    "a division by zero beside an invalid operand": (0x1D80, "divps", (1.0, 0.0), (0.0, 0.0), 0x05),
    "a denormal beside an inexact result": (0x1E80, "divps", (2.0**-140, 1.0), (1.0, 3.0), 0x02),
    "an overflow": (0x1B80, "mulps", (2.0**127, 1.0), (2.0, 1.0), 0x08),
    "an exact underflow": (0x1780, "mulps", (2.0**-126, 1.0), (0.5, 1.0), 0x10),
    "an exact underflow that would become zero": (0x9780, "mulps", (2.0**-126, 1.0), (0.5, 1.0), 0x10),
    "an inexact underflow": (0x1780, "mulps", (1.25 * 2.0**-126, 1.0), (0.3, 1.0), 0x10),
}


@pytest.mark.parametrize("name", UNMASKED)
def test_an_sse_exception_that_is_not_masked_says_what_was_noticed_before(boot: Boot, name: str) -> None:
    mxcsr, instruction, first, second, noticed = UNMASKED[name]
    bits = struct.unpack("<8I", struct.pack("<8f", *first, 1.0, 1.0, *second, 1.0, 1.0))
    guest = boot(f"""
    start:
        mov rax, cr4
        bts rax, 10                             # OSXMMEXCPT
        mov cr4, rax
        mov dword ptr [HEAP], {mxcsr:#x}
        ldmxcsr [HEAP]
        movups xmm0, [numbers]
        CATCH done
        {instruction} xmm0, [numbers + 16]
    done:
        movups [HEAP + 16], xmm0
        stmxcsr [HEAP]
        END
    .balign 16
    numbers: .long {", ".join(map(hex, bits))}
    """)
    guest.run()
    assert [trap.vector for trap in guest.traps()] == [19]
    assert guest.numbers(guests.HEAP + 16, 4, 4) == list(bits[:4])
    found = guest.number(guests.HEAP, 4)
    beside = 0 if noticed & 0x07 else INEXACT  # of what is found in operands it is certain, for nothing is computed
    assert found & ~beside == mxcsr | noticed


def test_an_underflow_that_is_not_masked_is_none_of_a_result_that_is_not_tiny(boot: Boot) -> None:
    guest = boot("""
    start:
        mov dword ptr [HEAP], 0x1780            # all but underflow are masked
        ldmxcsr [HEAP]
        movss xmm0, [numbers]
        divss xmm0, [numbers + 4]
        movss [HEAP + 16], xmm0
        stmxcsr [HEAP]
        END
    numbers: .float 1, 3
    """)
    guest.run()
    assert guest.traps() == []
    assert guest.memory.read(guests.HEAP + 16, 4) == struct.pack("<f", 1 / 3)
    assert guest.number(guests.HEAP, 4) == 0x17A0


def test_an_sse_overflow_that_is_not_masked_may_be_exact(boot: Boot) -> None:
    guest = boot("""
    start:
        mov rax, cr4
        bts rax, 10                             # OSXMMEXCPT
        mov cr4, rax
        mov dword ptr [HEAP], 0x1B80            # all but overflow are masked
        ldmxcsr [HEAP]
        movss xmm0, [numbers]
        CATCH done
        mulss xmm0, [numbers + 4]
    done:
        stmxcsr [HEAP]
        END
    numbers: .long 0x7F000000, 0x40000000       # 2^127, 2
    """)
    guest.run()
    assert [trap.vector for trap in guest.traps()] == [19]
    assert guest.number(guests.HEAP, 4) == 0x1B88


INEXACT_RESULTS: Final = {
    "ROUNDSS": "roundss xmm1, [numbers], 0",
    "ROUNDPD": "roundpd xmm1, [numbers + 16], 0",
    "DPPS": "movups xmm1, [numbers]; dpps xmm1, xmm1, 0xFF",
    "CVTPI2PS": "movq mm1, [numbers + 32]; cvtpi2ps xmm1, mm1",
    "CVTPS2PI": "cvtps2pi mm1, [numbers]",
    "CVTTPS2PI": "cvttps2pi mm1, [numbers]",
    "CVTPD2PI": "cvtpd2pi mm1, [numbers + 16]",
    "CVTTPD2PI": "cvttpd2pi mm1, [numbers + 16]",
}


@pytest.mark.parametrize("name", INEXACT_RESULTS)
def test_mxcsr_remembers_also_what_later_instructions_and_those_with_mmx_made_inexact(boot: Boot, name: str) -> None:
    guest = boot(f"""
    start:
        {INEXACT_RESULTS[name]}
        stmxcsr [HEAP]
        END
    .balign 16
    numbers:
        .float 1.1, 1.1, 1.1, 1.1
        .double 1.1, 1.1
        .long 0x1000001, 0x1000001
    """)
    guest.run()
    assert guest.number(guests.HEAP, 4) == 0x1FA0


def test_conversions_from_and_to_mmx_registers_leave_the_other_half_alone(boot: Boot) -> None:
    guest = boot("""
    start:
        fninit
        movups xmm1, [numbers]
        movq mm1, [numbers + 16]
        cvtpi2ps xmm1, mm1
        movups [HEAP], xmm1
        cvtps2pi mm2, [numbers]
        movq [HEAP + 16], mm2
        cvttps2pi mm3, [numbers]
        movq [HEAP + 24], mm3
        cvtpd2pi mm4, [numbers + 32]
        movq [HEAP + 32], mm4
        cvttpd2pi mm5, [numbers + 32]
        movq [HEAP + 40], mm5
        END
    .balign 16
    numbers:
        .float 1.5, -2.75, 3, 4
        .long 7, -9, 0, 0
        .double 1e10, -2.75
    """)
    guest.run()
    assert guest.memory.read(guests.HEAP, 16) == struct.pack("<4f", 7, -9, 3, 4)
    rounded, truncated = (2, -3), (1, -2)
    expected = (*rounded, *truncated, -(1 << 31), rounded[1], -(1 << 31), truncated[1])
    assert struct.unpack("<8i", guest.memory.read(guests.HEAP + 16, 32)) == expected


# --- page faults ------------------------------------------------------------------------------------------------------


def test_a_page_fault_of_an_instruction_that_reads_and_writes_is_one_of_a_write(boot: Boot) -> None:
    guest = boot("""
    start:
        mov edi, PAGES
        .irp instruction, "add [rdi], eax", "lock add [rdi], eax", "xchg [rdi], eax", "inc dword ptr [rdi]"
        CATCH 1f
        \\instruction
    1:
        .endr
        END
    """)
    guest.run()
    assert [(trap.vector, trap.error) for trap in guest.traps()] == [(14, 2)] * 4


def test_a_page_fault_of_a_fetch_comes_after_the_instructions_before_it(boot: Boot) -> None:
    guest = boot("start: CATCH done; mov edi, PAGES + 0xFFB; jmp rdi; done: END")
    guests.write_page(guest.memory, 0, guests.HEAP | guests.PRESENT)
    guest.memory.write(guests.HEAP + 0xFFB, b"\xb8\x77\x07\0\0")  # mov eax, 0x777: up to the end of the page
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error & 0x11) == (14, 0x10)
    assert (trap.rip, trap.cr2) == (guests.PAGES + 0x1000, guests.PAGES + 0x1000)
