"""Blocks in which something happens: exceptions on purpose, interrupts, devices."""

from collections.abc import Callable
from typing import Final

from hibana.units import PAGE
from tests.fuzz import integer, world
from tests.fuzz.blocks_execute import in_user_mode
from tests.fuzz.cpus import (
    CLOSED_GATES,
    HLT_AFTER_STI,
    INT_N,
    JUMP_NOWHERE,
    LTR_OF_LDT,
    PARAVIRTUAL_MSRS,
    READ_MODIFY_FAULT,
    RESERVED_CONTROL_BITS,
    UD0,
)
from tests.fuzz.encoder import R12, R13, RAX, RBX, RCX, RDI, RDX, RSI, RSP, E
from tests.fuzz.generator import AF, ARITHMETIC, FREE, Entry, Generator
from tests.fuzz.world import AT_RECORD, DATA, K, L, U, at

_LTR: Final = b"\x0f\x00\xd8"
_UD2: Final = b"\x0f\x0b"
_CLI, _STI, _HLT = b"\xfa", b"\xfb", b"\xf4"
_TF_BIT: Final = 8
_ICR: Final = 0x300
_TO_SELF: Final = 0x40000
_INITIAL_COUNT: Final = 0x380
_NOWHERE: Final = 0x123456789000
_OF_KVM: Final = 0x4B564D00
_NON_CANONICAL: Final = 0x0123456789ABCDEF
_LONGEST_TIMER: Final = 6000
"""In ticks of 40 ns."""


# --- exceptions -------------------------------------------------------------------------------------------------------


def _raw(text: str, name: str = "") -> Callable[[Generator], None]:
    code = bytes.fromhex(text)
    return lambda g: g.code.raw(code if g.may(name) else _UD2)


def _divide(g: Generator) -> None:
    """Divide by 0, or get a quotient that is too large."""
    if g.chance(0.5):
        g.code.load(RCX, 0)
    else:
        g.code.load(RDX, -1)
        g.code.load(RCX, 1)
    g.need(ARITHMETIC)
    g.code.dr(b"\xf7", g.pick((6, 7)), RCX, g.pick((2, 4, 8)))
    g.flags(0, ARITHMETIC)


def _unmapped(g: Generator) -> None:
    """Access an address where nothing is, or which cannot be one."""
    address, kind = g.pick((_NOWHERE, _NON_CANONICAL, K + 0x1FF000, L + 0xA00000, K - PAGE)), g.below(5)
    if (kind == 3 and not g.may(READ_MODIFY_FAULT)) or (address == _NON_CANONICAL and not g.may(JUMP_NOWHERE)):
        kind = 0
    g.code.load(RSI, address)
    if kind == 0:
        g.code.fetch(RAX, RSI)
    elif kind == 1:
        g.code.store(RAX, RSI)
    elif kind == 2:
        g.code.dm(b"\xff", 6, RSI)  # push
    elif kind == 3:
        g.code.rm(b"\x01", RAX, RSI, 0, 8)
    else:
        g.code.jump_to(RSI)


def _string_into_nothing(g: Generator) -> None:
    """Load or store until there is no page any more: the registers tell how far it went."""
    code = g.code
    behind = at(U, world.FRAMES, -8 * g.below(9))
    code.load(RDI, behind)
    code.load(RSI, at(g.regions[0], DATA + 4))
    code.load(RCX, 100)
    kind = g.below(3)
    if kind == 2:  # downwards, out of the first code frame
        code.load(RSI, at(U, world.CODE, 8 * g.below(8)))
        code.raw(b"\xfd")
    elif kind == 1:
        code.load(RSI, behind)
        code.raw(b"\xfc")
    else:
        code.raw(b"\xfc")
    code.raw(g.pick((b"\xf3\xac", b"\xf3\x48\xad") if kind else (b"\xf3\xa4", b"\xf3\x48\xa5", b"\xf3\x48\xab")))


def _bad_msr(g: Generator) -> None:
    g.code.load(RCX, g.pick((0x12345, 0xC0001234, _OF_KVM) if g.may(PARAVIRTUAL_MSRS) else (0x12345, 0xC0001234)))
    g.code.raw(g.pick((b"\x0f\x30", b"\x0f\x32")))


def _bad_selector(g: Generator) -> None:
    selector, code = g.pick((0x58, 0x1234, 0x18, 0x0B)), g.pick((b"\x8e\xd8", b"\x8e\xc0", b"\x8e\xd0", _LTR))
    if code == _LTR and not g.may(LTR_OF_LDT):
        selector = 0x58
    g.code.load(RAX, selector)
    g.code.raw(code)  # mov ds, es, ss; ltr


def _bad_control(g: Generator) -> None:
    if not g.may(RESERVED_CONTROL_BITS):
        g.code.raw(_UD2)
        return
    g.code.load(RAX, g.pick((1 << 40, 0x80000001 | 1 << 31 << 8)))
    g.code.raw(g.pick((b"\x0f\x22\xe0", b"\x0f\x22\xc0", b"\x44\x0f\x22\xc0")))  # mov cr4, cr0, cr8


def _bad_return(g: Generator) -> None:
    for value in (world.KERNEL_DATA, 0, 2, g.pick((0x58, 0x13, 0)), 0):
        g.code.load(RAX, value)
        g.code.push(RAX)
    g.code.raw(b"\x48\xcf")


_FAULTS: Final[tuple[Callable[[Generator], None], ...]] = (
    *(_divide,) * 4, *(_unmapped,) * 5, _bad_msr, _bad_selector, _bad_control, _bad_return,
    _raw("0f0b"), _raw("cc", INT_N), _raw("cd04", INT_N), _raw("cd90", CLOSED_GATES), _raw("0fff", UD0), _raw("ce"),
    _raw("0f05"), _raw("cd80", INT_N),
)  # fmt: skip
_USER_FAULTS: Final[tuple[Callable[[Generator], None], ...]] = (
    *(_divide,) * 2, *(_unmapped,) * 3, _raw("0f0b"), _raw("cc"), _raw("cd04"), _raw("cd21", CLOSED_GATES), _raw("fa"),
    _raw("f4"), _raw("e480"), _raw("e680"), _raw("0f20d8"), _raw("0f22d8"), _raw("0f32"), _raw("0f0138"), _raw("48cf"),
    _raw("0f08"),
)  # fmt: skip


def _fault(g: Generator, faults: tuple[Callable[[Generator], None], ...]) -> None:
    """Cause an exception among other instructions: everything before it counts, nothing after it."""

    def body() -> None:
        integer.soup(g, g.below(5))
        g.need(ARITHMETIC)
        g.pick(faults)(g)
        integer.soup(g, g.below(3))

    g.may_fault(body)


def _faults(g: Generator) -> None:
    g.aim_at_data()
    for _ in range(1 + g.below(4)):
        _fault(g, _USER_FAULTS if g.user else _FAULTS)


def _user_faults(g: Generator) -> None:
    in_user_mode(g, lambda: _faults(g))


def _fault_in_loop(g: Generator) -> None:
    """Divide by what a counter makes 0 now and then."""
    g.aim_at_data()

    def body() -> None:
        integer.soup(g, 1 + g.below(3))
        g.code.mov(RBX, R13)
        g.code.alui(4, RBX, 3)
        g.code.alu(6, RDX, RDX)
        g.flags(ARITHMETIC & ~AF, AF)
        g.need(ARITHMETIC)
        g.code.dr(b"\xf7", 6, RBX)
        g.flags(0, ARITHMETIC)

    g.loop(3 + g.below(12), body)


def _string_fault(g: Generator) -> None:
    g.may_fault(lambda: _string_into_nothing(g))
    for register in (RCX, RSI, RDI):
        g.code.alu(0, register, RBX, 8)
    g.flags(ARITHMETIC)


def _single_steps(g: Generator) -> None:
    """Set TF for a few instructions."""
    g.aim_at_data()
    _change_trap_flag(g, 5)
    integer.soup(g, 1 + g.below(8))
    _change_trap_flag(g, 6)


def _change_trap_flag(g: Generator, digit: int) -> None:
    code = g.code
    g.need(ARITHMETIC)
    code.raw(b"\x9c")
    code.dm(b"\x0f\xba", digit, RSP, 0, 8)  # bts, btr
    code.imm8(_TF_BIT)
    code.raw(b"\x9d")


# --- interrupts -------------------------------------------------------------------------------------------------------


def _count_of(vector: int) -> int:
    return AT_RECORD + world.COUNTS + 4 * (vector - world.ASYNC_VECTORS[0])


def _await(g: Generator, vector: int, register: int) -> None:
    """Wait until the count of a vector is no longer what it was."""
    top = g.code.here()
    g.code.ra(b"\x3b", register, _count_of(vector))
    g.code.jcc(E, top)
    g.flags(ARITHMETIC)


def _interrupts(g: Generator, send: Callable[[int], None], vectors: list[int]) -> None:
    """Let some interrupts come at once, when IF allows it, and wait until each has."""
    code = g.code
    code.raw(_CLI)
    for vector, register in zip(vectors, FREE[1:], strict=False):
        code.ra(b"\x8b", register, _count_of(vector))
    for vector in vectors:
        send(vector)
    code.raw(_STI)
    if g.chance(0.2) and g.may(HLT_AFTER_STI):
        code.raw(_HLT)
    for vector, register in zip(vectors, FREE[1:], strict=False):
        _await(g, vector, register)


def _lines(g: Generator) -> None:
    """Let a device pulse its line."""
    vectors = g.dice.sample(range(world.FIRST_LINE_VECTOR, world.FIRST_LINE_VECTOR + 4), 1 + g.below(4))

    def send(vector: int) -> None:
        g.code.load(RAX, world.LINES[vector - world.FIRST_LINE_VECTOR])
        g.code.out_eax(world.PORT_PULSE)

    _interrupts(g, send, vectors)


def _to_itself(g: Generator) -> None:
    """Send interrupts to itself through the local APIC."""

    def send(vector: int) -> None:
        g.code.da(b"\xc7", 0, world.LAPIC_PAGE + _ICR)
        g.code.imm(_TO_SELF | vector, 4)

    _interrupts(g, send, g.dice.sample(world.IPI_VECTORS, 1 + g.below(4)))


def _await_timer(g: Generator, halt: bool) -> None:
    code, wait, done = g.code, g.code.label(), g.code.label()
    code.bind(wait)
    code.raw(_CLI)
    code.ra(b"\x8b", RAX, AT_RECORD + world.ARMED)
    code.ra(b"\x3b", RAX, _count_of(world.TIMER_VECTOR))
    code.jcc(E, done)
    code.raw(_STI)
    if halt:
        code.raw(_HLT)
    code.jmp(wait)
    code.bind(done)
    code.raw(_STI)
    g.flags(ARITHMETIC)


def _timer(g: Generator) -> None:
    """Start the timer: its interrupt comes somewhere in what follows."""
    _await_timer(g, halt=False)
    g.code.da(b"\xff", 0, AT_RECORD + world.ARMED)
    g.code.da(b"\xc7", 0, world.LAPIC_PAGE + _INITIAL_COUNT)
    g.code.imm(1 + g.below(_LONGEST_TIMER), 4)


def _halt(g: Generator) -> None:
    """Start the timer and halt until it rings."""
    _timer(g)
    _await_timer(g, halt=g.may(HLT_AFTER_STI))


def _interruptible(g: Generator) -> None:
    """Change IF."""
    for _ in range(1 + g.below(4)):
        g.code.raw(g.pick((_CLI, _STI)))
        g.code.raw(g.pick((b"\x90", b"\xf3\x90", b"")))


# --- devices ----------------------------------------------------------------------------------------------------------


def _ports(g: Generator) -> None:
    """IN and OUT of all sizes, with the port in DX or in the instruction."""
    for _ in range(1 + g.below(5)):
        size, out = g.pick((1, 2, 4)), g.chance(0.5)
        port = world.PORT_SAY if out else world.PORT_ASK
        if out:
            g.code.mov(RAX, g.free())
        immediate = g.chance(0.5)
        opcode = (0xE4 if immediate else 0xEC) | out << 1 | (size != 1)
        if not immediate:
            g.code.load(RDX, port)
        if size == 2:
            g.code.raw(b"\x66")
        g.code.raw(bytes((opcode, port) if immediate else (opcode,)))


def _port_strings(g: Generator) -> None:
    """INS and OUTS, often across a page boundary."""
    code, size, out = g.code, g.pick((1, 2, 4)), g.chance(0.5)
    code.load(RDX, world.PORT_SAY if out else world.PORT_ASK)
    for register in (RSI, RDI):
        code.load(register, at(K, DATA + 2 + g.below(8), PAGE - g.below(40)))
    code.load(RCX, g.below(12))
    code.raw(g.pick((b"\xfc", b"\xfc", b"\xfd")))
    if size == 2:
        code.raw(b"\x66")
    code.raw(b"\xf3" + bytes(((0x6E if out else 0x6C) | (size != 1),)))
    code.raw(b"\xfc")


def _kick(g: Generator) -> None:
    """Let the host kick the runner."""
    for _ in range(1 + g.below(3)):
        g.code.out_eax(world.PORT_KICK)
        g.code.raw(g.pick((b"\x90", b"\xeb\x00")))


def _segments(g: Generator) -> None:
    """Set the bases of FS and GS and use them."""
    code = g.code
    base = at(g.pick((K, L)), DATA + g.below(8))
    segment, msr = g.pick(((0x64, 0xC0000100), (0x65, 0xC0000101)))
    code.load(RCX, msr)
    code.load(RAX, base & 0xFFFFFFFF)
    code.load(RDX, base >> 32)
    code.raw(b"\x0f\x30")  # wrmsr
    if segment == 0x65 and g.chance(0.5):
        code.raw(b"\x0f\x01\xf8" * 2)  # swapgs
    code.load(R12, g.below(PAGE))
    for _ in range(1 + g.below(4)):
        opcode = g.pick((b"\x8b", b"\x89", b"\x01", b"\x03"))
        code.rm(opcode, g.free(), R12, g.below(PAGE), 8, prefix=bytes((segment,)))
        if opcode in (b"\x01", b"\x03"):
            g.flags(ARITHMETIC)


FOR_ANY_RING: Final[dict[str, Entry]] = {
    "faults": Entry(6, _faults),
    "fault in a loop": Entry(3, _fault_in_loop),
    "string fault": Entry(2, _string_fault),
    "single steps": Entry(2, _single_steps),
}
BLOCKS: Final[dict[str, Entry]] = {
    **FOR_ANY_RING,
    "user faults": Entry(3, _user_faults),
    "lines": Entry(4, _lines),
    "to itself": Entry(4, _to_itself),
    "timer": Entry(6, _timer),
    "halt": Entry(1, _halt),
    "interruptible": Entry(2, _interruptible),
    "ports": Entry(3, _ports),
    "port strings": Entry(2, _port_strings),
    "kick": Entry(3, _kick),
    "segments": Entry(2, _segments),
}
