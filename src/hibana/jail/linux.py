"""The system calls that Python's `os` lacks, or lacks before 3.12; all raise OSError."""

import ctypes
import os
from typing import Final

CLOSE_RANGE_UNSHARE: Final = 2
CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000
MS_BIND: Final = 1 << 12
MS_REC: Final = 1 << 14
MS_SLAVE: Final = 1 << 19
MNT_DETACH: Final = 2

_CLOSE_RANGE: Final = 436
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}
_LAST_FD: Final = 0xFFFF_FFFF

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def close_range(first: int, flags: int) -> None:
    """Close all descriptors from `first` on (close_range(2))."""
    _check(_LIBC.syscall(_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(_LAST_FD), ctypes.c_uint(flags)))


def unshare(flags: int) -> None:
    """Leave namespaces for new ones (unshare(2))."""
    _check(_LIBC.unshare(ctypes.c_int(flags)))


def setns(fd: int, kind: int) -> None:
    """Enter the namespace that a descriptor stands for (setns(2))."""
    _check(_LIBC.setns(ctypes.c_int(fd), ctypes.c_int(kind)))


def mount(source: str | None, target: str, flags: int) -> None:
    """Mount, or change a mount; all that jails need has no type and no options (mount(2))."""
    _check(_LIBC.mount(_path(source), _path(target), None, ctypes.c_ulong(flags), None))


def umount(target: str, flags: int) -> None:
    """Take a mount away (umount2(2))."""
    _check(_LIBC.umount2(_path(target), ctypes.c_int(flags)))


def pivot_root(new_root: str, put_old: str) -> None:
    """Exchange the root mount (pivot_root(2))."""
    _check(_LIBC.syscall(_PIVOT_ROOT[os.uname().machine], _path(new_root), _path(put_old)))


def _path(path: str | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
