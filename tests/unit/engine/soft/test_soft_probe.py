"""The table of offsets: found from nothing by search, proven at start-up, and refused when one of them is wrong."""

import ctypes
import os
from collections.abc import Iterator
from struct import pack

import pytest

from hibana.engine.soft import library, machine_code, probe
from hibana.engine.soft.library import ARCH_X86, MODE_64, Library
from hibana.engine.soft.offsets import CC, CPU, ENV, FLOAT, SEGMENT, UC
from hibana.errors import EngineError


@pytest.fixture
def machine() -> Iterator[tuple[Library, int]]:
    """Give the library and a machine of its own that has never run."""
    if reason := library.missing():
        pytest.skip(reason)
    loaded, _ = machine_code.load()
    handle = ctypes.c_uint64()
    assert loaded.uc_open(ARCH_X86, MODE_64, ctypes.byref(handle)) == 0
    loaded.uc_reg_read(handle, probe.RIP, ctypes.byref(ctypes.c_uint64()))
    yield loaded, handle.value
    loaded.uc_close(handle)


def test_the_table_fits_the_library(machine: tuple[Library, int]) -> None:
    probe.prove(*machine)


WRONG = [
    (UC, "cpu", "the CPU"),
    (UC, "memory_mapping", "memory_mapping"),
    (UC, "stop_interrupt", "stop_interrupt"),
    (UC, "stop_request", "stop_request and exit_request"),
    (UC, "invalid_addr", "invalid_addr"),
    (UC, "init_done", "no_exit_request"),
    (UC, "first_tb", "no_exit_request"),
    (CPU, "uc", "the CPU"),
    (CPU, "env_ptr", "the CPU"),
    (CPU, "env", "the CPU"),
    (CPU, "icount_decr_ptr", "the kick word"),
    (CPU, "cc", "the CPU class"),
    (CPU, "interrupt_request", "interrupt_request"),
    (CPU, "halted", "halted and exception_index"),
    (CPU, "exception_index", "halted and exception_index"),
    (CC, "cpu_exec_interrupt", "cpu_exec_interrupt"),
    (CC, "cpu_exec_exit", "cpu_exec_exit"),
    (ENV, "eflags", "the flags"),
    (ENV, "cc_src", "the flags"),
    (ENV, "cc_op", "the flags"),
    (ENV, "df", "the flags"),
    (ENV, "cr", "CR0 and hflags"),
    (ENV, "hflags", "CR0 and hflags"),
    (ENV, "hflags2", "hflags2"),
    (ENV, "tsc_offset", "tsc_offset"),
    (ENV, "features", "the CPU features"),
    (ENV, "xcr0", "XCR0"),
    (ENV, "old_exception", "old_exception"),
    (ENV, "sse_status", "the floating-point status"),
    (FLOAT, "flush_to_zero", "the floating-point status"),
]


@pytest.mark.parametrize(("structure", "field", "what"), WRONG, ids=[f"{s.__name__}.{f}" for s, f, _ in WRONG])
def test_a_wrong_offset_is_a_sentence_and_not_a_crash(
    structure: type, field: str, what: str, machine: tuple[Library, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = 8 if structure in (ENV, CC) or field in ("cpu", "uc", "cc", "env", "env_ptr") else 4
    monkeypatch.setattr(structure, field, getattr(structure, field) + step)
    with pytest.raises(EngineError, match=rf"libunicorn does not keep {what} where the soft engine expects it"):
        probe.prove(*machine)


@pytest.mark.parametrize("name", probe._REGISTERS)
def test_a_register_in_the_wrong_place_is_noticed(
    name: str, machine: tuple[Library, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    register, size, place = probe._REGISTERS[name]
    monkeypatch.setitem(probe._REGISTERS, name, (register, size, place + 1))
    with pytest.raises(EngineError, match=f"does not keep {name} where"):
        probe.prove(*machine)


# --- the search -------------------------------------------------------------------------------------------------------


def _readable() -> list[tuple[int, int]]:
    ranges = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, mode = line.split()[:2]
            if mode[0] == "r" and "[v" not in line:
                start, end = span.split("-")
                ranges.append((int(start, 16), int(end, 16)))
    return ranges


def _find_env(loaded: Library, handle: int) -> tuple[int, int]:
    """Find the CPU and its registers as in software-cpu.md §2.3: (pointer in the uc struct → CPU, registers)."""
    values = [os.urandom(8) for _ in range(16)]
    for register, value in zip((35, 38, 40, 37, 44, 36, 43, 39, *range(106, 114)), values, strict=True):
        loaded.uc_reg_write(handle, register, value)
    pattern, ranges = b"".join(values), _readable()
    hits = []
    for offset in range(0, 2048, 8):
        pointer = int.from_bytes(ctypes.string_at(handle + offset, 8), "little")
        end = next((end for start, end in ranges if start <= pointer < end), None)
        if end:
            at = ctypes.string_at(pointer, min(1 << 16, end - pointer)).find(pattern)
            # Our own copy of the pattern lies in the heap, too: a CPU points to its owner and to its registers.
            before = ctypes.string_at(pointer, max(at, 0))
            if all(place.to_bytes(8, "little") in before for place in (handle, pointer + at)):
                hits.append((offset, at))
    # A pointer to what lies before the CPU in the heap sees the same, further away.
    return min(hits, key=lambda hit: hit[1])


def test_searching_from_nothing_finds_the_same_table(machine: tuple[Library, int]) -> None:
    loaded, handle = machine
    uc_cpu, env = _find_env(loaded, handle)
    assert (uc_cpu, env) == (UC.cpu, CPU.env)
    cpu = int.from_bytes(ctypes.string_at(handle + uc_cpu, 8), "little")

    def search(register: int, content: bytes, found: bytes | None = None) -> int:
        """Write a register and give the only place where it turns up."""
        loaded.uc_reg_write(handle, register, content)
        state, wanted = ctypes.string_at(cpu + env, ENV.SIZE), found or content
        assert state.count(wanted) == 1
        return state.index(wanted)

    def search_msr(msr: int) -> int:
        value = os.urandom(8)
        return search(248, pack("<I4x8s", msr, value), value)

    unique = os.urandom(16)
    assert search(41, os.urandom(8)) == ENV.eip
    fs, gs = search(250, os.urandom(8)), search(251, os.urandom(8))
    assert gs - fs == SEGMENT.SIZE and fs == ENV.segs + 4 * SEGMENT.SIZE + SEGMENT.base
    assert search(122 + 3, unique) == ENV.xmm_regs + 3 * 64
    for msr, place in probe._MSRS.items():
        assert search_msr(msr) == place
    for name in ("CR2", "DR0", "FPU instruction pointer", "FPU data pointer"):
        register, size, place = probe._REGISTERS[name]
        assert search(register, os.urandom(size)) == place

    # CPUClass: the block in CPUState that a pointer names and that holds the functions of an x86 CPU.
    wanted = loaded.address("x86_cpu_exec_interrupt").to_bytes(8, "little")
    whole = ctypes.string_at(cpu, env + ENV.SIZE + 4096)
    classes = whole.index(wanted) - CC.cpu_exec_interrupt
    assert whole.index((cpu + classes).to_bytes(8, "little")) == CPU.cc
    assert whole[classes + CC.cpu_exec_exit :][:8] == loaded.address("x86_cpu_exec_exit").to_bytes(8, "little")

    # interrupt_request: the word in which an exported function clears a bit.
    clear = loaded.function("cpu_reset_interrupt", None, ctypes.c_uint64, ctypes.c_int)
    moved = []
    for offset in range(0, 64, 4):
        word = ctypes.c_uint32.from_address(cpu + offset)
        before = word.value
        word.value |= 1 << 29
        clear(cpu, 1 << 29)
        if not word.value & 1 << 29:
            moved.append(offset)
        word.value = before
    assert moved == [CPU.interrupt_request]
