"""Where the library refers to a function by name, so that another function can take its place.

The library was linked without -Bsymbolic: every use of an exported function, even within the library, goes through a
relocation against its name.

| Type | Holds the address for | Must be redirected before |
|---|---|---|
| 7 JUMP_SLOT | calls from other functions | the call |
| 6 GLOB_DAT | code that takes the address, such as the code generator emitting "call helper" | the first translation |
| 1 64 | constant tables, such as the table of helpers, which is searched by address | the first `uc_open` |

Types 1 and 6 of a helper must agree, because the one is looked up in the other; they lie in memory that the loader has
made read-only. Reading the relocation tables takes 25 ms, so the slots of the functions we replace are in
`slots.py`, written by `tools/find_slots.py`; a test compares.
"""

import ctypes
import mmap
import struct
from collections.abc import Collection, Mapping
from typing import Final

from hibana.units import PAGE

Slot = tuple[int, int]
"""Offset from where the library is loaded, and relocation type."""

CALL: Final = 7
_TYPES: Final = (1, 6, CALL)
_PROT_READ: Final = mmap.PROT_READ
_PROT_WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE

_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_DYNAMIC: Final = struct.Struct("<QQ")
_RELA: Final = struct.Struct("<QQq")
_SYMBOL_SIZE: Final = 24
_PT_LOAD: Final = 1
_PT_DYNAMIC: Final = 2
_DT_PLTRELSZ: Final = 2
_DT_STRTAB: Final = 5
_DT_SYMTAB: Final = 6
_DT_RELA: Final = 7
_DT_RELASZ: Final = 8
_DT_JMPREL: Final = 23

_mprotect: Final = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def redirect(base: int, slots: Collection[Slot], target: int) -> None:
    """Make all uses of one function reach `target`; `base` is where the library is loaded."""
    redirect_all(base, dict.fromkeys(slots, target))


def redirect_all(base: int, targets: Mapping[Slot, int]) -> None:
    """Do so for many functions, slot by slot: opening and closing a page takes longer than everything else."""
    pages = {base + offset & -PAGE for offset, kind in targets if kind != CALL}
    for page in pages:
        if _mprotect(page, PAGE, _PROT_WRITE):
            raise OSError(ctypes.get_errno(), "mprotect")
    for (offset, _), target in targets.items():
        ctypes.c_uint64.from_address(base + offset).value = target
    for page in pages:
        _mprotect(page, PAGE, _PROT_READ)


def find(path: str, names: Collection[str]) -> dict[str, tuple[Slot, ...]]:
    """Read the slots of functions out of the library's file."""
    wanted = {form.encode(): name for name in names for form in (name, f"{name}_x86_64")}
    found: dict[str, list[Slot]] = {name: [] for name in names}
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as image:
        loads, tags = _dynamic(image)
        symbols, strings = _file_offset(loads, tags[_DT_SYMTAB]), _file_offset(loads, tags[_DT_STRTAB])
        for table, size in ((_DT_RELA, _DT_RELASZ), (_DT_JMPREL, _DT_PLTRELSZ)):
            start = _file_offset(loads, tags[table])
            for offset, info, _ in _RELA.iter_unpack(image[start : start + tags[size]]):
                kind = info & 0xFFFFFFFF
                if kind in _TYPES:
                    at = strings + struct.unpack_from("<I", image, symbols + _SYMBOL_SIZE * (info >> 32))[0]
                    name = wanted.get(image[at : image.find(b"\0", at)])
                    if name:
                        found[name].append((offset, kind))
    return {name: tuple(sorted(slots)) for name, slots in found.items()}


def _dynamic(image: mmap.mmap) -> tuple[list[tuple[int, int, int]], dict[int, int]]:
    """Give the loaded segments as (address, offset, size), and the dynamic section."""
    at, count = struct.unpack_from("<Q", image, 32)[0], struct.unpack_from("<H", image, 56)[0]
    headers = [_PROGRAM_HEADER.unpack_from(image, at + _PROGRAM_HEADER.size * index) for index in range(count)]
    loads = [(addr, offset, size) for kind, _, offset, addr, _, size, _, _ in headers if kind == _PT_LOAD]
    offset, size = next((header[2], header[5]) for header in headers if header[0] == _PT_DYNAMIC)
    return loads, dict(_DYNAMIC.iter_unpack(image[offset : offset + size]))


def _file_offset(loads: list[tuple[int, int, int]], address: int) -> int:
    return next(offset + address - start for start, offset, size in loads if start <= address < start + size)
