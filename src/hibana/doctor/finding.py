"""What a check asks, a host, and what it answers, a finding."""

import os
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

OK: Final = "ok"
INFO: Final = "info"
"""Worth knowing; nothing has to be done."""
WARN: Final = "warn"
"""Slower than it could be, or not how a host of strangers' code should be."""
ERROR: Final = "error"
"""Something cannot work."""


class Finding(NamedTuple):
    """One line: what was looked at, how it is, and the command that makes it better."""

    check: str
    level: str
    text: str
    fix: str = ""


class Host:
    """The files in which a kernel describes itself; tests have a folder that looks like one."""

    def __init__(self, root: str = "/") -> None:
        self._root = root

    def path(self, path: str) -> str:
        """Find a file of this host."""
        return os.path.join(self._root, path.lstrip("/"))

    def read(self, path: str) -> str:
        """Read a file without the white space around it; empty if there is none, or not for us."""
        try:
            with open(self.path(path), errors="replace") as file:
                return file.read().strip()
        except OSError:
            return ""

    def names(self, folder: str) -> list[str]:
        """List a folder; nothing if there is none."""
        try:
            return sorted(os.listdir(self.path(folder)))
        except OSError:
            return []

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        return os.path.exists(self.path(path))

    def cpu_flags(self) -> set[str]:
        """Give the features of the first CPU."""
        return set(self.cpu_field("flags").split())

    def cpu_field(self, name: str) -> str:
        """Give a field of the first CPU's description."""
        for key, value in self._cpu_fields():
            if key == name:
                return value
        return ""

    def _cpu_fields(self) -> Iterator[tuple[str, str]]:
        for line in self.read("/proc/cpuinfo").splitlines():
            key, colon, value = line.partition(":")
            if colon:
                yield key.strip(), value.strip()


def running_kernel() -> tuple[int, int]:
    """Give the version of the running kernel, as in 6.1."""
    numbers = os.uname().release.split(".")
    return int(numbers[0]), int(numbers[1].split("-")[0])


def supported_machine() -> bool:
    """Tell whether this is a machine for which there is an engine."""
    return sys.platform == "linux" and os.uname().machine == "x86_64"
