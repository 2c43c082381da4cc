"""The argument grammar that all programs share (api.md §7.1, operations.md §0.1).

A program declares a table of `Argument`s. The grammar is the reference's, not getopt's: long options only, a value is
the next word, `--name=value` is an unknown option, and nothing after a lone `--` is looked at.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from hibana.errors import (
    DuplicateArgument,
    ForbiddenArgument,
    MissingArgument,
    MissingArgumentValue,
    UnexpectedArgument,
)


class Argument(NamedTuple):
    """One row of a program's table; `requires` and `forbids` name other rows."""

    name: str
    help: str
    takes_value: bool = False
    default: str | None = None
    required: bool = False
    repeatable: bool = False
    requires: str | None = None
    forbids: tuple[str, ...] = ()


HELP: Final = Argument("help", "Show the help message.")
VERSION: Final = Argument("version", "Print the binary version number.")


class Arguments:
    """What was typed, checked against a table."""

    def __init__(self, table: Sequence[Argument], typed: dict[str, list[str]], extra: list[str]) -> None:
        self._defaults = {argument.name: argument.default for argument in table}
        self._typed = typed
        self.extra = extra
        """The words after `--`."""

    def given(self, name: str) -> bool:
        """Tell whether an argument was typed."""
        return name in self._typed

    def value(self, name: str) -> str | None:
        """Give the value that was typed, or the default."""
        return self._typed[name][0] if name in self._typed else self._defaults[name]

    def values(self, name: str) -> list[str]:
        """Give all values of a repeatable argument, in order."""
        return self._typed.get(name, [])


def parse(table: Sequence[Argument], argv: Sequence[str]) -> Arguments:
    """Read a command line, without the program's name. Raises one of the errors of `hibana.errors`' command line.

    `--help` and then `--version` win over everything: whatever stands beside them is not even looked at.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    words, extra = argv[:end], list(argv[end + 1 :])
    if "--help" in words or "-h" in words:
        return Arguments(table, {"help": [""]}, extra)
    if "--version" in words and VERSION in table:
        return Arguments(table, {"version": [""]}, extra)
    typed: dict[str, list[str]] = {}
    rows = {argument.name: argument for argument in table}
    rest = iter(words)
    for word in rest:
        argument = rows.get(word[2:]) if word.startswith("--") else None
        if argument is None:
            raise UnexpectedArgument(argument=word.removeprefix("--"))
        if argument.name in typed and not argument.repeatable:
            raise DuplicateArgument(name=argument.name)
        typed.setdefault(argument.name, []).append(_value(argument, rest))
    for argument in sorted(table):
        _check(argument, typed)
    return Arguments(table, typed, extra)


def _value(argument: Argument, rest: Iterator[str]) -> str:
    if not argument.takes_value:
        return ""
    value = next(rest, "--")
    if value.startswith("--"):
        raise MissingArgumentValue(name=argument.name)
    return value


def _check(argument: Argument, typed: dict[str, list[str]]) -> None:
    """Check one argument against the others; they are checked in the order of the alphabet."""
    if argument.name not in typed:
        if argument.required:
            raise MissingArgument(name=argument.name)
        return
    if argument.requires is not None and argument.requires not in typed:
        raise MissingArgument(name=argument.requires)
    for other in argument.forbids:
        if other in typed:
            raise ForbiddenArgument(name=argument.name, other=other)


def help_text(table: Sequence[Argument]) -> str:
    """Lay out the help of a program: what is required, if anything is, and what is optional."""
    required = _block("required arguments:", [argument for argument in table if argument.required])
    optional = _block("optional arguments:", [argument for argument in table if not argument.required])
    return f"{required}\n\n{optional}" if required else optional


def _block(title: str, arguments: list[Argument]) -> str:
    if not arguments:
        return ""
    lines = {f"  --{a.name} <{a.name}>" if a.takes_value else f"  --{a.name}": a for a in sorted(arguments)}
    width = max(map(len, lines))
    return "\n".join([title, *(f"{usage:{width}}   {_explained(a)}" for usage, a in lines.items())])


def _explained(argument: Argument) -> str:
    return argument.help + (f' [default: "{argument.default}"]' if argument.default is not None else "")
