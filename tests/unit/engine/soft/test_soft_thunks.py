"""The generated tables belong to their sources, and the machine code lies where it should."""

import ctypes
import os
import re
import shutil
import struct
import subprocess
import sys
from typing import Final

import pytest

from hibana.engine.soft import library, machine_code, relocations
from hibana.engine.soft.assembled import Assembled
from hibana.engine.soft.fast import switch
from hibana.engine.soft.fast.switch import UNITS
from hibana.engine.soft.floats import THUNKS as FLOATS
from hibana.engine.soft.machine_code import MachineCode
from hibana.engine.soft.offsets import ENV
from hibana.engine.soft.slots import BUILD_ID, SLOTS
from hibana.engine.soft.thunks import THUNKS
from hibana.engine.soft.vectors import THUNKS as VECTORS
from hibana.units import PAGE
from tests.contract.engine import guests
from tests.contract.engine.harness import Boot

ALL: Final[dict[str, Assembled]] = {
    "plain": THUNKS,
    "floats": FLOATS,
    "vectors": VECTORS,
    **{name: unit.thunks for name, unit in UNITS.items()},
}

CC_OP_EFLAGS: Final = 1
HOST_WITHOUT: Final = 1  # in vectors.S
SS32: Final = 1 << 5  # hflags

ROOT: Final = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 4))


@pytest.fixture(autouse=True)
def _installed() -> None:
    if reason := library.missing():
        pytest.skip(reason)


def _check(tool: str) -> str:
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, "tools", tool), "--check"],
        env={**os.environ, "PYTHONPATH": os.path.join(ROOT, "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_assembling_again_gives_the_same_tables() -> None:
    if not shutil.which("as"):
        pytest.skip("GNU as is not installed")
    assert _check("assemble_thunks.py") == ""


def test_searching_the_library_again_gives_the_same_slots() -> None:
    assert _check("find_slots.py") == ""


def test_the_slots_are_those_of_the_expected_build() -> None:
    path = library.find()
    assert path and library.build_id(path) == BUILD_ID


@pytest.mark.parametrize("name", ALL)
def test_every_thunk_named_after_a_function_replaces_it(name: str) -> None:
    path = library.find()
    assert path
    with_slots = {name for name, slots in relocations.find(path, ALL[name].entries).items() if slots}
    assert with_slots and with_slots == ALL[name].entries.keys() & SLOTS.keys()


@pytest.mark.parametrize("name", ALL)
def test_cells_and_code_have_pages_of_their_own(name: str) -> None:
    assembled = ALL[name]
    assert assembled.cells_at % PAGE == 0
    assert 0 < len(assembled.code) <= assembled.cells_at
    assert max(assembled.cells.values()) < assembled.cells_size <= PAGE


def _permissions(address: int) -> str:
    with open("/proc/self/maps") as maps:
        for line in maps:
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line)
            if found and int(found[1], 16) <= address < int(found[2], 16):
                return found[3]
    raise AssertionError(f"{address:#x} is not mapped")


def _loaded() -> tuple[library.Library, dict[str, MachineCode]]:
    loaded, plain = machine_code.load()
    return loaded, {"plain": plain} | switch.load().on


def test_no_page_is_writable_and_executable_at_once() -> None:
    for name, code in _loaded()[1].items():
        assert {_permissions(code.entry(entry)) for entry in ALL[name].entries} == {"r-xp"}
        assert {_permissions(code.cell(cell)) for cell in ALL[name].cells} == {"rw-p"}


def test_redirected_slots_hold_the_thunk_and_are_read_only_again() -> None:
    """A unit goes before the plain engine; calls of helpers within the library stay, but for those of a unit."""
    loaded, codes = _loaded()
    for name, slots in SLOTS.items():
        owners = [owner for owner, code in codes.items() if name in code.entries]
        for offset, kind in slots if owners else ():
            address = loaded.base + offset
            assert kind == relocations.CALL or _permissions(address)[1] == "-", name
            replaced = not (owners == ["plain"] and name.startswith("helper_") and kind == relocations.CALL)
            target = codes[owners[-1]].entry(name) if replaced else 0
            assert (ctypes.c_uint64.from_address(address).value == target) == replaced, name


def _beside(thunks: Assembled) -> int:
    """Find where a piece of machine code lies whose thunks only the guest's instructions call."""
    loaded, _ = _loaded()
    (base,) = {
        ctypes.c_uint64.from_address(loaded.base + offset).value - thunks.entries[name]
        for name in thunks.entries.keys() & SLOTS.keys()
        for offset, kind in SLOTS[name]
        if kind != relocations.CALL
    }
    return base


@pytest.mark.parametrize("thunks", [FLOATS, VECTORS], ids=["floats", "vectors"])
def test_vectors_have_thunks_of_their_own(thunks: Assembled) -> None:
    assert _permissions(_beside(thunks)) == "r-xp"


@pytest.mark.parametrize("length", ["-3", "0x80000000", "0x8000000000000000", "17"])
def test_on_a_host_without_sse42_strings_are_the_librarys_with_lengths_that_it_can_stand(
    boot: Boot, length: str
) -> None:
    guest = boot(f"""
    start:
        xorps xmm1, xmm1
        movabs rax, {length}
        mov rdx, rax
        pcmpestriq xmm1, xmm1, 0x18             # equal each, negative: there is no first that differs
        mov [HEAP], rcx
        mov [HEAP + 8], rax
        pcmpistri xmm1, xmm1, 0x18
        mov [HEAP + 16], rcx
        END
    """)
    host = ctypes.c_uint8.from_address(_beside(VECTORS) + VECTORS.cells_at + VECTORS.cells["host"])
    before = host.value
    host.value = HOST_WITHOUT
    try:
        guest.run()
    finally:
        host.value = before
    assert guest.numbers(guests.HEAP, 3) == [16, int(length, 0) % (1 << 64), 16]


def test_cells_hold_the_functions_they_are_named_after() -> None:
    loaded, codes = _loaded()
    for name, code in codes.items():
        functions = [cell for cell in ALL[name].cells if cell.startswith("lib_")]
        assert functions
        for cell in functions:
            assert code.get(cell) == loaded.address(cell.removeprefix("lib_"))
        for cell in (cell for cell in ALL[name].cells if cell.startswith("plain_")):
            assert code.get(cell) == codes["plain"].entry(cell.removeprefix("plain_"))


def test_nothing_but_arithmetic_flags_is_made_of_an_operand() -> None:
    code = _loaded()[1]["plain"]
    registers = ctypes.create_string_buffer(ENV.SIZE)
    struct.pack_into("<Q", registers, ENV.cc_src, (1 << 64) - 1)
    compute = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int)(code.entry("cpu_cc_compute_all"))
    assert compute(ctypes.addressof(registers), CC_OP_EFLAGS) == 0x8D5


@pytest.mark.parametrize("how", ["exception", "interrupt"])
def test_a_handler_on_another_stack_is_translated_like_any_64_bit_code(boot: Boot, how: str) -> None:
    """The null SS it begins with must not show in what blocks are found by."""
    guest = boot(f"""
    start:
        ON 6, handler
        ON 0x90, handler
        CATCH back
        ENABLE_APIC
        {"APIC 0x300, 0x40090" if how == "interrupt" else ""}
        ENTER_USER user
    user:
        ud2
        LEAVE_USER
    handler:
        ACT
        mov qword ptr [handlers + 8 * 6], 0
        ret
    back:
        END
    """)
    seen: list[int] = []
    env = guest.vm._processor.env  # type: ignore[attr-defined]
    hflags = ctypes.c_uint32.from_address(env + ENV.hflags)
    guest.bus.reactions[guests.PORT_ACT] = lambda value: seen.append(hflags.value)
    guest.run()
    assert seen and all(flags & SS32 for flags in seen)
