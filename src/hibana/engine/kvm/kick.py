"""The signal that brings a thread out of KVM_RUN.

Its handler has nothing to do: that a signal was delivered is what ends KVM_RUN. A handler of Python's could only be
installed on the main thread, and would run there each time; so it is a function of the C library that takes a number
and does no harm. The signal is real-time and used by nobody else; one that comes late, when its thread has long gone
on, interrupts nothing, because system calls other than KVM_RUN are restarted.
"""

import ctypes
import os
import signal
from struct import Struct
from typing import Final

from hibana.errors import EngineError, os_text

SIGNAL: Final = signal.SIGRTMIN

_SA_RESTART: Final = 0x10000000
_SIGACTION: Final = Struct("<Q128sixxxxQ")  # struct sigaction: handler, mask, flags, restorer
_SYS_TGKILL: Final = 234

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall


def admit() -> None:
    """Install the handler, in the whole process; again does no harm. Raises EngineError."""
    handler = ctypes.cast(_libc.abs, ctypes.c_void_p).value
    if _libc.sigaction(SIGNAL, _SIGACTION.pack(handler, bytes(128), _SA_RESTART, 0), None):
        raise EngineError(cause=f"sigaction: {os_text(OSError(ctypes.get_errno(), ''))}")


def poke(thread_id: int) -> None:
    """Signal a thread of this process; one that has ended is no error."""
    _syscall(_SYS_TGKILL, os.getpid(), thread_id, SIGNAL)
