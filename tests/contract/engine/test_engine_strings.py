"""Comparisons of strings, PCMPESTRM and its like: all control bytes, against the words of the manual."""

import struct
from typing import Final

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hibana.engine.interface import Engine
from tests.contract.engine.guests import HEAP
from tests.contract.engine.harness import Guest

CONTROLS: Final = 128
RESULTS: Final = HEAP + 0x1000
RECORD: Final = struct.Struct("<16s q Q")  # XMM0, RCX, RFLAGS
CF, ZF, SF, OF = 1, 1 << 6, 1 << 7, 1 << 11
ARITHMETIC: Final = 0x8D5

# At HEAP: the first operand, the second, RAX, RDX. Then four records for each control byte.
COMPARE_EVERYTHING: Final = f"""
    .macro TAKE instruction, control
        movups xmm1, [HEAP]
        pxor xmm0, xmm0
        mov rax, [HEAP + 32]
        mov rdx, [HEAP + 40]
        mov rcx, -1
        \\instruction xmm1, [HEAP + 16], \\control
        pushfq
        movups [rdi], xmm0
        mov [rdi + 16], rcx
        pop [rdi + 24]
        add edi, {RECORD.size}
    .endm
start:
    mov edi, {RESULTS:#x}
    .set control, 0
    .rept {CONTROLS}
    TAKE pcmpestrm, control
    TAKE pcmpestri, control
    TAKE pcmpistrm, control
    TAKE pcmpistri, control
    .set control, control + 1
    .endr
    END
"""


def _elements(operand: bytes, control: int) -> tuple[int, ...]:
    return struct.unpack({0: "<16B", 1: "<8H", 2: "<16b", 3: "<8h"}[control & 3], operand)


def _matches(first: tuple[int, ...], first_length: int, second: tuple[int, ...], length: int, how: int) -> list[bool]:
    """Aggregate, with what is behind the ends overridden (SDM vol. 2, "Aggregation Operation", "Valid/Invalid")."""
    everywhere = range(len(first))

    def equal(one: int, other: int) -> bool:
        return first[one] == second[other]

    if how == 0:  # equal any
        return [at < length and any(equal(one, at) for one in range(first_length)) for at in everywhere]
    if how == 1:  # ranges
        starts = [one for one in range(0, len(first), 2) if one + 1 < first_length]
        return [at < length and any(first[one] <= second[at] <= first[one + 1] for one in starts) for at in everywhere]
    if how == 2:  # equal each
        return [
            equal(at, at) if at < min(first_length, length) else at >= max(first_length, length) for at in everywhere
        ]
    return [
        all(one >= first_length or (at + one < length and equal(one, at + one)) for one in range(len(first) - at))
        for at in everywhere
    ]


def _result(operands: tuple[bytes, bytes], lengths: tuple[int, int], control: int) -> tuple[int, int, int]:
    """Give mask, index and flags."""
    first, second = (_elements(operand, control) for operand in operands)
    count = len(first)
    matches = _matches(first, lengths[0], second, lengths[1], control >> 2 & 3)
    if control & 0x10:
        matches = [match if control & 0x20 and at >= lengths[1] else not match for at, match in enumerate(matches)]
    places = [at for at, match in enumerate(matches) if match]
    if control & 0x40:
        mask = sum(((1 << 128 // count) - 1) << 128 // count * at for at in places)
    else:
        mask = sum(1 << at for at in places)
    index = count if not places else places[-1] if control & 0x40 else places[0]
    ended = (lengths[1] < count) * ZF | (lengths[0] < count) * SF
    return mask, index, bool(places) * CF | ended | matches[0] * OF


def _explicit(register: int, count: int) -> int:
    low = register & 0xFFFFFFFF
    return min(abs(low - (low >> 31 << 32)), count)


def _implicit(operand: bytes, control: int) -> int:
    elements = _elements(operand, control)
    return elements.index(0) if 0 in elements else len(elements)


LENGTHS: Final = st.one_of(st.integers(-20, 20), st.integers(-(1 << 63), (1 << 63) - 1), st.just(-(1 << 31)))
TEXTS: Final = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.lists(st.sampled_from(b"\0aab"), min_size=16, max_size=16).map(bytes),
    st.lists(st.sampled_from((0, 1, 1, 0x8001)), min_size=8, max_size=8).map(lambda words: struct.pack("<8H", *words)),
)


@given(TEXTS, TEXTS, LENGTHS, LENGTHS)
@example(b"a" * 16, b"a" * 16, 16, 16)
@example(b"ab" * 8, b"xxxxxxxxxxxxxxxa", 2, 16)
@example(b"a" * 16, b"a" * 16, -(1 << 31), -(1 << 63))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_strings_compare_as_in_the_manual(engine: Engine, one: bytes, other: bytes, rax: int, rdx: int) -> None:
    guest = Guest(engine, COMPARE_EVERYTHING)
    try:
        guest.memory.write(HEAP, struct.pack("<16s16sqq", one, other, rax, rdx))
        guest.run()
        records = list(RECORD.iter_unpack(guest.memory.read(RESULTS, 4 * CONTROLS * RECORD.size)))
    finally:
        guest.close()
    for control in range(CONTROLS):
        count = 8 if control & 1 else 16
        explicit = (_explicit(rax, count), _explicit(rdx, count))
        implicit = (_implicit(one, control), _implicit(other, control))
        for kind, lengths in enumerate((explicit, implicit)):
            mask, index, flags = _result((one, other), lengths, control)
            by_mask, by_index = records[4 * control + 2 * kind : 4 * control + 2 * kind + 2]
            what = f"control {control:#x}, {('explicit', 'implicit')[kind]} lengths {lengths}"
            assert int.from_bytes(by_mask[0], "little") == mask, what
            assert by_mask[1] == -1, what
            assert by_index[:2] == (bytes(16), index), what
            assert by_mask[2] & ARITHMETIC == by_index[2] & ARITHMETIC == flags, what
