"""Tell the developer what is going on: a line that is rewritten on a terminal, plain lines elsewhere; all on stderr."""

import sys
import time
from types import TracebackType
from typing import Final, Self

_GREEN: Final = "\033[32m"
_RED: Final = "\033[31m"
_DIM: Final = "\033[2m"
_PLAIN: Final = "\033[0m"
_ERASE: Final = "\r\033[K"


class Failure(Exception):
    """A command cannot go on; the text says why and what to do."""


def on_terminal() -> bool:
    """Tell whether a person is watching."""
    return sys.stderr.isatty()


def say(text: str) -> None:
    """Print one line."""
    print(text, file=sys.stderr, flush=True)


def _paint(colour: str, text: str) -> str:
    return f"{colour}{text}{_PLAIN}" if on_terminal() else text


class Step:
    """One piece of work that takes a while: `with Step("kernel: unpacking"): …` says when it starts and ends."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        if on_terminal():
            print(f"… {self._text}", end="", file=sys.stderr, flush=True)
        else:
            say(f"{self._text} …")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took = _paint(_DIM, f"{time.monotonic() - self._start:.1f} s")
        mark = _paint(_RED, "✗") if kind else _paint(_GREEN, "✓")
        if on_terminal():
            say(f"{_ERASE}{mark} {self._text} {took}")
        elif kind:
            say(f"{self._text}: failed")
