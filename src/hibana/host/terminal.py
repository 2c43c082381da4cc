"""The terminal on which the VMM was started, while it is the guest's console.

The console changes two things that outlive the process, because they belong to the terminal and not to us: the line
discipline of standard input, and O_NONBLOCK of standard output, which a terminal shares with the shell and with
standard input and standard error. A shell with either of them is a nuisance, so every way out puts them back:

* the end of the program, orderly or by an exception: `atexit`;
* a signal that kills by default: a handler puts them back and then dies *by the same signal*, for whoever waits for the
  VMM tells a clean stop by that. Handlers are installed only while a terminal is changed and only where the default
  action would have applied; the main thread must reach its next bytecode, which a loop in epoll does at once;
* `os._exit`: whoever calls it calls `Terminal.give_back` first.

SIGKILL and a crash of the interpreter itself (SIGSEGV) cannot be covered from inside the process: `stty sane` helps.
The reference puts nothing back when a signal kills it.
"""

import atexit
import fcntl
import os
import signal
import termios
from types import FrameType
from typing import Any, Final

from hibana.observe import log

_DEADLY: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGABRT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
)

# Keys go to the guest as they are typed: no editing, no echo, no Ctrl-C for us, no Ctrl-S for the terminal, no CR made
# into LF. Output processing stays on, because log lines share the terminal and end in a bare newline.
_INPUT_OFF: Final = (
    termios.BRKINT | termios.ICRNL | termios.IGNCR | termios.INLCR | termios.INPCK | termios.ISTRIP | termios.IXON
)
_LOCAL_OFF: Final = termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG
_IFLAG: Final = 0  # places in what tcgetattr returns
_LFLAG: Final = 3


class Terminal:
    """Standard input and output: prepared for the guest, and put back afterwards."""

    def __init__(self, input_fd: int = 0, output_fd: int = 1) -> None:
        """Look after two descriptors; nothing is changed yet."""
        self._input_fd = input_fd
        self._output_fd = output_fd
        self._modes: list[Any] | None = None
        self._flags: int | None = None
        self._handled: list[signal.Signals] = []

    def take(self) -> None:
        """Make input raw if it is our terminal, and output non-blocking. Only on the main thread."""
        atexit.register(self.give_back)
        if os.isatty(self._input_fd) or os.isatty(self._output_fd):
            self._handle_signals()
        flags = fcntl.fcntl(self._output_fd, fcntl.F_GETFL)
        self._flags = flags
        fcntl.fcntl(self._output_fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        if not os.isatty(self._input_fd):
            return
        if in_foreground(self._input_fd):
            self._make_raw()
        else:
            log.warn("The terminal belongs to another job: the guest gets no serial input.")

    def give_back(self) -> None:
        """Put everything back as it was; does nothing if that has been done."""
        # A signal may interrupt this and do it all again: what was saved is dropped only after it has been put back.
        if self._modes is not None:
            self._unmake_raw(self._modes)
            self._modes = None
        if self._flags is not None:
            fcntl.fcntl(self._output_fd, fcntl.F_SETFL, self._flags)
            self._flags = None
        while self._handled:
            signal.signal(self._handled[-1], signal.SIG_DFL)
            self._handled.pop()
        atexit.unregister(self.give_back)

    def _make_raw(self) -> None:
        modes = termios.tcgetattr(self._input_fd)
        self._modes = modes.copy()
        modes[_IFLAG] &= ~_INPUT_OFF
        modes[_LFLAG] &= ~_LOCAL_OFF
        termios.tcsetattr(self._input_fd, termios.TCSANOW, modes)

    def _unmake_raw(self, modes: list[Any]) -> None:
        # In the background, the shell has its own modes in place by now, and touching them would stop us.
        if in_foreground(self._input_fd):
            try:
                termios.tcsetattr(self._input_fd, termios.TCSANOW, modes)
            except termios.error:
                pass  # it has been hung up: nobody is left to see it

    def _handle_signals(self) -> None:
        for number in _DEADLY:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._die)
                self._handled.append(number)

    def _die(self, number: int, frame: FrameType | None) -> None:
        self.give_back()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def in_foreground(fd: int) -> bool:
    """Tell whether we may use a terminal: the shell has not put us into the background."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # it controls another session, or nobody: then there are no jobs
        return True
