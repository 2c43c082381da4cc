"""Why a Python program can go on where there are no files: everything it may need is in memory before the door closes.

The jail holds neither interpreter nor libraries. So the VMM is imported as a whole, with the modules that are otherwise
imported where they are first needed. Afterwards nothing is looked for on disk any more: a module that is missing is an
error at once, in every test that runs jailed, and nothing that lies in the jail can be taken for a module.
"""

import importlib
import sys
from typing import Final

from hibana.vmm import engines

MODULES: Final = (
    "hibana.cli.firecracker",
    "hibana.cli.signal_handler",
    "hibana.cli.session",
    "hibana.vmm.assemble",
    "msgspec.json",
    "traceback",
    # what kernels are packed with
    *("zlib", "bz2", "lzma", "lz4.block"),
    "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd",
)


def everything(engine: str) -> None:
    """Import the VMM, and what the engines need that `engine` may choose from."""
    for module in MODULES:
        importlib.import_module(module)
    engines.preload(engine)


def stop_looking() -> None:
    """Import nothing from files any more."""
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.dont_write_bytecode = True
