"""The thunks in this process: read-only code, a page of cells, and the library wired to them.

This happens once per process and is never undone: the library keeps the addresses for as long as it is loaded. What
differs from one VM to the next is in the cells.
"""

import ctypes
import functools
import mmap
from typing import Final

from hibana.engine.soft import alarm, library, relocations
from hibana.engine.soft.library import Library
from hibana.engine.soft.slots import SLOTS
from hibana.engine.soft.thunks import CELLS, CELLS_AT, CELLS_SIZE, CODE, ENTRIES
from hibana.errors import EngineError
from hibana.units import PAGE, align_up

_OF_ONE_VM: Final = ("wanted", "cpu", "gave_up", "low_ram_size", "high_ram_size")
_IN_PYTHON: Final = ("pick", "read_tpr", "write_tpr", "read_msr", "write_msr")
_MAP_FAILED: Final = ctypes.c_void_p(-1).value


class MachineCode:
    """Addresses of thunks, and the cells."""

    def __init__(self, base: int) -> None:
        self._base = base

    def entry(self, name: str) -> int:
        """Give the address of a thunk."""
        return self._base + ENTRIES[name]

    def cell(self, name: str) -> int:
        """Give the address of a cell."""
        return self._base + CELLS_AT + CELLS[name]

    def byte(self, name: str) -> ctypes.c_uint8:
        """Give a one-byte cell; setting its `value` is one store."""
        return ctypes.c_uint8.from_address(self.cell(name))

    def release(self) -> None:
        """Forget the VM: the cells are as they were before the first one."""
        for name in _OF_ONE_VM:
            self.set(name, 0)
        for name in _IN_PYTHON:
            self.set(name, self.entry("nobody"))
        self.set("kick_word", self.cell("nowhere"))

    def get(self, name: str) -> int:
        """Read an eight-byte cell."""
        return ctypes.c_uint64.from_address(self.cell(name)).value

    def set(self, name: str, value: int) -> None:
        """Fill an eight-byte cell."""
        ctypes.c_uint64.from_address(self.cell(name)).value = value


@functools.cache
def load() -> tuple[Library, MachineCode]:
    """Load the library, put the thunks beside it, and redirect what they replace. Raises EngineError."""
    path = library.find()
    if path is None:
        raise EngineError(cause="the unicorn package is not installed.")
    loaded = Library(path)
    libc = ctypes.CDLL(None, use_errno=True)
    code = MachineCode(_map(libc))
    for cell in CELLS:
        owner, _, name = cell.partition("_")
        if owner == "lib":
            code.set(cell, loaded.address(name))
        elif owner == "libc":
            code.set(cell, ctypes.cast(libc[name], ctypes.c_void_p).value or 0)
    code.release()
    for name, slots in SLOTS.items():
        # What the library's own functions call stays; it is the guest's instructions that mean something else.
        helper = name.startswith("helper_")
        places = [slot for slot in slots if not (helper and slot[1] == relocations.CALL)]
        relocations.redirect(loaded.base, places, code.entry(name))
    alarm.listen(code.entry("poke"))
    return loaded, code


def _map(libc: ctypes.CDLL) -> int:
    """Map code and cells. Not through Python's mmap object: this mapping must outlive the interpreter's own end."""
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    libc.mmap.restype = ctypes.c_void_p
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    size = CELLS_AT + align_up(CELLS_SIZE, PAGE)
    base = libc.mmap(
        None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0
    )  # fmt: skip
    if base == _MAP_FAILED:
        raise EngineError(cause="no memory for the soft engine's machine code.")
    ctypes.memmove(base, CODE, len(CODE))
    if libc.mprotect(base, CELLS_AT, mmap.PROT_READ | mmap.PROT_EXEC):
        raise EngineError(cause="the host does not allow executable memory, which the soft engine needs.")
    return int(base)
