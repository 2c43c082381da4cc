"""Namespaces: another network, no host files, no other processes (operations.md §1.3, steps 7, 12 and 18)."""

import os
from collections.abc import Callable
from typing import Final

from hibana.errors import (
    BindRootError,
    CreateOldRootError,
    EnterJailError,
    EnterRootError,
    JailOpenFileError,
    JoinNetworkError,
    NewPidNamespaceError,
    PivotRootError,
    PropagationError,
    RemoveOldRootError,
    UnmountOldRootError,
    UnshareMountsError,
    VmmError,
    os_text,
)
from hibana.jail import linux

_OLD_ROOT: Final = "old_root"
_OLD_ROOT_MODE: Final = 0o600


def join_network(path: str) -> None:
    """Enter the network namespace that a file stands for."""
    try:
        namespace = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for a writer
    except OSError as error:
        raise JailOpenFileError(path=path, cause=os_text(error)) from error
    try:
        linux.setns(namespace, linux.CLONE_NEWNET)
    except OSError as error:
        raise JoinNetworkError(cause=os_text(error)) from error
    finally:
        os.close(namespace)


def enter_root(root: str) -> None:
    """Make a folder the root directory of a mount namespace of our own, and let go of everything else.

    A change of root alone (chroot(2)) can be left again by whoever has the right to change it; a mount that is gone
    cannot. Binding the folder to itself makes it the mount that pivot_root(2) wants, and takes the mounts along that
    the client has prepared inside.
    """
    slave, bind = linux.MS_SLAVE | linux.MS_REC, linux.MS_BIND | linux.MS_REC
    steps: tuple[tuple[type[VmmError], Callable[[], None]], ...] = (
        (UnshareMountsError, lambda: linux.unshare(linux.CLONE_NEWNS)),
        (PropagationError, lambda: linux.mount(None, "/", slave)),
        (BindRootError, lambda: linux.mount(root, root, bind)),
        (EnterRootError, lambda: os.chdir(root)),
        (CreateOldRootError, lambda: os.mkdir(_OLD_ROOT, _OLD_ROOT_MODE)),
        (PivotRootError, lambda: linux.pivot_root(".", _OLD_ROOT)),
        (EnterJailError, lambda: os.chdir("/")),
        (UnmountOldRootError, lambda: linux.umount(_OLD_ROOT, linux.MNT_DETACH)),
        (RemoveOldRootError, lambda: os.rmdir(_OLD_ROOT)),
    )
    for problem, step in steps:
        try:
            step()
        except OSError as error:
            raise problem(cause=os_text(error)) from error


def fork_into_new_pids() -> int:
    """Fork a child that is the first process of a new PID namespace; 0 in the child, in the parent the child's pid."""
    try:
        linux.unshare(linux.CLONE_NEWPID)
        return os.fork()
    except OSError as error:
        raise NewPidNamespaceError(cause=os_text(error)) from error
