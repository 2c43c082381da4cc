"""What signals do to the VMM (api.md §8.2).

Fatal ones are logged and counted, and the process exits with a code of its own for each; how a fault in native code
gets as far as Python is told in `signal_handler.py`. SIGTERM, SIGINT and SIGQUIT kill at once, as clients expect.
SIGRTMIN, by either C library's count, does nothing.
"""

import ctypes
import mmap
import os
import signal
from collections.abc import Callable
from struct import Struct
from typing import Final, NoReturn, Protocol

from hibana.cli import exits
from hibana.cli.signal_handler import CODE, EXIT_CODES_AT, PIPE_AT
from hibana.errors import SignalHandlersError, os_text
from hibana.observe import log, metrics
from hibana.observe.metrics_groups import METRICS

_EXIT_CODES: Final = {
    signal.SIGILL: exits.SIGILL,
    signal.SIGBUS: exits.SIGBUS,
    signal.SIGSEGV: exits.SIGSEGV,
    signal.SIGXCPU: exits.SIGXCPU,
    signal.SIGXFSZ: exits.SIGXFSZ,
    signal.SIGHUP: exits.SIGHUP,
    signal.SIGSYS: exits.BAD_SYSCALL,
}
_HARMLESS: Final = (34, 35)  # SIGRTMIN as glibc and as musl count

_SIGINFO: Final = Struct("<iii12xi100x")  # siginfo_t: signo, errno, code; for SIGSYS the number of the system call
_SYS_SECCOMP: Final = 1
_SIGACTION: Final = Struct("<Q128sixxxxQ")  # struct sigaction: handler, mask, flags, restorer
_SA_SIGINFO: Final = 4
_SA_RESTART: Final = 0x10000000
_EVERY_SIGNAL: Final = b"\xff" * 128


class EventLoop(Protocol):
    """What reads what the handler writes."""

    def watch(self, fd: int, handler: Callable[[], None], /) -> None: ...


def install(loop: EventLoop) -> None:
    """Set what every signal does, for the rest of the process's life. Raises SignalHandlersError."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in _HARMLESS:
        signal.signal(number, signal.SIG_IGN)
    try:
        pipe, handlers_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        libc = ctypes.CDLL(None, use_errno=True)
        handler = _place_handler(libc, handlers_end)
        action = _SIGACTION.pack(handler, _EVERY_SIGNAL, _SA_SIGINFO | _SA_RESTART, 0)
        for number in (*_EXIT_CODES, signal.SIGPIPE):
            _check(libc.sigaction(int(number), action, None) == 0)
    except OSError as error:
        raise SignalHandlersError(cause=os_text(error)) from error
    loop.watch(pipe, lambda: _arrived(os.read(pipe, _SIGINFO.size)))


def _place_handler(libc: ctypes.CDLL, pipe: int) -> int:
    """Map the machine code and its data, and never unmap them: a signal may come when Python has ended."""
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    data = bytearray(CODE.ljust(PIPE_AT, b"\0") + pipe.to_bytes(4, "little"))
    for number, code in _EXIT_CODES.items():
        data[EXIT_CODES_AT + number] = code
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    at = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    _check(at != ctypes.c_void_p(-1).value)
    ctypes.memmove(at, bytes(data), len(data))
    _check(libc.mprotect(at, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC) == 0)
    return int(at)


def _check(succeeded: bool) -> None:
    if not succeeded:
        raise OSError(ctypes.get_errno(), "")


def _arrived(siginfo: bytes) -> None:
    number, _errno, code, system_call = _SIGINFO.unpack(siginfo)
    if number == signal.SIGPIPE:
        METRICS.signals.sigpipe += 1
        log.error(f"Received signal {number}, code {code}.")
        return
    log.error(f"Shutting down VM after intercepting signal {number}, code {code}.")
    if number == signal.SIGSYS:
        METRICS.seccomp.num_faults = 1
        if code != _SYS_SECCOMP:
            _exit(exits.UNEXPECTED_ERROR)
        log.error(f"Shutting down VM after intercepting a bad syscall ({system_call}).")
    else:
        setattr(METRICS.signals, signal.Signals(number).name.lower(), 1)
    _exit(_EXIT_CODES[signal.Signals(number)])


def _exit(code: int) -> NoReturn:
    """End the process here and now: nothing of it can be trusted any more."""
    metrics.flush_or_count()
    exits.at_once(code)
