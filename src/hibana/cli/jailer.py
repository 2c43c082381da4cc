"""The `jailer` program: locks a VMM up and becomes it.

`--exec-file` may be any program: it is copied into the jail and executed there. Our own `firecracker` would find no
interpreter in that empty room, so it is in memory before the door closes, and the jailer's process goes on as the VMM.
"""

import gc
import os
import sys
from typing import Final

from hibana.cli import exits, flags, jailer_flags, preload
from hibana.errors import Panic, VmmError
from hibana.jail import identity, privileges, steps
from hibana.jail.steps import Clock
from hibana.vmm.engines import wanted_engine

_STDOUT: Final = 1
_STDERR: Final = 2
_OWN: Final = "firecracker"


def main(argv: list[str], program: str) -> list[str]:
    """Jail the process, and give the command line with which the VMM goes on. Raises VmmError.

    Does not return at all if another program than our own is executed.
    """
    privileges.close_inherited_files()
    privileges.forget_environment()
    typed = jailer_flags.parse(argv)
    if typed.given("help") or typed.given("version"):
        exits.say(_STDOUT, jailer_flags.help_text() if typed.given("help") else jailer_flags.version_text())
        exits.at_once(exits.OK)
    clock = Clock()
    jail = jailer_flags.read(typed)
    memory = identity.read_memory_map()
    ours = is_ours(jail.executable, program)
    if ours:
        preload.everything(_engine(typed.extra))
    steps.close_up(jail, clock)
    words = steps.command(jail, clock, typed.extra)
    if not ours:
        steps.execute(jail, words)
    preload.stop_looking()
    steps.continue_as(jail, words, memory)
    return words


def entry() -> None:
    """Run the program; what it becomes ends the process."""
    gc.disable()  # as in firecracker.py
    try:
        words = main(sys.argv[1:], sys.argv[0])
    except Panic as error:
        exits.say(_STDERR, str(error))
        os.abort()
    except VmmError as error:
        exits.say(_STDERR, f"{error}\nError: {error}")
        exits.at_once(error.exit_code)
    from hibana.cli import firecracker

    sys.argv = words
    firecracker.entry()


def is_ours(executable: str, jailer: str) -> bool:
    """Tell whether a program is the `firecracker` beside the jailer, or a copy of it."""
    own = os.path.join(os.path.dirname(os.path.realpath(jailer)), _OWN)
    try:
        if os.path.samefile(own, executable):
            return True
        if os.path.getsize(own) != os.path.getsize(executable):
            return False
        with open(own, "rb") as one, open(executable, "rb") as other:
            return one.read() == other.read()
    except OSError:
        return False


def _engine(extra: list[str]) -> str:
    """Look up which engine the VMM's own words ask for; whether they make sense, the VMM will say."""
    try:
        return wanted_engine(flags.parse(extra).engine)
    except VmmError:
        return wanted_engine(None)
