"""Compile a guest's Python library on the host, with the guest's own interpreter: its start costs no guest cycles."""

import subprocess
from pathlib import Path
from typing import Final

LIBRARY: Final = "usr/lib/python3.11"
_LIBRARIES: Final = "lib/x86_64-linux-gnu"


def compile_library(tree: Path, *options: str) -> None:
    """Compile what is in the library of a guest's tree; `options` are those of compileall."""
    loader = [str(tree / _LIBRARIES / "ld-linux-x86-64.so.2"), "--library-path", str(tree / _LIBRARIES)]
    python = [*loader, str(tree / "usr/bin/python3.11"), "-P", "-S", "-m", "compileall"]
    # The hash of a source is the same everywhere, its time is not; and the path inside must not name this folder.
    settings = ("-q", "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/")
    environment = {"PYTHONHOME": str(tree / "usr"), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([*python, *settings, *options, str(tree / LIBRARY)], env=environment, check=True)
