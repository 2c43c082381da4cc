"""Exceptions as text: where, what, and from what, without a look at source files."""

import os
import re

import pytest

from hibana.observe.failure import described


def broken() -> None:
    raise ZeroDivisionError("a bug")


def caught(cause: bool = False, context: bool = False) -> Exception:
    try:
        try:
            broken()
        except ZeroDivisionError as error:
            if cause:
                raise ValueError from error
            if context:
                raise KeyError("key")  # noqa: B904  this is the point
            raise KeyError("alone") from None
    except Exception as error:
        return error
    raise AssertionError


def test_an_exception_tells_the_way_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", None)
    try:
        broken()
    except ZeroDivisionError as error:
        text = described(error)
    frame = rf'  File "{re.escape(__file__)}", line \d+, in '
    expected = rf"Traceback \(most recent call last\):\n{frame}test_\w+\n{frame}broken\nZeroDivisionError: a bug"
    assert re.fullmatch(expected, text)


@pytest.mark.parametrize(
    ("error", "last_lines"),
    [
        (caught(cause=True), ["ZeroDivisionError: a bug", "ValueError"]),
        (caught(context=True), ["ZeroDivisionError: a bug", "KeyError: 'key'"]),
        (caught(), ["KeyError: 'alone'"]),
    ],
)
def test_what_it_was_raised_from_comes_first(error: Exception, last_lines: list[str]) -> None:
    parts = described(error).split("\nand then:\n")
    assert [part.splitlines()[-1] for part in parts] == last_lines
