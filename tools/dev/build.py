"""`build`: make the programs in build/bin; with `--standalone` also a folder that needs no Python."""

from collections.abc import Sequence
from typing import Final

from tools.dev import launcher, places, standalone, venv
from tools.dev.say import Failure, say

PROGRAMS: Final = {
    "firecracker": "hibana.cli.firecracker",
    "jailer": "hibana.cli.jailer",
    "cpu-template-helper": "hibana.cli.cpu_template_helper",
    "seccompiler-bin": "hibana.cli.seccompiler",
    "hibana": "hibana.cli.hibana",
}


def main(arguments: Sequence[str]) -> int:
    """Build, and list what there is."""
    if arguments not in ([], ["--standalone"]):
        raise Failure(f"build: {' '.join(arguments)}? There is only --standalone.")
    kinds = ensure()
    for name, kind in kinds.items():
        print(f"{(places.BIN / name).relative_to(places.ROOT)}  {kind}")
    if not any(kind.startswith("native") for kind in kinds.values()):
        say(f"no C compiler, or no libpython to link with: {launcher.HOW_TO_GET_ONE}")
    if arguments:
        folder = standalone.build(PROGRAMS)
        print(f"{folder.relative_to(places.ROOT)}  {standalone.size_mib()} MiB")
    return 0


def ensure() -> dict[str, str]:
    """Bring build/bin up to date; say of which kind each program is."""
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
    return {name: launcher.make(places.BIN / name, module) for name, module in PROGRAMS.items()}
