"""Keep build/venv and build/runtime what the lock files say.

build/venv is for people: linters, tests, and the programs' own dependencies. build/runtime holds those dependencies
alone, for build/bin: a package that only developers need must not be importable there (msgspec imports
typing_extensions where it finds it, and start-up gets 7 ms slower).

Runs on the host's own Python, before anything is installed: standard library only.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.dev import places
from tools.dev.say import Failure, Step, say

DEV_LOCK: Final = places.ROOT / "requirements-dev.lock"
RUNTIME_LOCK: Final = places.ROOT / "requirements.lock"


def ensure_venv() -> None:
    """Make build/venv, or bring it up to date."""
    with only_one("venv"):
        if _stamp(places.VENV) == _wanted(DEV_LOCK):
            return
        with Step("Python packages for development: installing"):
            if _python_of(places.VENV) != sys.version:
                shutil.rmtree(places.VENV, ignore_errors=True)
                venv.create(places.VENV, with_pip=True, symlinks=True)
            pip("--requirement", str(DEV_LOCK))
            _write_stamp(places.VENV, DEV_LOCK)


def ensure_runtime() -> None:
    """Make build/runtime, or bring it up to date."""
    with only_one("runtime"):
        if _stamp(places.RUNTIME) == _wanted(RUNTIME_LOCK):
            return
        with Step("Python packages of the programs: installing"):
            shutil.rmtree(places.RUNTIME, ignore_errors=True)
            pip("--requirement", str(RUNTIME_LOCK), "--target", str(places.RUNTIME))
            _write_stamp(places.RUNTIME, RUNTIME_LOCK)


def pip(*arguments: str) -> None:
    """Install what a lock file lists: `arguments` begin with "--requirement" and the file."""
    pip = [str(places.VENV / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--require-hashes", "--no-deps", "--only-binary", ":all:", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Failure(f"pip cannot install what {arguments[1]} lists:\n{done.stderr.strip()}")


def _wanted(lock: Path) -> str:
    """Name what should be there: these packages, for this Python."""
    return hashlib.sha256(lock.read_bytes() + sys.version.encode() + sysconfig.get_platform().encode()).hexdigest()


def _stamp(folder: Path) -> str:
    try:
        return (folder / ".stamp").read_text()
    except OSError:
        return ""


def _write_stamp(folder: Path, lock: Path) -> None:
    (folder / ".stamp").write_text(_wanted(lock))


def _python_of(folder: Path) -> str:
    """Ask an environment which Python it is; empty when it does not work (any more)."""
    try:
        command = [str(folder / "bin/python"), "-c", "import sys, pip; print(sys.version, end='')"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


class only_one:  # noqa: N801 - reads as a statement
    """Let two devtools that run at once take turns."""

    def __init__(self, what: str) -> None:
        places.BUILD.mkdir(exist_ok=True)
        self._path = places.BUILD / f".{what}.lock"

    def __enter__(self) -> None:
        self._file = open(self._path, "w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def main(arguments: Sequence[str]) -> int:
    """Make build/venv; the shell part of devtool calls this before every command."""
    try:
        ensure_venv()
    except Failure as failure:
        say(f"devtool: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
