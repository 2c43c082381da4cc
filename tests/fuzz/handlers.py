"""The kernel of a world: what happens when something happens.

A program keeps RSP in R14 and an address to go on at in R15. An exception is written down and the program goes on
there. A page that is there on demand is made present, and the instruction tried again. A single step is counted.
Interrupts come at moments that differ from run to run, so all they leave behind is a count. SYSCALL goes on at R15 in
ring 0, or returns when R15 is 0; INT 0x80 always goes on at R15 in ring 0.

The last thing every program does is to come to `FINISH`: it waits for the timer, so that the number of interrupts is
known, and tells the host. From there on nothing changes any more, wherever in its loop the host stops.
"""

from typing import Final

from hibana.units import PAGE
from tests.fuzz import world
from tests.fuzz.encoder import AE, NE, R14, R15, RAX, RCX, RDX, RSP, Code, E
from tests.fuzz.world import AT_RECORD, K

_WITH_ERROR_CODE: Final = frozenset((8, 10, 11, 12, 13, 14, 17))
_DIVIDE: Final = 0
_DEBUG: Final = 1
_DOUBLE_FAULT: Final = 8
_PAGE_FAULT: Final = 14
_ARITHMETIC: Final = 0x8D5
_RF: Final = 1 << 16
_EOI: Final = 0xB0

# The frame as `_exception` sees it: RDX and RAX, vector, error code, then what the CPU pushed.
_VECTOR: Final = 16
_ERROR: Final = 24
_RIP: Final = 32
_RFLAGS: Final = 48
_RSP: Final = 56

_FRAME_SIZE: Final = 40
_COPY: Final = K + world.ASYNC_STACK * PAGE
"""Where nothing is compared, and far below what interrupts push."""

_OR, _AND, _SUB, _CMP = 1, 4, 5, 7

_IRETQ: Final = b"\x48\xcf"
_SYSRETQ: Final = b"\x48\x0f\x07"
_PAUSE: Final = b"\xf3\x90"
_CLI: Final = b"\xfa"
_STI: Final = b"\xfb"
_POPFQ: Final = b"\x9d"
_RDX_FROM_CR2: Final = b"\x0f\x20\xd2"
_RAX_FROM_CR3: Final = b"\x0f\x20\xd8"


def _stubs(code: Code, exception: int, entries: dict[int, int]) -> None:
    for vector in range(32):
        entries[vector] = code.here()
        if vector not in _WITH_ERROR_CODE:
            code.raw(b"\x6a\x00")  # push 0
        code.raw(bytes((0x6A, vector)))  # push vector
        code.jmp(exception)
    for vector in world.ASYNC_VECTORS:
        entries[vector] = code.here()
        code.da(b"\xff", 0, AT_RECORD + world.COUNTS + 4 * (vector - world.ASYNC_VECTORS[0]))  # inc dword ptr
        code.da(b"\xc7", 0, world.LAPIC_PAGE + _EOI)  # mov dword ptr, 0
        code.imm(0, 4)
        code.raw(_IRETQ)


def _if_vector(code: Code, vector: int, condition: int, label: int) -> None:
    code.dm(b"\x80", _CMP, RSP, _VECTOR)
    code.imm8(vector)
    code.jcc(condition, label)


def _exception(code: Code, entry: int, finish: int) -> None:
    step, note, back = code.label(), code.label(), code.label()
    code.bind(entry)
    code.push(RAX)
    code.push(RDX)
    code.dm(b"\x81", _AND, RSP, _RFLAGS)  # not every CPU sets it for every fault
    code.imm(~_RF, 4)
    _if_vector(code, _DEBUG, E, step)
    code.da(b"\xff", 0, AT_RECORD + world.TRAPS)  # inc dword ptr
    code.da(b"\x81", _CMP, AT_RECORD + world.TRAPS)
    code.imm(world.TRAP_LIMIT, 4)
    code.jcc(AE, finish)
    _if_vector(code, _DOUBLE_FAULT, E, finish)
    _if_vector(code, _PAGE_FAULT, NE, note)
    _make_present(code, note, back)
    code.bind(note)
    _write_down(code)
    _go_on_elsewhere(code)
    code.bind(back)
    code.pop(RDX)
    code.pop(RAX)
    code.alui(0, RSP, 16, 8)
    code.raw(_IRETQ)
    code.bind(step)
    code.ra(b"\x8b", RAX, AT_RECORD + world.STEPS, 8)
    code.rm(b"\x03", RAX, RSP, _RIP, 8)
    code.dr(b"\xc1", 0, RAX, 8)  # rol rax, 5
    code.imm8(5)
    code.ra(b"\x89", RAX, AT_RECORD + world.STEPS, 8)
    _return_without_trace(code)


def _return_without_trace(code: Code) -> None:
    """Return by way of a copy of the frame, and clear the flags in it: after a step some may be undefined."""
    for position in range(0, _FRAME_SIZE, 8):
        code.fetch(RAX, RSP, _RIP + position)
        code.ra(b"\x89", RAX, _COPY + position, 8)
    code.dm(b"\x81", _AND, RSP, _RFLAGS)
    code.imm(~_ARITHMETIC, 4)
    code.pop(RDX)
    code.pop(RAX)
    code.load(RSP, _COPY)
    code.raw(_IRETQ)


def _make_present(code: Code, otherwise: int, back: int) -> None:
    """Make the page that faulted present, in the current space, if that is what its entry asks for."""
    code.raw(_RDX_FROM_CR2)
    code.dr(b"\xc1", 5, RDX, 8)  # shr rdx, 12
    code.imm8(12)
    code.alui(_SUB, RDX, world.LOW_LOCAL.base >> 12, 8)
    code.alui(_CMP, RDX, world.WINDOW_PAGES, 8)
    code.jcc(AE, otherwise)
    code.raw(_RAX_FROM_CR3)
    code.ra(b"\x03", RAX, AT_RECORD + world.FROM_PHYSICAL, 8)
    code.rm(b"\x8d", RDX, RAX, world.LOW_PT * PAGE, 8, index=RDX, scale=3)  # lea
    code.fetch(RAX, RDX, 0, 4)
    code.alui(_AND, RAX, world.PRESENT | world.ON_DEMAND)
    code.alui(_CMP, RAX, world.ON_DEMAND)
    code.jcc(NE, otherwise)
    code.dm(b"\x83", _OR, RDX)
    code.imm8(world.PRESENT)
    code.jmp(back)


def _write_down(code: Code) -> None:
    """Log vector, error code, RIP, RFLAGS and CR2."""
    code.ra(b"\x8b", RAX, AT_RECORD + world.TRAPS)
    code.alui(_AND, RAX, 63)
    code.dr(b"\xc1", 4, RAX)  # shl eax, 5
    code.imm8(5)
    code.lea(RDX, RAX, AT_RECORD + world.LOG - (1 << 64))
    for source, target, size in ((_VECTOR, 0, 4), (_ERROR, 4, 4), (_RIP, 8, 8)):
        code.fetch(RAX, RSP, source, size)
        code.store(RAX, RDX, target, size)
    code.fetch(RAX, RSP, _RFLAGS)
    code.store(RAX, RDX, 16)
    code.raw(b"\x0f\x20\xd0")  # mov rax, cr2
    code.store(RAX, RDX, 24)


def _go_on_elsewhere(code: Code) -> None:
    """Continue at R15 with the stack at R14; a division has left the arithmetic flags undefined."""
    other = code.label()
    code.store(R15, RSP, _RIP)
    code.store(R14, RSP, _RSP)
    _if_vector(code, _DIVIDE, NE, other)
    code.dm(b"\x81", _AND, RSP, _RFLAGS)
    code.imm(~_ARITHMETIC, 4)
    code.bind(other)


def _calls(code: Code, system_call: int, software_interrupt: int) -> None:
    out = code.label()
    code.bind(system_call)
    code.da(b"\xff", 0, AT_RECORD + world.CALLS, 8)  # inc qword ptr
    code.rr(b"\x85", R15, R15, 8)  # test r15, r15
    code.jcc(NE, out)
    code.raw(_SYSRETQ)
    code.bind(out)
    code.mov(RSP, R14)
    code.jump_to(R15)
    code.bind(software_interrupt)
    code.da(b"\xff", 0, AT_RECORD + world.CALLS, 8)
    code.store(R15, RSP, 0)
    code.dm(b"\xc7", 0, RSP, 8, 8)  # mov qword ptr: CS
    code.imm(world.KERNEL_CODE, 8)
    code.store(R14, RSP, 24)
    code.dm(b"\xc7", 0, RSP, 32, 8)  # SS
    code.imm(world.KERNEL_DATA, 8)
    code.raw(_IRETQ)


def _finish(code: Code, entry: int) -> None:
    wait, stay = code.label(), code.label()
    code.bind(entry)
    code.load(RSP, K + (world.DOUBLE_FAULT_STACK + 1) * PAGE)
    for index, register in enumerate((RAX, RCX, RDX)):
        code.ra(b"\x89", register, AT_RECORD + world.LAST + 8 * index, 8)
    code.raw(b"\x6a\x02" + _POPFQ)  # no single steps from here
    code.raw(_STI)
    code.bind(wait)
    code.raw(_PAUSE)
    code.ra(b"\x8b", RAX, AT_RECORD + world.ARMED)
    code.ra(b"\x3b", RAX, AT_RECORD + world.COUNTS + 4 * (world.TIMER_VECTOR - world.ASYNC_VECTORS[0]))
    code.jcc(NE, wait)
    code.raw(_CLI)
    code.load(RAX, 0)
    code.out_eax(world.PORT_END)
    code.bind(stay)
    code.jmp(stay)


def _build() -> tuple[bytes, dict[int, int], int, int]:
    code = Code()
    exception, finish, system_call, software_interrupt = (code.label() for _ in range(4))
    entries = {world.SYSTEM_CALL: software_interrupt}
    _stubs(code, exception, entries)
    _exception(code, exception, finish)
    _calls(code, system_call, software_interrupt)
    _finish(code, finish)
    places = {vector: code.where(label) for vector, label in entries.items()}
    return code.finish()[0], places, code.where(system_call), code.where(finish)


CODE, ENTRIES, SYSTEM_CALL, FINISH = _build()
"""The code, where each vector enters it, where SYSCALL does, and where programs end."""
