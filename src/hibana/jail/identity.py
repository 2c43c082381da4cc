"""Who a process seems to be: its name and its command line, as `ps` and the clients' searches see them.

The jailed VMM is the jailer's process, but must look as if it had been executed: its command line is that of
`/firecracker`. The kernel shows what lies between two addresses of the process's own memory, and lets the process move
them (PR_SET_MM_MAP of prctl(2)); on a kernel built without that the command line stays the jailer's.
"""

import ctypes
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from hibana.errors import JailReadError, os_text

_PR_SET_NAME: Final = 15
_PR_SET_MM: Final = 35
_PR_SET_MM_MAP: Final = 14
_NO_FD: Final = 0xFFFF_FFFF
_LONGEST_NAME: Final = 15

_STAT: Final = "/proc/self/stat"
# The fields of /proc/self/stat that make a MemoryMap (proc(5)), and the first one behind the name in parentheses.
_FIELDS: Final = (26, 27, 45, 46, 47, 28, 50, 51)
_THIRD: Final = 3

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.sbrk.restype = ctypes.c_uint64


class MemoryMap(NamedTuple):
    """Where the kernel believes the parts of a program to lie."""

    start_code: int
    end_code: int
    start_data: int
    end_data: int
    start_brk: int
    start_stack: int
    env_start: int
    env_end: int


class _PrctlMap(ctypes.Structure):
    """`struct prctl_mm_map`."""

    _fields_ = (
        ("start_code", ctypes.c_uint64),
        ("end_code", ctypes.c_uint64),
        ("start_data", ctypes.c_uint64),
        ("end_data", ctypes.c_uint64),
        ("start_brk", ctypes.c_uint64),
        ("brk", ctypes.c_uint64),
        ("start_stack", ctypes.c_uint64),
        ("arg_start", ctypes.c_uint64),
        ("arg_end", ctypes.c_uint64),
        ("env_start", ctypes.c_uint64),
        ("env_end", ctypes.c_uint64),
        ("auxv", ctypes.c_uint64),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )


_shown: Final[list[ctypes.Array[ctypes.c_char]]] = []  # what the kernel shows must stay where it is


def read_memory_map() -> MemoryMap:
    """Ask the kernel, while there is a /proc. Raises JailReadError."""
    try:
        with open(_STAT) as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError as error:
        raise JailReadError(path=_STAT, cause=os_text(error)) from error
    return MemoryMap(*(int(fields[number - _THIRD]) for number in _FIELDS))


def appear_as(command: Sequence[str], memory: MemoryMap) -> None:
    """Take a name and a command line."""
    name = os.path.basename(command[0])
    _LIBC.prctl(_PR_SET_NAME, os.fsencode(name)[:_LONGEST_NAME], 0, 0, 0)
    words = b"\0".join(map(os.fsencode, command)) + b"\0"
    buffer = ctypes.create_string_buffer(words, len(words))
    start = ctypes.addressof(buffer)
    wanted = _PrctlMap(
        **memory._asdict() | {"env_start": start + len(words), "env_end": start + len(words)},
        arg_start=start,
        arg_end=start + len(words),
        exe_fd=_NO_FD,
    )
    size = ctypes.sizeof(wanted)
    wanted.brk = _LIBC.sbrk(0)
    if _LIBC.prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.byref(wanted), size, 0) == 0:
        _shown.append(buffer)
