"""Functions of 32 bytes that programs call and rewrite, and how they are written.

Every code frame is full of them: SLOTS functions in rows of 32 bytes, and one that begins in the last bytes of the
frame and ends in the first bytes of whatever page follows, wherever that is mapped. A function changes RAX, RCX and
flags, of which AF is undefined afterwards.
"""

import random
from struct import pack
from typing import Final

from hibana.units import PAGE
from tests.fuzz import world
from tests.fuzz.cpus import SSE
from tests.fuzz.encoder import R14, RAX, RBX, RCX, RDI, RSI, RSP
from tests.fuzz.generator import ARITHMETIC, Generator, Write

SLOT_SIZE: Final = 32
FIRST_SLOT: Final = 2 * SLOT_SIZE
SLOTS: Final = (0xB00 - FIRST_SLOT) // SLOT_SIZE
FUNCTION_SIZE: Final = 16

_MOV_EAX, _XOR_EAX, _PUSH, _RET = b"\xb8", b"\x35", b"\x68", b"\xc3"
_CLD_REP: Final = b"\xfc\xf3"
_BY_SSE: Final = 4
WHOLE_NUMBER: Final = 4
"""The value of `split` with which only RET is in the second page."""
_POOL_SIZE: Final = 16


def function(dice: random.Random) -> bytes:
    """Make a function of FUNCTION_SIZE bytes."""
    kind, number = int(dice.random() * 9), pack("<I", dice.getrandbits(32))
    if kind < 3:
        code = _MOV_EAX + number + _RET
    elif kind == 3:
        code = _XOR_EAX + number + _RET
    elif kind == 4:
        code = _PUSH + number + b"\x58" + _RET  # pop rax
    elif kind == 5:
        code = b"\x8d\x44\x00" + number[:1] + _RET  # lea eax, [rax + rax + n]
    elif kind == 6:  # count down
        code = b"\xb9" + pack("<I", 1 + number[0] % 5) + b"\xff\xc9\x75\xfc" + _RET
    elif kind == 7:  # add dword ptr [behind this function], n: data beside code
        code = b"\x83\x05" + pack("<I", FUNCTION_SIZE - 7) + number[:1] + _RET
    else:  # jump to the next slot
        code = b"\xeb" + bytes((SLOT_SIZE - 2,))
    return code.ljust(FUNCTION_SIZE, b"\x90")


def with_immediate(dice: random.Random) -> bytes:
    """Make a function whose bytes 1 to 4 are a number."""
    return (dice.choice((_MOV_EAX, _XOR_EAX)) + pack("<I", dice.getrandbits(32)) + _RET).ljust(FUNCTION_SIZE, b"\x90")


def frame(dice: random.Random, split: int) -> bytes:
    """Fill a code frame; `split`: how much of the last function's number is in this page."""
    number = pack("<I", dice.getrandbits(32))
    code = bytearray(number[split:] + _RET).ljust(FIRST_SLOT, b"\x90")
    for _ in range(SLOTS):
        code += function(dice) + dice.randbytes(SLOT_SIZE - FUNCTION_SIZE)
    code += with_immediate(dice)  # where the last slot may jump to
    return bytes(code).ljust(PAGE - 1 - split, b"\xcc") + _MOV_EAX + number[:split]


def _pool(split: int) -> tuple[bytes, ...]:
    dice = random.Random(split)
    return tuple(frame(dice, split) for _ in range(_POOL_SIZE))


POOLS: Final = {split: _pool(split) for split in (1, 2, 3, 4)}
"""Frames ready to use, by `split`."""


def slot(g: Generator) -> tuple[int, int]:
    """Choose a function: (code frame, offset)."""
    return world.CODE + g.below(world.CODE_FRAMES), FIRST_SLOT + SLOT_SIZE * g.below(SLOTS)


def call(g: Generator, address: int) -> None:
    """Call a function and add what it returns to RBX."""
    g.need(ARITHMETIC)
    g.code.load(RSI, address)
    g.code.call_to(RSI)
    g.code.alu(0, RAX, RBX, 8)  # add rbx, rax
    g.flags(ARITHMETIC)


def write_function(g: Generator, address: int, code: bytes) -> None:
    """Overwrite a function at an address by one of many instructions; RAX, RCX, RDX, RSI and RDI are used."""
    low, high = (int.from_bytes(code[at : at + 8], "little") for at in (0, 8))
    emit, how = g.code, g.below(8)
    if how == _BY_SSE and not g.may(SSE):
        how = 0
    emit.load(RDI, address)
    emit.load(RAX, low)
    if how == 0:
        emit.store(RAX, RDI)
        emit.load(RAX, high)
        emit.store(RAX, RDI, 8)
    elif how == 1:  # back to front, in halves
        emit.load(RCX, high)
        emit.store(RCX, RDI, 8)
        emit.store(RAX, RDI, 0, 4)
        emit.dr(b"\xc1", 5, RAX, 8)
        emit.imm8(32)
        emit.store(RAX, RDI, 4, 4)
        g.flags(ARITHMETIC, ARITHMETIC)
    elif how == 2:  # the stack pointer goes there
        emit.lea(RSP, RDI, FUNCTION_SIZE)
        emit.load(RCX, high)
        emit.push(RCX)
        emit.push(RAX)
        emit.mov(RSP, R14)
    elif how == 3:
        emit.raw(b"\xfc")
        emit.raw(b"\x48\xab")  # stosq
        emit.load(RAX, high)
        emit.raw(b"\x48\xab")
    elif how == _BY_SSE:
        emit.rr(b"\x0f\x6e", 0, RAX, 8, prefix=b"\x66")  # movq xmm0, rax
        emit.load(RAX, high)
        emit.rr(b"\x0f\x6e", 1, RAX, 8, prefix=b"\x66")
        emit.rr(b"\x0f\x6c", 0, 1, prefix=b"\x66")  # punpcklqdq
        emit.rm(b"\x0f\x7f", 0, RDI, prefix=b"\xf3")  # movdqu
    elif how == 5:
        _copy_from_stack(g, low, high)
    elif how == 6:  # exchange
        emit.rm(b"\x87", RAX, RDI, 0, 8)
        emit.load(RAX, high)
        emit.rm(b"\x87", RAX, RDI, 8, 8)
    else:
        _by_halves(g, low, high)


def _copy_from_stack(g: Generator, low: int, high: int) -> None:
    emit = g.code
    for number in (high, low):
        emit.load(RAX, number)
        emit.push(RAX)
    emit.mov(RSI, RSP)
    width, opcode = g.pick(((1, b"\xa4"), (2, b"\x66\xa5"), (4, b"\xa5"), (8, b"\x48\xa5")))
    emit.load(RCX, FUNCTION_SIZE // width)
    if width == 2:
        emit.raw(b"\xfc\x66\xf3\xa5")
    else:
        emit.raw(_CLD_REP + opcode)
    emit.mov(RSP, R14)
    g.serialize_after_string()


def _by_halves(g: Generator, low: int, high: int) -> None:
    """Store without the caches: MOVNTI, then a locked addition to zero."""
    emit = g.code
    emit.rm(b"\x0f\xc3", RAX, RDI, 0, 8)
    emit.load(RAX, 0)
    emit.store(RAX, RDI, 8)
    emit.load(RAX, high)
    emit.lock()
    emit.rm(b"\x01", RAX, RDI, 8, 8)
    g.flags(ARITHMETIC)


def write_immediate(g: Generator, address: int) -> None:
    """Change the number of a function `with_immediate`, all of it or some bytes; RAX and RDI are used."""
    emit, how = g.code, g.below(6)
    emit.load(RDI, address + 1)
    emit.load(RAX, g.number())
    if how < 3:
        size = (1, 2, 4)[how]
        emit.store(RAX, RDI, g.below(5 - size), size)
    elif how == 3:
        emit.lock()
        emit.rm(b"\x01", RAX, RDI, 0, 4)
        g.flags(ARITHMETIC)
    elif how == 4:
        emit.lock()
        emit.dm(b"\xff", g.below(2), RDI)  # inc, dec
        g.flags(ARITHMETIC)
    else:
        emit.rm(b"\x86", RAX, RDI, g.below(4), 1)  # xchg


def host_write(frame_number: int, offset: int, code: bytes) -> list[Write]:
    """Let the host write a function, which may cross into the next frame."""
    inside = min(len(code), PAGE - offset)
    writes = [Write(frame_number, offset, code[:inside])]
    if inside < len(code):
        writes.append(Write(frame_number + 1, 0, code[inside:]))
    return writes
