"""The thunks in this process: read-only code, a page of cells, and the library wired to them.

This happens once per process: the library keeps the addresses for as long as it is loaded. What differs from one VM to
the next is in the cells.
"""

import ctypes
import functools
import mmap
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from hibana.engine.soft import alarm, library, relocations
from hibana.engine.soft.assembled import Assembled
from hibana.engine.soft.floats import THUNKS as FLOATS
from hibana.engine.soft.library import Library
from hibana.engine.soft.slots import SLOTS
from hibana.engine.soft.thunks import THUNKS
from hibana.engine.soft.vectors import THUNKS as VECTORS
from hibana.errors import EngineError
from hibana.units import PAGE, align_up

_OF_ONE_VM: Final = ("wanted", "cpu", "gave_up", "ram_size", "low_ram_size", "high_ram_size")
_IN_PYTHON: Final = ("pick", "read_tpr", "write_tpr", "read_msr", "write_msr")
_MAP_FAILED: Final = ctypes.c_void_p(-1).value


class MachineCode:
    """One piece of machine code in memory: addresses of its thunks, and its cells."""

    def __init__(self, assembled: Assembled, loaded: Library, plain: Mapping[str, int] = MappingProxyType({})) -> None:
        """Map it, and fill the cells that hold functions; `plain` are the thunks of the plain engine."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._assembled = assembled
        self._base = _map(assembled, libc)
        for cell in assembled.cells:
            owner, _, name = cell.partition("_")
            if owner == "lib":
                self.set(cell, loaded.address(name))
            elif owner == "plain":
                self.set(cell, plain[name])
            elif owner == "libc":
                self.set(cell, ctypes.cast(libc[name], ctypes.c_void_p).value or 0)

    @property
    def entries(self) -> dict[str, int]:
        """Name the thunks and give their addresses."""
        return {name: self._base + offset for name, offset in self._assembled.entries.items()}

    def entry(self, name: str) -> int:
        """Give the address of a thunk."""
        return self._base + self._assembled.entries[name]

    def cell(self, name: str) -> int:
        """Give the address of a cell."""
        return self._base + self._assembled.cells_at + self._assembled.cells[name]

    def byte(self, name: str) -> ctypes.c_uint8:
        """Give a one-byte cell; setting its `value` is one store."""
        return ctypes.c_uint8.from_address(self.cell(name))

    def get(self, name: str) -> int:
        """Read an eight-byte cell."""
        return ctypes.c_uint64.from_address(self.cell(name)).value

    def set(self, name: str, value: int) -> None:
        """Fill an eight-byte cell."""
        ctypes.c_uint64.from_address(self.cell(name)).value = value


def release(code: MachineCode) -> None:
    """Forget the VM: the cells of the thunks proper are as they were before the first one."""
    for name in _OF_ONE_VM:
        code.set(name, 0)
    for name in _IN_PYTHON:
        code.set(name, code.entry("nobody"))
    code.set("kick_word", code.cell("nowhere"))


@functools.cache
def load() -> tuple[Library, MachineCode]:
    """Load the library, put the thunks beside it, and redirect what they replace. Raises EngineError."""
    path = library.find()
    if path is None:
        raise EngineError(cause="the unicorn package is not installed.")
    loaded = Library(path)
    code, *others = (MachineCode(thunks, loaded) for thunks in (THUNKS, FLOATS, VECTORS))
    release(code)
    targets = {
        slot: target
        for name, target in [item for each in (code, *others) for item in each.entries.items()]
        for slot in SLOTS.get(name, ())
        # What the library's own functions call stays; it is the guest's instructions that mean something else.
        if not (name.startswith("helper_") and slot[1] == relocations.CALL)
    }
    relocations.redirect_all(loaded.base, targets)
    alarm.listen(code.entry("poke"))
    return loaded, code


def _map(assembled: Assembled, libc: ctypes.CDLL) -> int:
    """Map code and cells. Not through Python's mmap object: this mapping must outlive the interpreter's own end."""
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    libc.mmap.restype = ctypes.c_void_p
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    size = assembled.cells_at + align_up(assembled.cells_size, PAGE)
    base = libc.mmap(
        None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0
    )  # fmt: skip
    if base == _MAP_FAILED:
        raise EngineError(cause="no memory for the soft engine's machine code.")
    ctypes.memmove(base, assembled.code, len(assembled.code))
    if libc.mprotect(base, assembled.cells_at, mmap.PROT_READ | mmap.PROT_EXEC):
        raise EngineError(cause="the host does not allow executable memory, which the soft engine needs.")
    return int(base)
