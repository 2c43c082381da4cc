"""What a VMM on aarch64 looks up about the host's CPU, copied into the room, which has no /sys (operations.md §1.3).

An x86 CPU tells its guests itself what it is and which caches it has. On aarch64 that is the VMM's business, and the
VMM knows it from sysfs.
"""

import os
from typing import Final

from hibana.errors import JailFolderError, JailOwnerError, JailReadError, JailWriteError, os_text
from hibana.jail.chroot import Owner

_CPU: Final = "sys/devices/system/cpu/cpu0"
_CACHES: Final = 8
_CACHE_FILES: Final = ("size", "level", "type", "shared_cpu_map", "coherency_line_size", "number_of_sets")
_IDENTITY: Final = f"{_CPU}/regs/identification/midr_el1"

# Whoever may write in the room must not choose where on the host the jailer makes folders and files.
_ROOM: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER: Final = _ROOM | os.O_NOFOLLOW
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_MODE: Final = 0o644


def copy(root: str, owner: Owner, host: str = "/") -> None:
    """Copy the files into the room, to the paths that they have below `host`. Raises VmmError.

    Not every kernel says everything about caches, but every one knows its CPU's identity.
    """
    for index in range(_CACHES):
        folder = f"{_CPU}/cache/index{index}"
        if not os.path.isdir(os.path.join(host, folder)):
            break
        for name in _CACHE_FILES:
            try:
                content = _read(host, f"{folder}/{name}")
            except OSError:
                continue
            _put(root, f"{folder}/{name}", content, owner)
    try:
        content = _read(host, _IDENTITY)
    except OSError as error:
        raise JailReadError(path=os.path.join(host, _IDENTITY), cause=os_text(error)) from error
    _put(root, _IDENTITY, content, owner)


def _read(host: str, path: str) -> bytes:
    with open(os.path.join(host, path), "rb", buffering=0) as file:
        return file.readall().removesuffix(b"\n") + b"\n"


def _put(root: str, path: str, content: bytes, owner: Owner) -> None:
    folder, name = os.path.split(path)
    try:
        parent = _enter(root, folder)
    except OSError as error:
        raise JailFolderError(path=os.path.join(root, folder), cause=os_text(error)) from error
    target = os.path.join(root, path)
    try:
        copy = os.open(name, _NEW_FILE, _FILE_MODE, dir_fd=parent)
        with open(copy, "wb", buffering=0) as file:
            file.write(content)
            _give(copy, owner, target)
    except OSError as error:
        raise JailWriteError(path=target, cause=os_text(error)) from error
    finally:
        os.close(parent)


def _give(copy: int, owner: Owner, target: str) -> None:
    try:
        os.fchown(copy, *owner)
    except OSError as error:
        raise JailOwnerError(path=target, cause=os_text(error)) from error


def _enter(root: str, path: str) -> int:
    """Make folders in the room, as root's, and open the last one."""
    here = os.open(root, _ROOM)
    for name in path.split("/"):
        try:
            inner = _make_folder(name, here)
        finally:
            os.close(here)
        here = inner
    return here


def _make_folder(name: str, parent: int) -> int:
    try:
        os.mkdir(name, dir_fd=parent)
    except FileExistsError:
        pass
    return os.open(name, _FOLDER, dir_fd=parent)
