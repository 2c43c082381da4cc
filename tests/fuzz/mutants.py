"""Engines with a defect, to see whether the programs find it: a test that cannot fail is a defect itself.

Most are made as the engine itself is made: a function of the library is replaced by another, here by one that does
nothing or too little, or a line is left out of the assembly of an acceleration. The engine's own self-check, which
would find some of them, does not get to see them.
"""

import ctypes
import itertools
import mmap
import os
import tempfile
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from hibana.engine.soft import library, machine_code, relocations, selfcheck
from hibana.engine.soft.assembled import Assembled
from hibana.engine.soft.fast import switch
from hibana.engine.soft.offsets import CPU, ENV, UC
from hibana.engine.soft.vm import SoftVm
from hibana.units import PAGE
from tests.fuzz.machine import Machine
from tools import assemble_thunks

_SOMETIMES: Final = 8


def _nothing(machine: Machine | None = None) -> None:
    pass


class Mutant(NamedTuple):
    """A defect."""

    variant: str
    """What it is a defect of."""
    after: Callable[[Machine], None] = _nothing
    """Cause it when the machine exists."""
    before: Callable[[], None] = _nothing
    """Cause it in the process, before it has a machine."""


# --- functions of the library that do something else ------------------------------------------------------------------

_RET: Final = b"\xc3"
_kept: list[mmap.mmap] = []


def _machine_code(code: bytes) -> int:
    """Put machine code somewhere; it stays there."""
    page = mmap.mmap(-1, PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page[: len(code)] = code
    _kept.append(page)
    return ctypes.addressof(ctypes.c_char.from_buffer(page))


def _redirect(name: str, target: int) -> None:
    loaded, _ = machine_code.load()
    path = library.find()
    assert path
    slots = [slot for slot in relocations.find(path, [name])[name] if slot[1] == relocations.CALL]
    assert slots, f"nobody calls {name}"
    relocations.redirect(loaded.base, slots, target)


def _does_nothing(variant: str, name: str) -> Mutant:
    """Replace a function of the library by one that returns at once."""
    return Mutant(variant, lambda machine: _redirect(name, _machine_code(_RET)))


def _only_stores(name: str, register: int) -> Mutant:
    """Replace what writes a control register by a plain store."""
    place = (ENV.cr + 8 * register).to_bytes(4, "little")
    code = b"\x48\x89\xb7" + place + _RET  # mov [rdi + place], rsi
    return Mutant("plain", lambda machine: _redirect(name, _machine_code(code)))


def _original(variant: str, name: str) -> Mutant:
    """Undo what the engine has put in place of a function."""
    return Mutant(variant, lambda machine: _redirect(name, machine_code.load()[0].address(name)))


# --- accelerations without a line -------------------------------------------------------------------------------------


def without_line(unit: str, text: str, occurrence: int = 1) -> Mutant:
    """Leave a line out of the assembly of an acceleration: the nth one with a text in it, without counting comments."""
    return Mutant("accelerated", before=lambda: _leave_out(unit, text, occurrence))


def _leave_out(unit: str, text: str, occurrence: int) -> None:
    folder = os.path.dirname(os.path.abspath(switch.__file__))
    name = unit.replace("-", "_") + ".S"
    with open(os.path.join(folder, name)) as file:
        lines = file.read().splitlines()
    found = [number for number, line in enumerate(lines) if text in line.partition("#")[0]]
    del lines[found[occurrence - 1]]
    with tempfile.TemporaryDirectory() as work:
        path = os.path.join(work, name)
        with open(path, "w") as file:
            file.write("\n".join(lines) + "\n")
        rendered = assemble_thunks.render_thunks(name, assemble_thunks.assemble(path))
    scope: dict[str, Assembled] = {}
    exec(rendered, cast("dict[str, Any]", scope))
    switch.UNITS[unit] = switch.UNITS[unit]._replace(thunks=scope["THUNKS"])
    setattr(selfcheck, "broken", lambda processor, memory: "")  # noqa: B010 - for the type checker it is no variable


# --- other defects ----------------------------------------------------------------------------------------------------


def _changed_code_of_devices(machine: Machine) -> None:
    """Do not tell the engine about writes of devices."""
    act, memory = machine.act, machine.memory

    def silently(number: int) -> None:
        told, memory.on_write = memory.on_write, lambda addr, size: None
        act(number)
        memory.on_write = told

    setattr(machine, "act", silently)  # noqa: B010


def _no_writes_of_devices(machine: Machine) -> None:
    """Let devices write nothing."""
    setattr(machine, "act", lambda number: None)  # noqa: B010


def _long_writes_of_devices(machine: Machine) -> None:
    """Tell the engine about the first page of a write only."""
    memory = machine.memory
    told = memory.on_write
    memory.on_write = lambda addr, size: told(addr, min(size, PAGE - addr % PAGE))


def _repeated_instructions(machine: Machine) -> None:
    """Look for kicks after each access, which repeats instructions that have stored something already."""
    _, code = machine_code.load()
    uc = ctypes.c_uint64.from_address(code.get("cpu") + CPU.uc).value
    ctypes.c_uint8.from_address(uc + UC.no_exit_request).value = 0


def _interrupts_twice(machine: Machine) -> None:
    """Deliver an interrupt a second time now and then."""
    kind: Any = type(cast("SoftVm", machine.vm).vcpus[0].lapic)
    acknowledge, count = kind.acknowledge, itertools.count(1)

    def again(lapic: Any) -> int:
        vector: int = acknowledge(lapic)
        if vector >= 0 and next(count) % _SOMETIMES == 0:
            lapic.accept(vector)
        return vector

    kind.acknowledge = again


def _flags_on_the_way(machine: Machine) -> None:
    """Lose a flag whenever the runner comes back: results then depend on when that is."""
    runner: Any = machine.vm.runners[0]
    run, eflags = runner.run, runner._processor.eflags

    def forgetful() -> object:
        stop = run()
        eflags.value &= ~0x10  # AF
        return stop

    runner.run = forgetful


MUTANTS: Final = {
    "devices write nothing": Mutant("kvm", _no_writes_of_devices),
    "devices change code unnoticed": Mutant("plain", _changed_code_of_devices),
    "devices change the second page unnoticed": Mutant("plain", _long_writes_of_devices),
    "code changes unnoticed": _does_nothing("plain", "tb_invalidate_phys_page_fast"),
    "code changes unnoticed through another address": _original("plain", "tlb_reset_dirty_by_vaddr"),
    "INVLPG does nothing": _does_nothing("plain", "tlb_flush_page"),
    "CR3 keeps all translations": _only_stores("cpu_x86_update_cr3", 3),
    "CR4 keeps all translations": _only_stores("cpu_x86_update_cr4", 4),
    "instructions are repeated": Mutant("plain", _repeated_instructions),
    "interrupts come twice": Mutant("plain", _interrupts_twice),
    "kicks lose a flag": Mutant("plain", _flags_on_the_way),
    "dirty: code is not known to be code": _does_nothing("accelerated", "tlb_protect_code"),
    "block-cache: it outlives the blocks": _original("accelerated", "tb_flush"),
}
