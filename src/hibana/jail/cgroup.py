"""Cgroups: how much of the host the jailed process may use (operations.md §1.4).

Both kernel interfaces: version 1 has a hierarchy for each controller, version 2 one for all. A request is turned into
folders and values before anything is created; then all values are written, and the process moves in last, because a
cpuset takes no process before it has CPUs and memory nodes.
"""

import os
import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from hibana.errors import (
    CgroupInheritError,
    CgroupMoveError,
    InvalidCgroupFile,
    InvalidCgroupFormat,
    JailFolderError,
    JailReadError,
    JailWriteError,
    NoCgroupController,
    NoCgroupHierarchy,
    VmmError,
    os_text,
)
from hibana.jail.arguments import escapes

MOUNTS: Final = "/proc/mounts"

_MOUNT: Final = re.compile(r"[a-z2]*\s(?P<folder>.*)\scgroup(?P<version>2?)\s(?P<options>.*)\s0\s0")
_PROCESSES: Final = "cgroup.procs"
_TASKS: Final = "tasks"
_CONTROLLERS: Final = "cgroup.controllers"
_SUBTREE: Final = "cgroup.subtree_control"


class Value(NamedTuple):
    """One `--cgroup`: a value for a file of a controller."""

    controller: str
    file: str
    value: str


class Hierarchy(NamedTuple):
    """A mounted hierarchy of cgroups."""

    folder: str
    version: int
    options: tuple[str, ...]


def hierarchies(version: int, mounts: str = MOUNTS) -> list[Hierarchy]:
    """Find the hierarchies of a version. Raises NoCgroupHierarchy."""
    try:
        with open(mounts) as file:
            lines = [_MOUNT.fullmatch(line.rstrip("\n")) for line in file]
    except OSError as error:
        raise JailReadError(path=mounts, cause=os_text(error)) from error
    there = [Hierarchy(m["folder"], int(m["version"] or 1), tuple(m["options"].split(","))) for m in lines if m]
    right = [hierarchy for hierarchy in there if hierarchy.version == version]
    if not right:
        raise NoCgroupHierarchy
    return right


def parse(texts: Iterable[str]) -> list[Value]:
    """Read `<controller>.<what>=<value>` words."""
    return [_parse(text) for text in texts]


def _parse(text: str) -> Value:
    file, *values = text.split("=")
    if len(values) != 1 or not values[0]:
        raise InvalidCgroupFormat(text=text)
    if escapes(file):
        raise InvalidCgroupFile(file=text)
    controller, dot, _ = file.partition(".")
    if not dot:
        raise InvalidCgroupFile(file=file)
    return Value(controller, file, values[0])


class Cgroup(NamedTuple):
    """The cgroup of one jail: one folder with version 2, one for each controller with version 1."""

    version: int
    mount_of: dict[str, str]
    below: str
    values: list[Value]

    def enter(self, pid: int) -> None:
        """Create the folders, write all values, then move a process in."""
        for value in self.values:
            self._create(value)
        for value in self.values:
            _write(os.path.join(self._folder(value.controller), value.file), value.value)
        for folder in dict.fromkeys(self._folder(value.controller) for value in self.values):
            _write(os.path.join(folder, _TASKS if self.version == 1 else _PROCESSES), str(pid))

    def _folder(self, controller: str) -> str:
        return os.path.join(self.mount_of[controller], self.below)

    def _create(self, value: Value) -> None:
        folder = self._folder(value.controller)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise JailFolderError(path=folder, cause=os_text(error)) from error
        if self.version == 1:
            depth = self.below.strip("/").count("/")
            _inherit(folder, value.file, depth)
        else:
            for ancestor in _ancestors(self.mount_of[value.controller], folder):
                _delegate(ancestor, value.controller)


def plan(version: int, values: list[Value], parent: str, instance: str, mounts: str = MOUNTS) -> Cgroup:
    """Find where a jail's values go, without changing anything. Raises NoCgroupHierarchy, NoCgroupController."""
    there = hierarchies(version, mounts)
    mount_of = {value.controller: _mount_of(value.controller, there) for value in values}
    return Cgroup(version, mount_of, os.path.join(parent, instance), values)


def _mount_of(controller: str, there: list[Hierarchy]) -> str:
    if there[0].version == 2:
        unified = there[0].folder
        if controller in _read(os.path.join(unified, _CONTROLLERS)).split():
            return unified
        raise NoCgroupController(name=controller)
    for hierarchy in there:
        if controller in hierarchy.options:
            return hierarchy.folder
    raise NoCgroupController(name=controller)


def join_parent(parent: str, pid: int, mounts: str = MOUNTS) -> None:
    """Move a process into an existing cgroup of version 2; where there is none, stay (operations.md §1.4)."""
    folder = os.path.join(hierarchies(2, mounts)[0].folder, parent)
    if not os.path.exists(folder):
        return
    try:
        with open(os.path.join(folder, _PROCESSES), "w") as file:
            file.write(f"{pid}\n")
    except OSError as error:
        raise CgroupMoveError(folder=folder, cause=os_text(error)) from error


def _inherit(folder: str, file: str, depth: int) -> None:
    """Copy a value from the folder above where the kernel begins with none: cpusets do (cpuset(7))."""
    above = os.path.join(os.path.dirname(folder), file)
    value = _read(above).strip()
    if not value and depth > 0:
        try:
            _inherit(os.path.dirname(folder), file, depth - 1)
        except VmmError:
            pass  # another jailer may have been faster: what counts is what can be read now
        value = _read(above).strip()
    if not value:
        raise CgroupInheritError(file=file, folder=folder)
    _write(os.path.join(folder, file), value)


def _ancestors(mount: str, folder: str) -> Iterator[str]:
    """Name the folders above one, from the mount down."""
    above = os.path.dirname(folder)
    if above != mount:
        yield from _ancestors(mount, above)
    yield above


def _delegate(folder: str, controller: str) -> None:
    """Let the folders below use a controller, unless they may already."""
    path = os.path.join(folder, _SUBTREE)
    if os.path.exists(path) and controller not in _read(path).split():
        _write(path, f"+{controller}")


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        raise JailReadError(path=path, cause=os_text(error)) from error


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise JailWriteError(path=path, cause=os_text(error)) from error
