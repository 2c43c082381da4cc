"""The kernel command line: what the user wrote, and what the machine adds to it (machine.md §2.5)."""

from typing import Final

from hibana.errors import CmdlineCapacity, CmdlineNotPrintable, CmdlineNul, CmdlineOnlyInitArgs, CmdlineTooLong
from hibana.memory.layout import CMDLINE_MAX_SIZE

_SEPARATOR: Final = " -- "


class Cmdline:
    """Boot arguments and, after ` -- `, arguments of init; what is added goes to the former.

    Only additions must be printable: what the user wrote reaches the kernel as it is.
    """

    def __init__(self, text: str) -> None:
        boot_args, init_args = _split(text)
        self._boot_args = boot_args.strip()
        self._init_args = init_args.strip()
        if self._size() > CMDLINE_MAX_SIZE:
            raise CmdlineCapacity

    def append(self, item: str) -> None:
        """Add one item to the boot arguments."""
        if not (item.isascii() and item.isprintable()):
            raise CmdlineNotPrintable
        space = " " if self._boot_args else ""
        if self._size() + len(space) + len(item) > CMDLINE_MAX_SIZE:
            raise CmdlineTooLong
        self._boot_args += space + item

    def encode(self) -> bytes:
        """Give the line as the kernel reads it, with its final NUL."""
        if self._init_args and not self._boot_args:
            raise CmdlineOnlyInitArgs
        line = str(self).encode()
        if b"\0" in line:
            raise CmdlineNul
        return line + b"\0"

    def __str__(self) -> str:
        return self._boot_args + _SEPARATOR + self._init_args if self._init_args else self._boot_args

    def _size(self) -> int:
        return len(str(self).encode()) + 1


def _split(text: str) -> tuple[str, str]:
    """Split at the first separator outside double quotes."""
    at = text.find(_SEPARATOR)
    while at >= 0:
        if text.count('"', 0, at) % 2 == 0:
            return text[:at], text[at + len(_SEPARATOR) :]
        at = text.find(_SEPARATOR, at + 1)
    return text, ""
