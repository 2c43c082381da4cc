"""A small translation buffer for the soft engine: it is full soon, and all translations go at once.

In a virtual machine this happens once in a long while. With the usual size it happens in the middle of programs.
"""

import ctypes
from typing import Any, Final

from hibana.engine.soft import machine_code
from hibana.units import MIB

_SIZE: Final = 1 * MIB
_SET_BUFFER_SIZE: Final = 13 | 1 << 26 | 1 << 30  # UC_CTL_TCG_BUFFER_SIZE, one argument, write


def use(size: int = _SIZE) -> None:
    """Make all machines of this process with it; before the first one."""
    library, _ = machine_code.load()
    opened = library.uc_open
    control = library.function("uc_ctl", ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_uint32)

    def uc_open(arch: int, mode: int, handle: Any) -> int:
        error: int = opened(arch, mode, handle)
        return error or int(control(handle._obj.value, _SET_BUFFER_SIZE, size))

    library.uc_open = uc_open
