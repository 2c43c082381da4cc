"""Putting filters on a thread (seccomp(2)); they stay until it ends, and its children inherit them.

Each thread installs its own, on itself: there is no way to filter another one, and all of them at once would get the
same. A filter may only be installed by who can gain no privileges any more, so that is given up first.
"""

import ctypes
import os
from collections.abc import Sequence
from struct import Struct
from typing import Final

from hibana.errors import FilterRefused, FilterTooLong, os_text
from hibana.seccomp.bpf import INSTRUCTION, MAX_INSTRUCTIONS

_SET_NO_NEW_PRIVS: Final = 38
_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2
_PROGRAM: Final = Struct("@HP")  # struct sock_fprog: how many instructions, and where they are


def install(programs: Sequence[bytes]) -> None:
    """Filter the calling thread: what all programs allow runs; one without instructions does not count.

    Raises FilterTooLong, FilterRefused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for code in filter(None, programs):
        count = len(code) // INSTRUCTION.size
        if count > MAX_INSTRUCTIONS:
            raise FilterTooLong
        memory = ctypes.create_string_buffer(code, len(code))
        program = _PROGRAM.pack(count, ctypes.addressof(memory))
        _prctl(libc, _SET_NO_NEW_PRIVS, 1, 0)
        _prctl(libc, _SET_SECCOMP, _MODE_FILTER, program)


def _prctl(libc: ctypes.CDLL, what: int, value: int, argument: int | bytes) -> None:
    if libc.prctl(what, value, argument, 0, 0):
        number = ctypes.get_errno()
        raise FilterRefused(cause=os_text(OSError(number, os.strerror(number))))
