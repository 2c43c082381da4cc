"""Stand between a person's terminal and a microVM's console; Ctrl-A x leaves, Ctrl-A Ctrl-A is a Ctrl-A."""

import os
import selectors
import sys
import termios
import tty
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from tools.microvm.job import Output

_CTRL_A: Final = 0x01
_PIECE: Final = 65536


class Console(NamedTuple):
    """The descriptors of a machine's console."""

    said: int
    typed: int


class Left(Exception):
    """The person pressed Ctrl-A x, or the terminal is gone."""


class Keys:
    """What was typed, without the escapes meant for us."""

    def __init__(self) -> None:
        self._escaped = False

    def feed(self, typed: bytes) -> bytes:
        """Return what goes to the guest. Raises Left."""
        through = bytearray()
        for key in typed:
            if self._escaped:
                self._escaped = False
                if key in b"xX":
                    raise Left
                through.append(key)
            elif key == _CTRL_A:
                self._escaped = True
            else:
                through.append(key)
        return bytes(through)


class RawTerminal:
    """Keys arrive one by one and untouched while this is entered; the terminal is put back on every way out."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> Self:
        self._before: list[Any] = termios.tcgetattr(self._fd)
        tty.setraw(self._fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)


def relay(console: Console, output: Output, keyboard: int | None, verbose: bool) -> None:
    """Copy both ways until the machine closes its console; `keyboard` is a raw terminal. Raises Left."""
    keys = Keys()
    with selectors.DefaultSelector() as selector:
        selector.register(console.said, selectors.EVENT_READ)
        if keyboard is not None:
            selector.register(keyboard, selectors.EVENT_READ)
        while True:
            for ready, _ in selector.select():
                if ready.fd == keyboard:
                    typed = os.read(keyboard, _PIECE)
                    if not typed:
                        raise Left
                    with suppress(BrokenPipeError):  # its end is seen on the other pipe
                        os.write(console.typed, keys.feed(typed))
                    continue
                arrived = os.read(ready.fd, _PIECE)
                if not arrived:
                    return
                shown = output.feed(arrived)
                sys.stdout.buffer.write(arrived if verbose else shown)
                sys.stdout.buffer.flush()
