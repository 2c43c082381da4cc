"""The disks of a box besides its system: the checkout, and what the checkout has in build/.

The first is small and made for every start. The second is large and made when something on it has changed. Python and
pytest find files compiled on the host where the host's Python is the box's, as on Debian 12; elsewhere the box compiles
them itself, which takes it some seconds.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.dev import build, guest, places, venv
from tools.dev.say import Failure, Step
from tools.guest.ext4 import fill_image

BOX: Final = places.BUILD / "box"
OUT: Final = places.BUILD / "box-out"
_MADE: Final = BOX / "made.ext4"
_SPARE: Final = 4 << 30
"""Room on each disk; on the host it takes space only when it is used."""

_PYTHON: Final = "/usr/bin/python3.11"
_SITE: Final = "lib/python3.11/site-packages"
_COMPILED: Final = "cpython-311"
_ANY_GLIBC_OF_DEBIAN_12: Final = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(5, 37)))


def made_disk() -> Path:
    """Bring the disk of guest artefacts and Python packages up to date."""
    BOX.mkdir(parents=True, exist_ok=True)
    stamp = BOX / "made.stamp"
    with venv.only_one("box"):
        if not _MADE.exists() or not stamp.exists() or stamp.read_text() != _wanted():
            stamp.unlink(missing_ok=True)
            tree = BOX / "made"
            shutil.rmtree(tree, ignore_errors=True)
            with Step("box: installing its Python packages"):
                _install(tree)
            with Step("box: copying guest artefacts"):
                _link_artefacts(tree / "guest")
                fill_image(tree, _MADE, _SPARE)
            shutil.rmtree(tree)
            stamp.write_text(_wanted())
    return _MADE


def checkout_disk(folder: Path) -> Path:
    """Pack the checkout as it is now: what git tracks, and what it would be asked to track."""
    if sys.implementation.cache_tag == _COMPILED:
        compiler = (sys.executable, "-m", "compileall", "-q", *places.PYTHON_FOLDERS)
        subprocess.run(compiler, check=False, cwd=places.ROOT, stdout=subprocess.DEVNULL)
    image, tree = folder / "checkout.ext4", folder / "tree"
    checkout = tree / "checkout"
    for name in _sources():
        _copy(places.ROOT / name, checkout / name)
    for program, module in build.PROGRAMS.items():
        launcher = checkout / (places.BIN / program).relative_to(places.ROOT)
        launcher.parent.mkdir(parents=True, exist_ok=True)
        launcher.write_text(build.launcher(module, _PYTHON))
        launcher.chmod(0o755)
    if places.TEST_CACHE.exists():
        shutil.copytree(places.TEST_CACHE, checkout / places.TEST_CACHE.relative_to(places.ROOT))
    for empty in (OUT, places.GUEST, places.RUNTIME, places.VENV):
        (checkout / empty.relative_to(places.ROOT)).mkdir()
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)
    fill_image(tree, image, _SPARE)
    shutil.rmtree(tree)
    return image


def _wanted() -> str:
    """Name what should be on the disk of things made: these packages, these artefacts, by this recipe."""
    records = [places.GUEST / product.record for product in (guest.KERNEL_AND_INITRAMFS, guest.ROOTFS)]
    digest = hashlib.sha256()
    for path in (*records, venv.DEV_LOCK, venv.RUNTIME_LOCK, Path(__file__)):
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _install(tree: Path) -> None:
    """Make build/runtime and build/venv for the Python of the box."""
    platforms = [word for tag in _ANY_GLIBC_OF_DEBIAN_12 for word in ("--platform", tag)]
    for lock, target in ((venv.RUNTIME_LOCK, tree / "runtime"), (venv.DEV_LOCK, tree / "venv" / _SITE)):
        venv.pip("--requirement", str(lock), "--target", str(target), "--python-version", "3.11", *platforms)
    (tree / "venv/bin").mkdir()
    for name in ("python", "python3"):
        (tree / "venv/bin" / name).symlink_to(_PYTHON)
    (tree / "venv/pyvenv.cfg").write_text(f"home = {os.path.dirname(_PYTHON)}\n")


def _link_artefacts(folder: Path) -> None:
    folder.mkdir()
    for product in (guest.KERNEL_AND_INITRAMFS, guest.ROOTFS):
        for name in (product.record, *product.artefacts):
            os.link(places.GUEST / name, folder / name)


def _sources() -> Iterator[str]:
    """Name the files of the checkout, and what this machine has compiled of them for the box's Python."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, check=False, cwd=places.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"the box takes the files that git knows, but: {done.stderr.strip()}")
    for name in done.stdout.split("\0")[:-1]:
        path = places.ROOT / name
        if path.is_symlink() or path.is_file():  # may have been deleted, but not yet from the index
            yield name
            for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.{_COMPILED}*.pyc"):
                yield str(compiled.relative_to(places.ROOT))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)
