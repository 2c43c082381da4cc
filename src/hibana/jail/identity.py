"""Who a process seems to be: its name and its command line, as `ps` and the clients' searches see them.

The jailed VMM is the jailer's process, but must look as if it had been executed: its command line is that of
`/firecracker`. The kernel shows what lies between two addresses of the process's own memory, and lets the process move
them (PR_SET_MM_MAP of prctl(2)); on a kernel built without that the command line stays the jailer's.
"""

import ctypes
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

_PR_SET_NAME: Final = 15
_PR_SET_MM: Final = 35
_PR_SET_MM_MAP: Final = 14
_NO_FD: Final = 0xFFFF_FFFF
_LONGEST_NAME: Final = 15

# Fields of /proc/self/stat (proc(5)), counted from the one behind the name in parentheses, which is the third.
_THIRD: Final = 3
_START_CODE: Final = 26 - _THIRD
_END_CODE: Final = 27 - _THIRD
_START_STACK: Final = 28 - _THIRD
_START_DATA: Final = 45 - _THIRD
_END_DATA: Final = 46 - _THIRD
_START_BRK: Final = 47 - _THIRD
_ENV_START: Final = 50 - _THIRD
_ENV_END: Final = 51 - _THIRD

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
        *(
            (name, ctypes.c_uint64)
            for name in (
                *("start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack"),
                *("arg_start", "arg_end", "env_start", "env_end", "auxv"),
            )
        ),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )


_words: ctypes.Array[ctypes.c_char] | None = None  # what the kernel shows must stay where it is


def read_memory_map() -> MemoryMap:
    """Ask the kernel, while there is a /proc."""
    with open("/proc/self/stat") as file:
        fields = [*file.read().rpartition(")")[2].split()]
    places = (
        *(_START_CODE, _END_CODE, _START_DATA, _END_DATA, _START_BRK, _START_STACK),
        *(_ENV_START, _ENV_END),
    )
    return MemoryMap(*(int(fields[place]) for place in places))


def appear_as(command: Sequence[str], memory: MemoryMap) -> None:
    """Take a name and a command line."""
    global _words
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
        _words = buffer
