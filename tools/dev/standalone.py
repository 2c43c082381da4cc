"""`build --standalone`: build/standalone, a folder that runs where there is no Python, be it an empty chroot.

`bin` holds the programs, static doors of `tools/launcher/bundle.c`; `lib` their launchers, the loader and the libraries
of this machine, the standard library and the packages, compiled and without sources.
"""

import os
import py_compile
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tools.dev import launcher, places
from tools.dev.say import Failure, Step

FOLDER: Final = places.BUILD / "standalone"
_DOOR: Final = places.ROOT / "tools/launcher/bundle.c"
_FOLDERS: Final = ("../lib/python", "../lib/python/lib-dynload", "../lib/site")

_NOT_NEEDED: Final = {
    *(
        "__pycache__",
        "lib-dynload",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "turtledemo",
    ),
    *(
        "turtle.py",
        "lib2to3",
        "ensurepip",
        "distutils",
        "pydoc_data",
        "pydoc.py",
        "venv",
        "unittest",
        "sqlite3",
        "curses",
    ),
    *("dbm", "msilib", "wsgiref", "xmlrpc", "testing"),
}
_EXTENSIONS_NOT_NEEDED: Final = re.compile(
    r"_?(test|xx|ctypes_test|tkinter|curses|readline|dbm|gdbm|sqlite3|ssl|hashlib|crypt|nis|oss)"
)
_LIBRARY: Final = re.compile(r"(?:=> )?(/\S+) \(0x")


def build(folder: Path, programs: Mapping[str, str]) -> None:
    """Make such a folder, anew if it is there. Raises Failure where programs cannot be compiled."""
    link = next(launcher.links(), None)
    if link is None:
        raise Failure(f"a standalone folder needs a compiler and libpython: {launcher.HOW_TO_GET_ONE}")
    with Step(f"standalone folder: compiling {len(programs)} programs and the libraries"):
        scratch = folder.with_suffix(".new")
        shutil.rmtree(scratch, ignore_errors=True)
        for part in ("bin", "lib/python/lib-dynload", "lib/site"):
            (scratch / part).mkdir(parents=True)
        _copy_python(scratch / "lib")
        for name, module in programs.items():
            if not launcher.compile_launcher(scratch / "lib" / name, module, _FOLDERS, link, bundled=True):
                raise Failure(f"the launcher of {name} cannot be compiled")
        loader = _copy_libraries(scratch / "lib")
        for name in programs:
            _compile_door(scratch / "bin" / name, loader)
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)


def _copy_python(lib: Path) -> None:
    standard, extensions, source, runtime = map(Path, launcher.import_folders())
    _compile_tree(standard, lib / "python")
    for extension in sorted(extensions.glob("*.so")):
        if not _EXTENSIONS_NOT_NEEDED.match(extension.name):
            shutil.copy(extension, lib / "python/lib-dynload")
    _compile_tree(source, lib / "site")
    _compile_tree(runtime, lib / "site")


def _compile_tree(source: Path, target: Path) -> None:
    """Compile a folder of modules, and copy what is native in it."""
    for path in sorted(source.iterdir()):
        if path.name in _NOT_NEEDED or path.suffix in (".dist-info", ".a", ".h") or path.name.startswith("config-"):
            continue
        if path.is_dir():
            _compile_tree(path, target / path.name)
        elif path.suffix == ".py":
            code = target / f"{path.name}c"
            py_compile.compile(str(path), str(code), dfile=path.name, doraise=True, optimize=0)
        elif ".so" in path.suffixes:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def _copy_libraries(lib: Path) -> str:
    """Copy every library that anything here needs; give the name of the loader."""
    loader = ""
    native = [path for path in lib.rglob("*") if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"]
    for library in _libraries_of(native):
        shutil.copy(library, lib / library.name)
        if library.name.startswith("ld-linux"):
            loader = library.name
    return loader


def _libraries_of(files: Iterable[Path]) -> Iterator[Path]:
    """Ask the loader which libraries it would take, under the names that it looks for."""
    seen: set[str] = set()
    for file in files:
        said = subprocess.run(["ldd", str(file)], check=False, capture_output=True, text=True).stdout
        for path in _LIBRARY.findall(said):
            if path not in seen:
                seen.add(path)
                yield Path(path)


def _compile_door(path: Path, loader: str) -> None:
    command = ["gcc", "-O2", "-s", "-static", "-Wall", f'-DHIBANA_LOADER="{loader}"', str(_DOOR), "-o", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"{_DOOR.name} cannot be compiled:\n{done.stderr}")


def size_mib(folder: Path) -> int:
    """Measure a folder."""
    return sum(os.path.getsize(path) for path in folder.rglob("*") if path.is_file()) >> 20
