"""The flags of `jailer` (operations.md §1.1)."""

import os
from collections.abc import Sequence
from typing import Final

from hibana import FIRECRACKER_VERSION, __version__
from hibana.cli import args
from hibana.cli.args import HELP, VERSION, Argument, Arguments
from hibana.errors import JailArgumentsError, VmmError
from hibana.jail import arguments, cgroup, chroot
from hibana.jail.chroot import Owner
from hibana.jail.steps import Jail

FLAGS: Final = (
    HELP,
    VERSION,
    Argument("cgroup", "A value for a file of the jail's cgroup, as <file>=<value>; may be repeated.", True,
             repeatable=True),
    Argument("cgroup-version", "Which cgroup hierarchy to use, 1 or 2.", True, "1"),
    Argument("chroot-base-dir", "Folder in which the jails are made.", True, "/srv/jailer"),
    Argument("daemonize", "Go on in the background, without a terminal."),
    Argument("exec-file", "Path of the program that is copied into the jail and runs there.", True, required=True),
    Argument("gid", "Group of the jailed program, as a number.", True, required=True),
    Argument("id", "Jail ID.", True, required=True),
    Argument("netns", "Path of the network namespace to join.", True),
    Argument("new-pid-ns", "Run the program as the first process of a new PID namespace."),
    Argument("parent-cgroup", "The cgroup below which the jail's is made; the program's name if absent.", True),
    Argument("resource-limit", "A resource limit, fsize=<bytes> or no-file=<number>; may be repeated.", True,
             repeatable=True),
    Argument("uid", "User of the jailed program, as a number.", True, required=True),
)  # fmt: skip


def parse(argv: Sequence[str]) -> Arguments:
    """Read the command line, without the program's name. Raises JailArgumentsError."""
    try:
        return args.parse(FLAGS, argv)
    except VmmError as error:
        raise JailArgumentsError(cause=error) from error


def read(typed: Arguments) -> Jail:
    """Check what was typed, in the reference's order. Raises VmmError.

    Of all checks one acts: with cgroups of version 2 and no values for them, the jailer moves into the parent.
    """
    word, words = typed.value, typed.values
    instance = arguments.instance_id(word("id") or "")
    executable = arguments.executable(word("exec-file") or "")
    base = arguments.base_folder(word("chroot-base-dir") or "")
    owner = Owner(arguments.user(word("uid") or ""), arguments.group(word("gid") or ""))
    parent = arguments.parent_cgroup(word("parent-cgroup") or os.path.basename(executable))
    version = arguments.cgroup_version(word("cgroup-version") or "")
    wanted = None
    if words("cgroup"):
        cgroup.hierarchies(version)
        wanted = cgroup.plan(version, cgroup.parse(words("cgroup")), parent, instance)
    elif version == 2:
        cgroup.join_parent(parent, os.getpid())
    return Jail(
        *(instance, executable, base, owner),
        *(word("netns"), typed.given("daemonize"), typed.given("new-pid-ns")),
        *(wanted, arguments.limits(words("resource-limit")), chroot.userfaultfd_minor()),
    )


def version_text() -> str:
    """Say which jailer this is compatible with, on the line that programs read, and then what it really is."""
    return f"Jailer v{FIRECRACKER_VERSION}\n\nHibana {__version__}"


def help_text() -> str:
    """Give the whole help."""
    after = "Words after a lone `--` are passed to the program in the jail as they are."
    return f"Jailer v{FIRECRACKER_VERSION}\n\n{args.help_text(FLAGS)}\n{after}"
