"""What signals do to the VMM (api.md §8.2).

Fatal ones are logged and counted, and the process exits with a code of its own for each; how a fault in native code
gets as far as Python is told in `signal_handler.py`. SIGTERM, SIGINT and SIGQUIT kill at once, as clients expect.
SIGRTMIN, by either C library's count, does nothing.
"""

import os
import signal
from collections.abc import Callable
from struct import Struct
from typing import Final, NoReturn, Protocol

from hibana.cli import exits
from hibana.errors import SignalHandlersError, os_text
from hibana.observe import log, metrics
from hibana.observe.metrics_groups import METRICS

_EXIT_CODES: Final[dict[int, int]] = {
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

_pipes: Final[list[int]] = []
"""Where the handler's end of the pipe leads to, once it is installed."""


class EventLoop(Protocol):
    """What reads what the handler writes."""

    def watch(self, fd: int, handler: Callable[[], None], /) -> None: ...


def install(loop: EventLoop) -> None:
    """Set what every signal does, for the rest of the process's life. Raises SignalHandlersError."""
    from hibana.cli.signal_handler import handle  # not needed where only the version is printed

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Python keeps books on handlers, and does not see the native one: whoever asks it must not find SIGHUP free to use.
    for number in (*_HARMLESS, *_EXIT_CODES):
        signal.signal(number, signal.SIG_IGN)
    try:
        pipe, handlers_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        handle((*_EXIT_CODES, signal.SIGPIPE), handlers_end, _EXIT_CODES)
    except OSError as error:
        raise SignalHandlersError(cause=os_text(error)) from error
    _pipes.append(pipe)
    loop.watch(pipe, answer)


def answer() -> None:
    """Do what the signals that have arrived ask for; most end the process."""
    for pipe in _pipes:
        try:
            while siginfo := os.read(pipe, _SIGINFO.size):
                _arrived(siginfo)
        except BlockingIOError:
            pass  # that was all


def _arrived(siginfo: bytes) -> None:
    number, _errno, code, system_call = _SIGINFO.unpack(siginfo)
    if number == signal.SIGPIPE:
        METRICS.signals.sigpipe += 1
        # Limited: written to a log whose reader has gone, it is itself the next broken pipe.
        log.error_limited(f"Received signal {number}, code {code}.")
        return
    log.error(f"Shutting down VM after intercepting signal {number}, code {code}.")
    if number == signal.SIGSYS:
        METRICS.seccomp.num_faults = 1
        if code != _SYS_SECCOMP:
            _exit(exits.UNEXPECTED_ERROR)
        log.error(f"Shutting down VM after intercepting a bad syscall ({system_call}).")
    else:
        setattr(METRICS.signals, signal.Signals(number).name.lower(), 1)
    _exit(_EXIT_CODES[number])


def _exit(code: int) -> NoReturn:
    """End the process here and now: nothing of it can be trusted any more."""
    metrics.flush_or_count()
    exits.at_once(code)
