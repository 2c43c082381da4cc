"""`lock`: write requirements.lock (what the programs need) and requirements-dev.lock (that, and what developers need).

pyproject.toml names packages; the lock files pin versions and the hashes of every wheel, for every supported Python.
"""

import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

from tools.dev import places
from tools.dev.say import Failure, Step

_HEADER = "# Written by `tools/devtool lock` from pyproject.toml.\n"


def main(arguments: Sequence[str]) -> int:
    """Resolve both, the second within the first."""
    project = tomllib.loads((places.ROOT / "pyproject.toml").read_text())
    with tempfile.TemporaryDirectory() as folder, Step("lock files: resolving"):
        compiler = _install_compiler(Path(folder))
        runtime = places.ROOT / "requirements.lock"
        runtime.write_text(_compile(compiler, Path(folder), project["project"]["dependencies"]))
        wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
        developing = _compile(compiler, Path(folder), wanted, "--constraint", str(runtime))
        (places.ROOT / "requirements-dev.lock").write_text(developing)
    return 0


def _install_compiler(folder: Path) -> str:
    venv.create(folder / "venv", with_pip=True)
    _run(str(folder / "venv/bin/pip"), "--quiet", "install", "pip-tools")
    return str(folder / "venv/bin/pip-compile")


def _compile(compiler: str, folder: Path, wanted: Sequence[str], *options: str) -> str:
    source, target = folder / "wanted.in", folder / "wanted.lock"
    source.write_text("\n".join(wanted) + "\n")
    target.unlink(missing_ok=True)
    plain = ("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--strip-extras")
    _run(compiler, "--quiet", "--generate-hashes", "--allow-unsafe", *plain, *options, "-o", str(target), str(source))
    return _HEADER + target.read_text().replace(str(folder), "")


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failure(f"{' '.join(command)}:\n{done.stderr}")
