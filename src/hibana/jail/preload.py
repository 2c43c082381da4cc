"""Why a Python program can go on where there are no files: everything it may need is in memory before the door closes.

The jail holds neither interpreter nor libraries. So the VMM is imported as a whole, with the modules that are otherwise
imported where they are first needed, and the library of the soft engine is loaded unless another engine is asked for.
Afterwards nothing is looked for on disk any more: a module that is missing is an error at once, in every test that runs
jailed, and nothing that lies in the jail can be taken for a module.
"""

import importlib
import sys
from typing import Final

VMM: Final = (
    "hibana.cli.firecracker",
    "hibana.cli.signal_handler",
    "hibana.cli.session",
    "hibana.vmm.assemble",
    "msgspec.json",
    "traceback",
)
UNPACKERS: Final = ("zlib", "bz2", "lzma", "lz4.block")
ZSTD: Final = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
SOFT_ENGINE: Final = "hibana.engine.soft.engine"


def everything(engine: str | None) -> None:
    """Import the VMM, for an engine or, with None, for whichever it will choose."""
    for module in (*VMM, *UNPACKERS, ZSTD):
        importlib.import_module(module)
    if engine != "kvm":
        importlib.import_module(SOFT_ENGINE)
        from hibana.engine.soft import library

        library.preload()


def stop_looking() -> None:
    """Import nothing from files any more."""
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.dont_write_bytecode = True
