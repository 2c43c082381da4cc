"""A shelf of modules: taken from their files, and run when somebody imports them, be it where there are no files.

Importing the VMM takes long, most of it running modules; the jailed VMM shall listen first. Reading is quick. What lies
on the shelf is a module's compiled code, still packed; an extension module is loaded into the process, which makes the
linker find it again by its name, but is not initialised.
"""

import ctypes
import marshal
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ExtensionFileLoader,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from importlib.util import MAGIC_NUMBER
from struct import Struct
from types import ModuleType
from typing import Final

_HEADER: Final = Struct("<4sIII")  # of a .pyc file (PEP 552): magic, flags, and the source's time and size
_SUFFIXES: Final = (".py", ".pyc", *EXTENSION_SUFFIXES)
_CHECKED_BY_TIME: Final = 0
_U32: Final = 0xFFFF_FFFF


class _PackedLoader:
    """Runs a module's compiled code."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def create_module(self, _spec: ModuleSpec) -> None:
        """Leave it to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the code in the module's own namespace."""
        exec(marshal.loads(self._packed), module.__dict__)


class Shelf:
    """Finds what has been put on it (a finder of `sys.meta_path`)."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec] = {}
        self._libraries: list[ctypes.CDLL] = []

    def put(self, name: str, without: Iterable[str] = ()) -> None:
        """Put a module on the shelf, a package with everything in it except some packages; built-in ones need none."""
        if spec := PathFinder.find_spec(name):
            self._put(spec, set(without))

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Hand a module out; imports are done once, so it is not kept."""
        return self._specs.pop(name, None)

    def _put(self, spec: ModuleSpec, without: set[str]) -> None:
        if spec.name in without:
            return
        if spec.name not in sys.modules:
            # A package without a file is only a place for others.
            unfiled = ModuleSpec(spec.name, None, is_package=True)
            self._specs[spec.name] = self._packed(spec, spec.origin) if spec.origin else unfiled
        for folder in spec.submodule_search_locations or ():
            for name in _modules_in(folder):
                inner = PathFinder.find_spec(f"{spec.name}.{name}", [folder])
                if inner is not None:
                    self._put(inner, without)

    def _packed(self, spec: ModuleSpec, path: str) -> ModuleSpec:
        if isinstance(spec.loader, ExtensionFileLoader):
            self._libraries.append(ctypes.CDLL(path))
        elif isinstance(spec.loader, SourceFileLoader):
            spec.loader = _PackedLoader(_compiled(spec.loader, spec.cached, path))  # type: ignore[assignment]
        elif isinstance(spec.loader, SourcelessFileLoader):
            spec.loader = _PackedLoader(spec.loader.get_data(path)[_HEADER.size :])  # type: ignore[assignment]
        return spec


def _modules_in(folder: str) -> Iterator[str]:
    """Name the modules and packages in a folder."""
    for name in os.listdir(folder):
        stem, dot, suffix = name.partition(".")
        inside = os.path.join(folder, name, "__init__.py")
        is_module = f".{suffix}" in _SUFFIXES and stem != "__init__"
        if is_module or (not dot and (os.path.exists(inside) or os.path.exists(f"{inside}c"))):
            yield stem


def _compiled(loader: SourceFileLoader, cached: str | None, path: str) -> bytes:
    """Give a module's packed code, from Python's cache if that is up to date."""
    try:
        with open(cached or "", "rb", buffering=0) as file:
            content = file.readall()
        magic, flags, time, size = _HEADER.unpack_from(content)
        source = os.stat(path)
        if (magic, flags, time, size) == (MAGIC_NUMBER, _CHECKED_BY_TIME, int(source.st_mtime) & _U32, source.st_size):
            return content[_HEADER.size :]
    except OSError:
        pass
    return marshal.dumps(loader.get_code(loader.name))
