"""`build`: make the programs in build/bin.

A program is a launcher: a Python script whose first line names the interpreter, so that the kernel starts it without a
shell in between and the process is called what the program is called. `-I -S` keeps the user's environment and the
`site` module out: the two folders that are needed are put on the path by name.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.dev import places, venv

PROGRAMS: Final = {
    "firecracker": "hibana.cli.firecracker",
    "jailer": "hibana.cli.jailer",
    "cpu-template-helper": "hibana.cli.cpu_template_helper",
    "seccompiler-bin": "hibana.cli.seccompiler",
}
_FIRST_LINE_LIMIT: Final = 255  # BINPRM_BUF_SIZE - 1; the kernel cuts the rest off


def main(arguments: Sequence[str]) -> int:
    """Build, and list what there is."""
    ensure()
    for name in PROGRAMS:
        print((places.BIN / name).relative_to(places.ROOT))
    return 0


def ensure() -> None:
    """Bring build/bin up to date."""
    venv.ensure_runtime()
    places.BIN.mkdir(parents=True, exist_ok=True)
    for name, module in PROGRAMS.items():
        _write(places.BIN / name, launcher(module))


def launcher(module: str, python: str = "") -> str:
    """Write the text of a program whose `entry` is in `module`; the interpreter is that of build/venv, or another."""
    python = python or os.path.realpath(places.VENV / "bin/python")
    first = f"#!{python} -IS\n"
    if len(first) > _FIRST_LINE_LIMIT or " " in python:
        # A shell may go where the kernel does not; the second line is nothing to Python.
        first = f'''#!/bin/sh\n''":"; exec "{python}" -IS "$0" "$@"\n'''
    return (
        f"{first}"
        "import sys\n"
        f"sys.path[:0] = [{str(places.SOURCE)!r}, {str(places.RUNTIME)!r}]\n"
        f"from {module} import entry\n"
        "entry()\n"
    )


def _write(path: Path, text: str) -> None:
    """Leave an unchanged program alone: it may be running."""
    if path.exists() and path.read_text() == text:
        return
    scratch = path.with_suffix(".new")
    scratch.write_text(text)
    scratch.chmod(0o755)
    shutil.move(scratch, path)
