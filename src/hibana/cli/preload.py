"""Why a Python program can go on where there are no files: everything it may need is in memory before the door closes.

The jail holds neither interpreter nor libraries. So the whole VMM is read before, with the packages and the modules of
the standard library that it uses; what runs before clients can connect is imported, the rest lies on a shelf.
Afterwards nothing is looked for on disk any more: a module that is missing is an error at once, in every test that runs
jailed, and nothing that lies in the jail can be taken for a module.
"""

import importlib
import sys
from typing import Final

from hibana.cli.shelf import Shelf
from hibana.vmm import engines

MODULES: Final = (
    "hibana.cli.firecracker",
    "hibana.cli.signal_handler",
    "hibana.cli.session",
    "hibana.vmm.assemble",
    "hibana.seccomp.builtin",
    "msgspec.json",
    "traceback",
    # what kernels are packed with
    *("zlib", "bz2", "lzma", "lz4.block"),
    "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd",
)
"""All that is imported sooner or later, or imports the rest; an engine is added."""

_BEFORE_CLIENTS_CONNECT: Final = MODULES[:2]
_PACKAGES: Final = ("hibana", "msgspec", "lz4", "backports")
_NOT_THE_VMMS: Final = ("hibana.sdk", "hibana.testing", "hibana.jail", "hibana.doctor")
_PYTHON: Final = (3, 11)
_STANDARD: Final = (
    *("__future__", "_bisect", "_bz2", "_compression", "_datetime", "_decimal", "_lzma", "_queue", "_uuid", "array"),
    *("bisect", "bz2", "datetime", "decimal", "fcntl", "linecache", "lzma", "math", "numbers", "platform", "queue"),
    *("selectors", "socket", "termios", "textwrap", "token", "tokenize", "traceback", "uuid", "zlib"),
)
"""What all these import of the standard library, in this version of Python; a test compares."""

_SHELF: Final = Shelf()


def everything(engine: str) -> None:
    """Read the VMM, and what the engines need that `engine` may choose from."""
    engines.preload(engine)
    if sys.version_info[:2] != _PYTHON:
        for module in (*MODULES, *engines.modules(engine)):
            importlib.import_module(module)
        return
    for module in _BEFORE_CLIENTS_CONNECT:
        importlib.import_module(module)
    for package in _PACKAGES:
        _SHELF.put(package, _NOT_THE_VMMS)
    for module in _STANDARD:
        _SHELF.put(module)


def stop_looking() -> None:
    """Import nothing from files any more."""
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != "PathFinder"]
    sys.meta_path.append(_SHELF)
    sys.dont_write_bytecode = True
