"""The jail from the outside to the inside, in the reference's order (operations.md §1.3)."""

import os
import time
from typing import NamedTuple

from hibana.errors import ExecError, os_text
from hibana.jail import chroot, cpu_files, identity, namespaces, privileges
from hibana.jail.arguments import Limits
from hibana.jail.cgroup import Cgroup
from hibana.jail.chroot import Owner
from hibana.jail.identity import MemoryMap


class Jail(NamedTuple):
    """Everything that is checked before anything is created."""

    id: str
    executable: str
    base: str
    owner: Owner
    netns: str | None
    daemonize: bool
    new_pid_ns: bool
    cgroup: Cgroup | None
    limits: Limits
    userfaultfd: int | None

    @property
    def program(self) -> str:
        """The name of the program, which also names the folder of its jails."""
        return os.path.basename(self.executable)


class Clock:
    """What starting the VMM has cost so far: the VMM reports it in its metrics."""

    def __init__(self) -> None:
        self.started_us = time.monotonic_ns() // 1000
        self._began_us = privileges.processor_time_us()
        self.parents_us = 0
        """Processor time of the processes before the jailed one."""

    def stop(self) -> None:
        """Note what the jailer itself has used."""
        self.parents_us = privileges.processor_time_us() - self._began_us


def close_up(jail: Jail, clock: Clock) -> None:
    """Build the jail around the calling process, which goes on inside, still as root. Raises VmmError."""
    root = chroot.make_root(jail.base, jail.program, jail.id)
    chroot.copy_program(jail.executable, root, jail.owner)
    if jail.netns is not None:
        namespaces.join_network(jail.netns)
    privileges.limit_resources(jail.limits)
    if jail.cgroup is not None:
        jail.cgroup.enter(os.getpid())
    null = chroot.open_null() if jail.daemonize else None
    if os.uname().machine == "aarch64":
        cpu_files.copy(root, jail.owner)
    namespaces.enter_root(root)
    chroot.furnish(jail.owner, jail.userfaultfd)
    clock.stop()
    if null is not None:
        clock.parents_us += privileges.become_daemon(null)
    _announce(jail)


def _announce(jail: Jail) -> None:
    """Write down which process is the jailed one: this one, or a child that is the first in a PID namespace."""
    if not jail.new_pid_ns:
        privileges.write_pid_file(jail.program, os.getpid())
        return
    leads_session = not jail.daemonize and os.getsid(0) == os.getpid()
    if child := namespaces.fork_into_new_pids():
        privileges.write_pid_file(jail.program, child)
        os._exit(0)
    if leads_session:
        os.setsid()  # the end of a session's leader hangs up on everybody in it


def command(jail: Jail, clock: Clock, extra: list[str]) -> list[str]:
    """Write the command line of the jailed program."""
    return [
        f"/{jail.program}",
        *("--id", jail.id),
        *("--start-time-us", str(clock.started_us)),
        *("--start-time-cpu-us", str(privileges.processor_time_us())),
        *("--parent-cpu-time-us", str(clock.parents_us)),
        *extra,
    ]


def execute(jail: Jail, words: list[str]) -> None:
    """Become the jailed program, as its user and without environment. Raises ExecError."""
    privileges.become(jail.owner)
    try:
        os.execve(words[0], words, {})
    except OSError as error:
        raise ExecError(cause=os_text(error)) from error


def continue_as(jail: Jail, words: list[str], memory: MemoryMap) -> None:
    """Be the jailed program from now on, as its user, in this very process."""
    identity.appear_as(words, memory)
    privileges.become(jail.owner)
