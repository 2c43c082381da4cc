"""`shell`: a shell in which the programs and the developers' tools are on the PATH."""

import os
from collections.abc import Sequence

from tools.dev import build, places


def main(arguments: Sequence[str]) -> int:
    """Replace this process by the shell, or by the given command."""
    build.ensure()
    folders = (str(places.BIN), str(places.VENV / "bin"), str(places.ROOT / "tools"), os.environ["PATH"])
    settings = os.environ | {"PATH": os.pathsep.join(folders), "VIRTUAL_ENV": str(places.VENV)}
    command = list(arguments) or [os.environ.get("SHELL", "/bin/sh")]
    os.execvpe(command[0], command, settings)
