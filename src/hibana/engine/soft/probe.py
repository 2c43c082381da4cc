"""Proof that the library keeps things where offsets.py says.

Everything else in this package believes the table, so it is proven each time an engine starts, on the fresh machine:
values written through the public interface must turn up in their places, pointers must point back, functions of known
effect must have it. What only running code shows (how an exception is handed over) is the self-check's to prove.

A disagreement means another build, and refuses the engine. The whole costs less than a millisecond.
"""

import ctypes
import os
from collections.abc import Iterator
from struct import pack
from typing import Final

from hibana.engine.soft.library import Library
from hibana.engine.soft.offsets import CC, CPU, ENV, FLOAT, SEGMENT, UC, VERSION
from hibana.errors import EngineError

RIP: Final = 41
_MSR: Final = 248
_U64: Final = 8

# Registers that keep every bit: name → (register, bytes, place in the CPU state).
_REGISTERS: Final = {
    **{
        f"general register {number}": (register, _U64, ENV.regs + 8 * number)
        for number, register in enumerate((35, 38, 40, 37, 44, 36, 43, 39, *range(106, 114)))
    },
    "RIP": (RIP, _U64, ENV.eip),
    "FS base": (250, _U64, ENV.segs + 4 * SEGMENT.SIZE + SEGMENT.base),
    "GS base": (251, _U64, ENV.segs + 5 * SEGMENT.SIZE + SEGMENT.base),
    "CR2": (52, _U64, ENV.cr + 8 * 2),
    **{f"DR{number}": (66 + number, _U64, ENV.dr + 8 * number) for number in (0, 1, 2, 3, 6, 7)},
    "FPU instruction pointer": (254, _U64, ENV.fpip),
    "FPU data pointer": (256, _U64, ENV.fpdp),
    "FPU opcode": (258, 2, ENV.fpop),
    **{f"XMM{number}": (122 + number, 16, ENV.xmm_regs + 64 * number) for number in (0, 15)},
}
# The same for model-specific registers.
_MSRS: Final = {
    0x175: ENV.sysenter_esp,
    0x176: ENV.sysenter_eip,
    0x1A0: ENV.misc_enable,
    0x200: ENV.mtrr_var,
    0x20F: ENV.mtrr_var + 8 * 15,
    0x250: ENV.mtrr_fixed,
    0x26F: ENV.mtrr_fixed + 8 * 10,
    0x277: ENV.pat,
    0x2FF: ENV.mtrr_deftype,
    0xC0000081: ENV.star,
    0xC0000082: ENV.lstar,
    0xC0000083: ENV.cstar,
    0xC0000084: ENV.fmask,
    0xC0000102: ENV.kernelgsbase,
}
_TABLE_REGISTER: Final = pack("<H6xQII", 0x1238, 0x5566778899AABBC0, 0xDEF, 0x8B00)
_IN_SEGMENT: Final = pack("<I4xQII", 0x1238, 0x5566778899AABBC0, 0xDEF, 0x8B00)
# Registers that change what is written: name → (register, what is written, place, what is found there).
_CHANGED: Final = {
    "FPU control word": (246, pack("<H", 0x0F7F), ENV.fpuc, pack("<H", 0x0F7F)),
    "FPU status word": (31, pack("<H", 0x2801), ENV.fpus, pack("<H", 0x0001)),
    "FPU stack top": (31, pack("<H", 0x2801), ENV.fpstt, pack("<I", 5)),
    "FPU tags": (247, pack("<H", 0x3FFC), ENV.fptags, bytes((0, 1, 1, 1, 1, 1, 1, 0))),
    "ST0": (114, b"0123456789", ENV.fpregs + 16 * 5, b"0123456789"),
    "MXCSR": (249, pack("<I", 0x1FA1), ENV.mxcsr, pack("<I", 0x1FA1)),
    "GDTR": (243, _TABLE_REGISTER, ENV.gdt + SEGMENT.base, _IN_SEGMENT[SEGMENT.base : SEGMENT.flags]),
    "IDTR": (242, _TABLE_REGISTER, ENV.idt + SEGMENT.base, _IN_SEGMENT[SEGMENT.base : SEGMENT.flags]),
    "LDTR": (244, _TABLE_REGISTER, ENV.ldt, _IN_SEGMENT),
    "TR": (245, _TABLE_REGISTER, ENV.tr, _IN_SEGMENT),
    "SYSENTER_CS": (_MSR, pack("<I4xQ", 0x174, 0x1234), ENV.sysenter_cs, pack("<I", 0x1234)),
    "TSC_AUX": (_MSR, pack("<I4xQ", 0xC0000103, 0x1234), ENV.tsc_aux, pack("<I", 0x1234)),
    "EFER": (_MSR, pack("<I4xQ", 0xC0000080, 0xD01), ENV.efer, pack("<Q", 0xD01)),
}

_POISON: Final = 0x20000000
_FETCH_UNMAPPED: Final = 8  # UC_ERR_FETCH_UNMAPPED
_SOMEWHERE: Final = 0x123456000


def prove(library: Library, handle: int) -> None:
    """Check the whole table against a machine that has not run yet, and leave it in need of a reset."""
    cpu = _follow(handle + UC.cpu)
    env = cpu + CPU.env
    if _follow(cpu + CPU.uc) != handle or _follow(env + ENV.uc) != handle or _follow(cpu + CPU.env_ptr) != env:
        raise _disagreement("the CPU")
    for proof in (
        _unlike_pointers(library, handle, cpu),
        _unlike_registers(library, handle, env),
        _unlike_effects(library, cpu, env),
        _unlike_runs(library, handle, cpu),
    ):
        for what in proof:
            raise _disagreement(what)


def _disagreement(what: str) -> EngineError:
    return EngineError(
        cause=f"libunicorn does not keep {what} where the soft engine expects it; the engine is made for the unicorn "
        f"{VERSION} wheel of PyPI, and this is another build."
    )


def _follow(address: int) -> int:
    """Read a pointer that may be none: for the kernel, unlike for us, a wrong address is only an error (EFAULT)."""
    reading, writing = os.pipe()
    try:
        copied = ctypes.CDLL(None).write(writing, ctypes.c_void_p(address & (1 << 64) - 1), 8)
        return int.from_bytes(os.read(reading, 8), "little") if copied == 8 else 0
    finally:
        os.close(reading)
        os.close(writing)


# Each of these yields what it did not find.


def _unlike_pointers(library: Library, handle: int, cpu: int) -> Iterator[str]:
    """Compare pointers with symbols, and small flags with what they must be in a new machine."""
    classes = _u64(cpu + CPU.cc)
    if _u64(cpu + CPU.icount_decr_ptr) != cpu + CPU.env - 16:
        yield "the kick word"
    if not cpu < classes < cpu + CPU.env + 2 * ENV.SIZE:
        yield "the CPU class"
    elif _u64(classes + CC.cpu_exec_interrupt) != library.address("x86_cpu_exec_interrupt"):
        yield "cpu_exec_interrupt"
    elif _u64(classes + CC.cpu_exec_exit) != library.address("x86_cpu_exec_exit"):
        yield "cpu_exec_exit"
    if _u64(handle + UC.memory_mapping) != library.address("find_memory_mapping"):
        yield "memory_mapping"
    stop_interrupt = _u64(handle + UC.stop_interrupt)
    # The function is not exported. Asked about #UD (6) it says yes, about #PF (14) no.
    if not library.base < stop_interrupt < library.address("uc_open") + (64 << 20):
        yield "stop_interrupt"
    else:
        decide = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_uint64, ctypes.c_int)(stop_interrupt)
        if not decide(handle, 6) or decide(handle, 14):
            yield "stop_interrupt"
    if _u8(handle + UC.init_done) != 1 or _u8(handle + UC.no_exit_request) != 0:
        yield "no_exit_request"
    if _u8(cpu + CPU.stopped) != 1:
        yield "stopped"


def _unlike_registers(library: Library, handle: int, env: int) -> Iterator[str]:
    """Write registers through the public interface and look."""
    write, view = library.uc_reg_write, ctypes.string_at
    for name, (register, content, place, found) in _CHANGED.items():
        write(handle, register, content)
        if view(env + place, len(found)) != found:
            yield name
    for name, (register, size, place) in _REGISTERS.items():
        content = os.urandom(size)
        write(handle, register, content)
        if view(env + place, size) != content:
            yield name
    for msr, place in _MSRS.items():
        content = os.urandom(8)
        write(handle, _MSR, pack("<I4x8s", msr, content))
        if view(env + place, 8) != content:
            yield f"MSR {msr:#x}"


def _unlike_effects(library: Library, cpu: int, env: int) -> Iterator[str]:
    """Call functions of known effect."""
    set_u64, set_u32 = ctypes.c_uint64.from_address, ctypes.c_uint32.from_address
    set_u64(env + ENV.eflags).value = 0x202
    set_u64(env + ENV.cc_src).value = 0x8D5
    set_u32(env + ENV.df).value = 0xFFFFFFFF
    read_eflags = library.function("helper_read_eflags", ctypes.c_uint64, ctypes.c_uint64)
    for operation, as_stored in ((1, True), (2, False)):  # CC_OP_EFLAGS; CC_OP_MULB
        set_u32(env + ENV.cc_op).value = operation
        if (read_eflags(env) == 0xED7) != as_stored:
            yield "the flags"
    set_u32(env + ENV.mxcsr).value = 0x8040  # FZ and DAZ; the library puts FZ into the wrong unit
    library.function("update_mxcsr_status", None, ctypes.c_uint64)(env)
    if (_u8(env + ENV.fp_status + FLOAT.flush_to_zero), _u8(env + ENV.sse_status + FLOAT.flush_inputs_to_zero)) != (
        1,
        1,
    ):
        yield "the floating-point status"
    library.function("cpu_x86_update_cr0", None, ctypes.c_uint64, ctypes.c_uint32)(env, 0x1A)
    if _u64(env + ENV.cr) != 0x1A or _u32(env + ENV.hflags) & 0xE00 != 0xA00:
        yield "CR0 and hflags"
    library.function("helper_clgi", None, ctypes.c_uint64)(env)
    if _u32(env + ENV.hflags2) & 1:
        yield "hflags2"
    library.function("helper_stgi", None, ctypes.c_uint64)(env)
    if not _u32(env + ENV.hflags2) & 1:
        yield "hflags2"
    set_u64(env + ENV.tsc_offset).value = 1 << 62
    library.function("helper_rdtsc", None, ctypes.c_uint64)(env)
    if not _u64(env + ENV.regs + 8 * 2) & 1 << 30:
        yield "tsc_offset"
    read_msr = library.function("helper_rdmsr", None, ctypes.c_uint64)
    for features, capabilities in ((0, False), (1 << 12, True)):
        set_u64(env + ENV.features).value = features  # MTRR
        set_u64(env + ENV.regs + 8).value = 0xFE  # IA32_MTRRCAP
        read_msr(env)
        if (_u64(env + ENV.regs) != 0) != capabilities:
            yield "the CPU features"
    set_u64(env + ENV.cr + 8 * 4).value |= 1 << 18
    set_u64(env + ENV.xcr0).value = 0x1234567
    if library.function("helper_xgetbv", ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32)(env, 0) != 0x1234567:
        yield "XCR0"
    set_u32(cpu + CPU.interrupt_request).value = _POISON
    library.function("cpu_reset_interrupt", None, ctypes.c_uint64, ctypes.c_int)(cpu, _POISON)
    if _u32(cpu + CPU.interrupt_request):
        yield "interrupt_request"
    for place in (CPU.halted, CPU.exception_index):
        set_u32(cpu + place).value = _POISON
    set_u32(env + ENV.old_exception).value = _POISON
    library.function("cpu_reset", None, ctypes.c_uint64)(cpu)
    if _u32(cpu + CPU.halted) or _u32(cpu + CPU.exception_index) != 0xFFFFFFFF:
        yield "halted and exception_index"
    if _u32(env + ENV.old_exception) != 0xFFFFFFFF:
        yield "old_exception"


def _unlike_runs(library: Library, handle: int, cpu: int) -> Iterator[str]:
    """Ask for a stop, and run where there is no memory."""
    _byte(cpu + CPU.exit_request).value = 0
    library.uc_emu_stop(handle)
    if _u8(handle + UC.stop_request) != 1 or _u8(cpu + CPU.exit_request) != 1:
        yield "stop_request and exit_request"
    error = library.uc_emu_start(handle, _SOMEWHERE, 0, 0, 0)
    base = _u64(cpu + CPU.env + ENV.segs + SEGMENT.SIZE + SEGMENT.base)
    if error != _FETCH_UNMAPPED or _u64(handle + UC.invalid_addr) != (base + _SOMEWHERE) & 0xFFFFFFFF:
        yield "invalid_addr"
    if _u8(handle + UC.first_tb) != 1:
        yield "no_exit_request"
    if _u8(cpu + CPU.stopped):
        yield "stopped"


def _byte(address: int) -> ctypes.c_uint8:
    return ctypes.c_uint8.from_address(address)


def _u8(address: int) -> int:
    return ctypes.c_uint8.from_address(address).value


def _u32(address: int) -> int:
    return ctypes.c_uint32.from_address(address).value


def _u64(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value
