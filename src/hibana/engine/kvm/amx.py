"""Permission to give guests AMX, Intel's matrix registers (machine.md §3.9; Documentation/arch/x86/xstate.rst).

Their state is large: the kernel enables it only for processes that ask, and KVM offers AMX to the guests of no other.
"""

import ctypes
import errno
import os
from typing import Final

from hibana.errors import EngineError, os_text
from hibana.observe import log

_ARCH_PRCTL: Final = 158
_GET_XCOMP_SUPP: Final = 0x1021
_REQ_XCOMP_GUEST_PERM: Final = 0x1025
_TILE_DATA: Final = 18  # XFEATURE_XTILEDATA


def permit() -> None:
    """Ask for the permission where there is AMX; elsewhere say at most that there is none. Raises EngineError."""
    supported = ctypes.c_uint64()
    if not _arch_prctl(_GET_XCOMP_SUPP, ctypes.addressof(supported)):
        log.info("Dynamic XSTATE feature enabling is not supported.")
    elif supported.value >> _TILE_DATA & 1 and not _arch_prctl(_REQ_XCOMP_GUEST_PERM, _TILE_DATA):
        log.info("Dynamic XSTATE feature enabling is not supported for guest.")


def _arch_prctl(request: int, argument: int) -> bool:
    """Tell whether the kernel knows the request. Raises EngineError if it refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_ulong)
    if libc.syscall(_ARCH_PRCTL, request, argument) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.EINVAL:
        return False
    failure = OSError(number, os.strerror(number))
    raise EngineError(cause=f"Architecture specific error: {os_text(failure)}")
