"""How a module becomes a program: a native launcher around libpython, or a script where that cannot be made.

The native one is `tools/launcher/launcher.c`, compiled for each program; it needs a C compiler and the headers and the
library of the Python that runs this. It is linked with the shared library, or else the static one; both start equally
fast, but a static copy weighs 8 MB.
"""

import hashlib
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tools.dev import places

SOURCE: Final = places.ROOT / "tools/launcher/launcher.c"
HOW_TO_GET_ONE: Final = "apt-get install gcc python3-dev makes native ones"
_FIRST_LINE_LIMIT: Final = 255  # BINPRM_BUF_SIZE - 1; the kernel cuts the rest off
_WARNINGS: Final = ("-Wall", "-Wextra", "-Werror")


class Link(NamedTuple):
    """A way to get libpython into a program."""

    name: str
    flags: Sequence[str]


def make(path: Path, module: str) -> str:
    """Make a program that runs the `entry` of a module, unless it is there; say of which kind it is."""
    for link in links():
        if _make_native(path, module, link):
            return f"native, {link.name}"
    _write_script(path, script(module))
    return "a script"


def _make_native(path: Path, module: str, link: Link) -> bool:
    """Compile a program if it would differ from the one that is there; its stamp says what that was made from."""
    folders = import_folders()
    scratch = path.with_suffix(".new")
    stamp = places.BUILD / "launchers" / path.name
    wanted = _hash(repr((path, module, folders, link)).encode() + SOURCE.read_bytes())
    if path.exists() and stamp.exists() and stamp.read_text() == wanted + _hash(path.read_bytes()):
        return True
    if not compile_launcher(scratch, module, folders, link):
        return False
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(wanted + _hash(scratch.read_bytes()))
    shutil.move(scratch, path)  # the old one may be running
    return True


def import_folders() -> list[str]:
    """Name the folders that a program in this repository imports from, the standard library's first."""
    standard = os.path.dirname(os.__file__)
    return [standard, f"{standard}/lib-dynload", str(places.SOURCE), str(places.RUNTIME)]


def links() -> Iterator[Link]:
    """Find the ways to link with this Python, the better ones first; none if a program cannot be compiled here."""
    headers = Path(_variable("INCLUDEPY"))
    if not (shutil.which("gcc") and (headers / "Python.h").exists()):
        return
    folder, shared = _variable("LIBDIR"), _variable("LDLIBRARY")
    version, static = _variable("LDVERSION"), Path(_variable("LIBPL"))
    include = f"-I{headers}"
    if shared.endswith(".so") and os.path.exists(os.path.join(folder, shared)):
        yield Link(shared, [include, f"-L{folder}", f"-Wl,-rpath,{folder}", f"-lpython{version}"])
    needed = [word for name in ("LIBS", "SYSLIBS", "MODLIBS") for word in _variable(name).split()]
    for library, position in ((f"libpython{version}-pic.a", "-pie"), (f"libpython{version}.a", "-no-pie")):
        if (static / library).exists():
            yield Link(library, [include, position, str(static / library), "-Wl,--export-dynamic", *needed])


def compile_launcher(path: Path, module: str, folders: Sequence[str], link: Link, bundled: bool = False) -> bool:
    """Compile a launcher; False if that is not possible."""
    command = [
        *("gcc", "-O2", "-s", *_WARNINGS, f'-DHIBANA_MODULE="{module}"', f"-DHIBANA_BUNDLED={int(bundled)}"),
        "-DHIBANA_FOLDERS=" + ",".join(f'"{folder}"' for folder in folders),
        *(str(SOURCE), "-o", str(path), *link.flags),
    ]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def script(module: str, python: str = "") -> str:
    """Write the text of a program as a script, for the interpreter of build/venv or another.

    The first line names the interpreter, so that the kernel starts it without a shell in between. `-I -S` keeps the
    user's environment and the `site` module out: the two folders that are needed are put on the path by name.
    """
    python = python or os.path.realpath(places.VENV / "bin/python")
    first = f"#!{python} -IS\n"
    if len(first) > _FIRST_LINE_LIMIT or " " in python:
        # A shell may go where the kernel does not; the second line is nothing to Python.
        first = f'''#!/bin/sh\n''":"; exec "{python}" -IS "$0" "$@"\n'''
    return first + statements(module)


def statements(module: str) -> str:
    """Write what a script does, for `python -IS -c` too."""
    return (
        "import sys\n"
        f"sys.path[:0] = [{str(places.SOURCE)!r}, {str(places.RUNTIME)!r}]\n"
        f"from {module} import entry\n"
        "entry()\n"
    )


def _write_script(path: Path, text: str) -> None:
    """Leave an unchanged program alone: it may be running."""
    if path.exists() and path.read_bytes() == text.encode():
        return
    scratch = path.with_suffix(".new")
    scratch.write_text(text)
    scratch.chmod(0o755)
    shutil.move(scratch, path)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _variable(name: str) -> str:
    return str(sysconfig.get_config_var(name) or "")
