"""The room: a folder that will be the root directory, the program in it, folders and device nodes (operations.md §1.3).

Clients prepare the room beforehand: they put hard links, copies and bind mounts of kernels and disks into it. So a
folder that exists is fine; only what the jailer itself makes must not be there yet.
"""

import os
import stat
from typing import Final, NamedTuple

from hibana.errors import (
    DeviceNodeError,
    JailCopyError,
    JailFolderError,
    JailHardLink,
    JailMetadataError,
    JailModeError,
    JailOpenError,
    JailOpenFileError,
    JailOwnerError,
    os_text,
)

_FOLDERS: Final = ("/", "/dev", "/dev/net", "/run")
_FOLDER_MODE: Final = 0o700
_NODE_MODE: Final = stat.S_IFCHR | 0o600

_TUN: Final = ("/dev/net/tun", os.makedev(10, 200))
_KVM: Final = ("/dev/kvm", os.makedev(10, 232))
_URANDOM: Final = ("/dev/urandom", os.makedev(1, 9))
_USERFAULTFD: Final = "/dev/userfaultfd"
_MISC_MAJOR: Final = 10
# Whoever may write in the folder must not choose which file of the host the jailer overwrites, nor let it wait.
_COPY: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MISC_DEVICES: Final = "/proc/misc"


class Owner(NamedTuple):
    """Who the jailed process will be."""

    uid: int
    gid: int


def make_root(base: str, program: str, instance: str) -> str:
    """Make the folder that becomes the root directory, or accept the one that is there."""
    root = os.path.join(base, program, instance, "root")
    _make_folder(root)
    return root


def copy_program(source: str, root: str, owner: Owner) -> None:
    """Copy the program: a link would not do across file systems, and two VMMs must not share pages of code."""
    target = os.path.join(root, os.path.basename(source))
    try:
        mode = stat.S_IMODE(os.stat(source).st_mode)
    except OSError as error:
        raise JailMetadataError(path=source, cause=os_text(error)) from error
    try:
        copy = os.open(target, _COPY, mode)
    except OSError as error:
        raise JailOpenError(path=target, cause=os_text(error)) from error
    try:
        if os.fstat(copy).st_nlink > 1:
            raise JailHardLink(path=target)
        try:
            os.fchown(copy, *owner)
        except OSError as error:
            raise JailOwnerError(path=target, cause=os_text(error)) from error
        _copy(source, copy, target)
    finally:
        os.close(copy)


def _copy(source: str, copy: int, target: str) -> None:
    try:
        with open(source, "rb", buffering=0) as original:
            while os.sendfile(copy, original.fileno(), None, 1 << 30):
                pass
    except OSError as error:
        raise JailCopyError(source=source, target=target, cause=os_text(error)) from error


def userfaultfd_minor() -> int | None:
    """Look up the number of the host's userfaultfd device; None if it has none."""
    try:
        with open(_MISC_DEVICES) as file:
            rows = [line.split() for line in file]
    except OSError:
        return None
    return next((int(row[0]) for row in rows if row[1:] == ["userfaultfd"]), None)


def open_null() -> int:
    """Open what becomes the standard streams of a daemon."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise JailOpenFileError(path=os.devnull, cause=os_text(error)) from error


def furnish(owner: Owner, userfaultfd: int | None) -> None:
    """Make folders and device nodes below `/`, which is the jail by now."""
    for folder in _FOLDERS:
        _make_folder(folder)
        try:
            os.chmod(folder, _FOLDER_MODE)
        except OSError as error:
            raise JailModeError(path=folder, cause=os_text(error)) from error
        _give(folder, owner)
    _make_node(*_TUN, owner)
    _make_node(*_KVM, owner)
    try:
        _make_node(*_URANDOM, owner)
    except (DeviceNodeError, JailOwnerError) as error:
        print(f"Warning! Could not create /dev/urandom device inside jailer: {error}.")
        print("MMDS version 2 will not be available to use.", flush=True)
    if userfaultfd is not None:
        _make_node(_USERFAULTFD, os.makedev(_MISC_MAJOR, userfaultfd), owner)


def _make_folder(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise JailFolderError(path=path, cause=os_text(error)) from error


def _make_node(path: str, device: int, owner: Owner) -> None:
    try:
        os.mknod(path, _NODE_MODE, device)
    except OSError as error:
        raise DeviceNodeError(node=path, cause=os_text(error)) from error
    _give(path, owner)


def _give(path: str, owner: Owner) -> None:
    try:
        os.chown(path, *owner)
    except OSError as error:
        raise JailOwnerError(path=path, cause=os_text(error)) from error
