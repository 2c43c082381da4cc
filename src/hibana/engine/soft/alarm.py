"""How time and other threads reach the thread that runs the guest: a signal.

The guest runs inside one long library call. Whoever wants that thread's attention sends it `SIGNAL`, whose handler is
the thunk `poke`: two stores that make the call return. So does the kernel: `Alarm` is one POSIX timer that signals the
thread directly, and no thread of ours has to wait for a deadline. Since the handler runs on the thread it is about, a
poke cannot fall between an instruction that clears a flag and the one that tests it, and a halted vCPU can wait with
`wait`, which opens the door for the signal and goes to sleep in one step.

`SIGNAL` is a real-time signal that neither Python nor the C library uses; its handler touches nothing but cells of the
thunks, so a signal that arrives late, in a thread that has long gone on to other things, does no harm.
"""

import ctypes
import os
import signal
import struct
from typing import Final

from hibana.errors import EngineError, os_text

SIGNAL: Final = signal.SIGRTMIN + 1

_SA_RESTART: Final = 0x10000000
_SIG_BLOCK: Final = 0
_SIG_UNBLOCK: Final = 1
_CLOCK_MONOTONIC: Final = 1
_TIMER_ABSTIME: Final = 1
_SIGEV_THREAD_ID: Final = 4

_SIGSET_SIZE: Final = 128
_SIGACTION: Final = struct.Struct("<Q128sixxxxQ")  # struct sigaction: handler, mask, flags, restorer
_SIGEVENT: Final = struct.Struct("<Qiii44x")  # struct sigevent: value, signal, notify, thread id
_ITIMERSPEC: Final = struct.Struct("<qqqq")  # struct itimerspec: interval, value

_SYS_TGKILL: Final = 234

_libc: Final = ctypes.CDLL(None, use_errno=True)
_sigaction: Final = _libc.sigaction
_pthread_sigmask: Final = _libc.pthread_sigmask
_ppoll: Final = _libc.ppoll
_syscall: Final = _libc.syscall
_timer_create: Final = _libc.timer_create
_timer_settime: Final = _libc.timer_settime
_timer_delete: Final = _libc.timer_delete
_timer_settime.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_timer_delete.argtypes = (ctypes.c_void_p,)

_this: Final = ctypes.create_string_buffer((1 << SIGNAL - 1).to_bytes(_SIGSET_SIZE, "little"), _SIGSET_SIZE)
_none: Final = ctypes.create_string_buffer(_SIGSET_SIZE)
_OFF: Final = _ITIMERSPEC.pack(0, 0, 0, 0)


def listen(handler: int) -> None:
    """Install the machine code at `handler` for the signal, in the whole process."""
    action = _SIGACTION.pack(handler, bytes(_SIGSET_SIZE), _SA_RESTART, 0)
    if _sigaction(SIGNAL, action, None):
        raise EngineError(cause=f"sigaction: {_error()}")
    _pthread_sigmask(_SIG_UNBLOCK, _this, None)


def admit() -> None:
    """Let the signal reach the calling thread."""
    _pthread_sigmask(_SIG_UNBLOCK, _this, None)


def poke(thread_id: int) -> None:
    """Signal a thread of this process; one that has ended is no error."""
    _syscall(_SYS_TGKILL, os.getpid(), thread_id, SIGNAL)


def wait(wanted: ctypes.c_uint8) -> None:
    """Sleep until the signal comes, unless `wanted` is set by then: between test and sleep it cannot come."""
    _pthread_sigmask(_SIG_BLOCK, _this, None)
    if not wanted.value:
        _ppoll(None, 0, None, _none)
    _pthread_sigmask(_SIG_UNBLOCK, _this, None)


class Alarm:
    """A timer of the kernel that signals one thread."""

    def __init__(self, thread_id: int) -> None:
        self._timer = ctypes.c_void_p()
        self.due: int | None = None
        """When it will ring, in nanoseconds of CLOCK_MONOTONIC; kept after it has rung."""
        event = _SIGEVENT.pack(0, SIGNAL, _SIGEV_THREAD_ID, thread_id)
        if _timer_create(_CLOCK_MONOTONIC, event, ctypes.byref(self._timer)):
            raise EngineError(cause=f"timer_create: {_error()}")

    def set(self, due: int | None) -> None:
        """Ring at `due`, at once when that has passed, or not at all."""
        self.due = due
        setting = _OFF if due is None else _ITIMERSPEC.pack(0, 0, *divmod(max(due, 1), 1_000_000_000))
        _timer_settime(self._timer, _TIMER_ABSTIME, setting, None)

    def close(self) -> None:
        """Delete the timer."""
        _timer_delete(self._timer)


def _error() -> str:
    number = ctypes.get_errno()
    return os_text(OSError(number, os.strerror(number)))
