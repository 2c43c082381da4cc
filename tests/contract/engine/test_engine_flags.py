"""RFLAGS through instructions that keep most of it: CMPXCHG8B, CMPXCHG16B, LOOPE and LOOPNE.

A translator computes the arithmetic flags only when somebody looks. These instructions look, or leave early, in the
middle of what is translated as one piece; what they leave behind must be what came before them.
"""

from typing import Final

import pytest

from tests.contract.engine import guests
from tests.contract.engine.harness import Boot

ARITHMETIC: Final = 0x8D5
ZF: Final = 0x40
RF: Final = 0x10000

# What sets the flags: RSI, RDI and RAX hold numbers.
SETTERS: Final = {
    "ADD": "add rsi, rdi",
    "ADC": "stc; adc esi, edi",
    "SUB": "sub rsi, rdi",
    "SBB": "stc; sbb si, di",
    "CMP": "cmp sil, dil",
    "AND": "and esi, edi",
    "INC": "stc; inc rsi",
    "DEC": "clc; dec sil",
    "NEG": "neg esi",
    "SHL": "shl rsi, 3",
    "SAR": "sar edi, 1",
    "IMUL": "imul rsi, rdi",
    "XADD": "xadd rsi, rdi",
    "CMPXCHG": "cmpxchg rsi, rdi",
    "STC": "cmp rsi, rdi; stc",
    "CMC": "cmp rsi, rdi; cmc",
    "SAHF": "cmp rsi, rdi; sahf",
    "POPF": "push 0x893; popfq",
    "BT": "cmp rsi, rdi; bt esi, 5",
}
UNDEFINED: Final = {"AND": 0x10, "SHL": 0x810, "SAR": 0x10, "IMUL": 0xD4, "BT": 0x894}
"""Setter → flags that the architecture leaves open."""
NUMBERS: Final = ((0, 0), (1, 1), (0x3100, 0x3000), (0x7FFFFFFFFFFFFFFF, 0x80), (1 << 63, -1), (0x55, -0x3101))

# Each begins a block with flags that came from somewhere else.
BEFORE: Final = {
    "flags from POPF": "push 0x203; popfq",
    "flags from SUB": "cmp rsp, 0x3100",
    "flags from INC": "mov r8d, -1; inc r8d",
}


def _twice(before: str, setter: str, pair: tuple[int, int], prepare: str, instruction: str) -> str:
    """Set flags and store them, then set them again and store what an instruction leaves of them."""
    numbers = f"mov rsi, {pair[0]}; mov rdi, {pair[1]}; mov eax, 0x4200"
    begin = f"{BEFORE[before]}; jmp 1f; 1: {numbers}"
    return f"""
        {begin}
        {SETTERS[setter]}
        pushfq
        pop r12
        {begin}
        {prepare}
        {SETTERS[setter]}
        {instruction}
    1:  pushfq
        pop r13
        mov [r14], r12
        mov [r14 + 8], r13
        add r14, 16
    """


def _flags(boot: Boot, rounds: list[str]) -> tuple[list[int], list[int]]:
    """Run all of them; give the flags before and after."""
    guest = boot(f"""
    start:
        mov r14d, HEAP
        {"".join(rounds)}
        END
        .balign 16
    pair: .quad 0, 0
    """)
    guest.run()
    flags = guest.numbers(guests.HEAP, 2 * len(rounds))
    return flags[::2], flags[1::2]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("setter", SETTERS)
@pytest.mark.parametrize("size", [8, 16])
def test_comparing_a_pair_changes_nothing_but_zf(boot: Boot, size: int, setter: str, before: str) -> None:
    compare = f"mov eax, 0; cmpxchg{size}b [pair]"
    prepare = "xor edx, edx; mov [pair], rdx; mov [pair + 8], rdx; xor ecx, ecx; mov ebx, 7; mov dword ptr [pair], "
    rounds = [
        _twice(before, setter, pair, f"{prepare} {different}", compare) for pair in NUMBERS for different in (0, 1)
    ]
    plain, after = _flags(boot, rounds)
    compared = ~UNDEFINED.get(setter, 0) & ~ZF
    assert [flags & compared for flags in after] == [flags & compared for flags in plain]
    assert [flags & ZF for flags in after] == [ZF, 0] * len(NUMBERS)


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("setter", SETTERS)
@pytest.mark.parametrize("loop", ["loope", "loopne", "loop", "jrcxz"])
def test_loops_leave_the_flags_alone(boot: Boot, loop: str, setter: str, before: str) -> None:
    rounds = [
        _twice(before, setter, pair, f"mov ecx, {count}", f"{loop} 1f; nop") for pair in NUMBERS for count in (0, 1, 2)
    ]
    plain, after = _flags(boot, rounds)
    compared = ~UNDEFINED.get(setter, 0)
    assert [flags & compared for flags in after] == [flags & compared for flags in plain]


@pytest.mark.parametrize(
    "instruction", ["cmpxchg8b [USER + pair]", "cmpxchg16b [USER + pair]", "loope 1f", "loopne 1f"]
)
@pytest.mark.parametrize("equal", [False, True])
def test_no_operand_of_a_program_becomes_its_privilege(boot: Boot, instruction: str, equal: bool) -> None:
    guest = boot(f"""
    start:
        CATCH back
        ENTER_USER user
    user:
        push 0x202
        popfq
        jmp 1f
    1:  mov ecx, 1
        mov esi, 0x3100
        mov edi, {0x3100 if equal else 0x3300}
        cmp edi, esi
        {instruction}
    1:  jmp 1f
    1:  out 0x77, al
    back:
        END
        .balign 16
    pair: .quad 0, 0
    """)
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error) == (13, 0)
    assert trap.rflags & ~ARITHMETIC & ~RF == 0x202
    assert guest.bus.seen("port", "write") == []
