"""Which accelerations are on, in this process and for its VM.

All of them, unless `HIBANA_SOFT` says otherwise: `plain` takes none, `fast,-dirty,-block-cache` leaves out the ones
named. The choice is made once, before the library opens its first machine, because the library copies the table of its
helpers then. `fall_back` undoes it between two machines: that is what happens when the self-check finds something.
"""

import functools
import os
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from hibana.engine.soft import machine_code, relocations
from hibana.engine.soft.assembled import Assembled
from hibana.engine.soft.fast import (
    block_cache,
    block_cache_code,
    console,
    console_code,
    dirty,
    dirty_code,
    global_pages,
    global_pages_code,
    inline_exit,
    inline_exit_code,
)
from hibana.engine.soft.library import Library
from hibana.engine.soft.machine_code import MachineCode
from hibana.engine.soft.slots import SLOTS
from hibana.engine.soft.table import Table
from hibana.errors import EngineError
from hibana.observe import log

VARIABLE: Final = "HIBANA_SOFT"
PLAIN: Final = "plain"
FAST: Final = "fast"


class Unit(NamedTuple):
    """One acceleration: its machine code, and what it needs for a VM."""

    thunks: Assembled
    attach: Callable[[MachineCode, MachineCode], Table | None]
    """Fill its cells, from those of the plain engine; the table must live until the machine is closed."""
    detach: Callable[[MachineCode], None]


UNITS: Final = {
    "dirty": Unit(dirty_code.THUNKS, dirty.attach, dirty.detach),
    "inline-exit": Unit(inline_exit_code.THUNKS, inline_exit.attach, inline_exit.detach),
    "global-pages": Unit(global_pages_code.THUNKS, global_pages.attach, global_pages.detach),
    "block-cache": Unit(block_cache_code.THUNKS, block_cache.attach, block_cache.detach),
    "console": Unit(console_code.THUNKS, console.attach, console.detach),
}


def wanted(setting: str) -> tuple[str, ...]:
    """Name the units that a value of `HIBANA_SOFT` leaves on. Raises EngineError."""
    if setting == PLAIN:
        return ()
    if not setting:
        return tuple(UNITS)
    first, *left_out = [word.strip() for word in setting.split(",") if word.strip()]
    if first != FAST or any(word not in (f"-{name}" for name in UNITS) for word in left_out):
        choices = ", ".join(f"-{name}" for name in UNITS)
        raise EngineError(cause=f"{VARIABLE} may be {PLAIN}, or {FAST} and a list of {choices}; not {setting!r}.")
    return tuple(name for name in UNITS if f"-{name}" not in left_out)


class Accelerations:
    """The units that are on in this process."""

    def __init__(self, library: Library, plain: MachineCode, names: Iterable[str]) -> None:
        """Put their machine code beside the library and redirect what it replaces."""
        self._library = library
        self._plain = plain
        self.on = {name: MachineCode(UNITS[name].thunks, library, plain.entries) for name in names}
        """Unit → its machine code in this process."""
        self._tables: list[Table | None] = []
        for code in self.on.values():
            for name, target in code.entries.items():
                relocations.redirect(library.base, SLOTS.get(name, ()), target)

    @property
    def names(self) -> tuple[str, ...]:
        """Say which units are on."""
        return tuple(self.on)

    def address(self, name: str) -> int:
        """Give the address of a function as the library itself sees it: a thunk, where one takes its place."""
        places = (code.entries[name] for code in self.on.values() if name in code.entries)
        return next(places, 0) or self._plain.entries.get(name) or self._library.address(name)

    def attach(self) -> None:
        """Begin to serve the VM that the plain engine's cells describe."""
        self._tables = [UNITS[name].attach(code, self._plain) for name, code in self.on.items()]

    def detach(self) -> None:
        """Forget the VM; only while nothing runs."""
        for name, code in self.on.items():
            UNITS[name].detach(code)

    def free(self) -> None:
        """Give back the tables of the VM, when its machine is closed."""
        self._tables.clear()

    def fall_back(self) -> None:
        """Lead everything back to the plain engine; only while no machine is open."""
        own = self._plain.entries
        for code in self.on.values():
            for name in code.entries.keys() & SLOTS.keys():
                target = own[name] if name in own else self._library.address(name)
                relocations.redirect(self._library.base, SLOTS[name], target)
        self.on.clear()


@functools.cache
def load() -> Accelerations:
    """Load the library with its thunks and what the environment asks for. Raises EngineError."""
    library, plain = machine_code.load()
    setting = os.environ.get(VARIABLE, "")
    names = wanted(setting)
    if left_out := [name for name in UNITS if name not in names]:
        log.info(f"The soft engine runs without {', '.join(left_out)}: {VARIABLE}={setting}.")
    return Accelerations(library, plain, names)
