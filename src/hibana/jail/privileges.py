"""What the process carries with it: descriptors, environment, limits, session, user (operations.md §1.3)."""

import ctypes
import os
import posix
import resource
import time
from typing import Final

from hibana.errors import (
    DaemonizeError,
    DuplicateError,
    ExecError,
    JailOpenFileError,
    JailWriteError,
    NewSessionError,
    SanitizeError,
    SetLimitError,
    os_text,
)
from hibana.jail import linux
from hibana.jail.arguments import Limits
from hibana.jail.chroot import Owner

_STDERR: Final = 2


def close_inherited_files() -> None:
    """Close everything but the standard streams."""
    try:
        linux.close_range(_STDERR + 1, linux.CLOSE_RANGE_UNSHARE)
    except OSError as error:
        raise SanitizeError(message=os_text(error)) from error


def forget_environment() -> None:
    """Delete all variables, and overwrite them: the jailed program stays in this memory."""
    strings = ctypes.POINTER(ctypes.c_void_p).in_dll(ctypes.CDLL(None), "environ")
    variables: list[int] = []
    while strings and (address := strings[len(variables)]):
        variables.append(address)
    os.environ.clear()
    posix.environ.clear()
    for address in variables:
        ctypes.memset(address, 0, len(ctypes.string_at(address)))


def limit_resources(limits: Limits) -> None:
    """Set soft and hard limits alike."""
    if limits.file_size is not None:
        _limit(resource.RLIMIT_FSIZE, limits.file_size, "size of file")
    _limit(resource.RLIMIT_NOFILE, limits.open_files, "number of file descriptors")


def _limit(which: int, value: int, what: str) -> None:
    # Python knows 2**64 - 1, the kernel's "no limit", as -1.
    limit = resource.RLIM_INFINITY if value == (1 << 64) - 1 else value
    try:
        resource.setrlimit(which, (limit, limit))
    except (OSError, ValueError, OverflowError) as error:
        raise SetLimitError(what=what) from error


def processor_time_us() -> int:
    """Give the processor time that this process has used; a fork begins with none."""
    return time.clock_gettime_ns(time.CLOCK_PROCESS_CPUTIME_ID) // 1000


def become_daemon(null: int) -> int:
    """Go on as a grandchild without a terminal; give the processor time that the way there took, in microseconds."""
    _go_on_as_a_child()
    try:
        os.setsid()
    except OSError as error:
        raise NewSessionError(cause=os_text(error)) from error
    spent_us = processor_time_us()
    _go_on_as_a_child()
    try:
        for stream in range(_STDERR + 1):
            os.dup2(null, stream)
    except OSError as error:
        raise DuplicateError(cause=os_text(error)) from error
    return spent_us + processor_time_us()


def _go_on_as_a_child() -> None:
    try:
        child = os.fork()
    except OSError as error:
        raise DaemonizeError(cause=os_text(error)) from error
    if child:
        os._exit(0)


def write_pid_file(program: str, pid: int) -> None:
    """Leave the number of the jailed process, as the host counts, for whoever looks into the room."""
    path = f"/{program}.pid"
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise JailOpenFileError(path=path, cause=os_text(error)) from error
    try:
        os.write(file, str(pid).encode())
    except OSError as error:
        raise JailWriteError(path=path, cause=os_text(error)) from error
    finally:
        os.close(file)


def become(owner: Owner) -> None:
    """Become another user, for good: with the last trace of root go all capabilities (capabilities(7))."""
    try:
        if os.geteuid() == 0:
            os.setgroups([])
        os.setresgid(owner.gid, owner.gid, owner.gid)
        os.setresuid(owner.uid, owner.uid, owner.uid)
    except OSError as error:
        raise ExecError(cause=os_text(error)) from error
