"""The disk of a box with what a checkout has in build/: guest artefacts, and Python packages for the Python of the box.

It is large and seldom changes, so it is made only when something on it has changed.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

from tools.dev import guest, places, venv
from tools.dev.say import Step
from tools.guest.ext4 import fill_image

PYTHON: Final = "/usr/bin/python3.11"
"""The Python of the box, and of Debian 12."""
SPARE: Final = 4 << 30
"""Room on a disk; on the host it takes space only when it is used."""

_IMAGE: Final = places.BOX / "made.ext4"
_SITE: Final = "lib/python3.11/site-packages"
_PLATFORMS: Final = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(5, 37)))
"""Wheels that work with the C library of Debian 12; pip knows no word for "this version or older"."""
_PRODUCTS: Final = (guest.KERNEL_AND_INITRAMFS, guest.ROOTFS)


def made_disk() -> Path:
    """Bring the disk up to date."""
    places.BOX.mkdir(parents=True, exist_ok=True)
    stamp = places.BOX / "made.stamp"
    with venv.only_one("box"):
        if not _IMAGE.exists() or not stamp.exists() or stamp.read_text() != _wanted():
            stamp.unlink(missing_ok=True)
            _make(places.BOX / "made")
            stamp.write_text(_wanted())
    return _IMAGE


def _wanted() -> str:
    """Name what should be on the disk: these packages, these artefacts, by this recipe."""
    records = [places.GUEST / product.record for product in _PRODUCTS]
    digest = hashlib.sha256()
    for path in (*records, venv.DEV_LOCK, venv.RUNTIME_LOCK, Path(__file__)):
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _make(tree: Path) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    with Step("box: installing its Python packages"):
        _install(tree)
    with Step("box: copying guest artefacts"):
        (tree / "guest").mkdir()
        for product in _PRODUCTS:
            for name in (product.record, *product.artefacts):
                os.link(places.GUEST / name, tree / "guest" / name)
        fill_image(tree, _IMAGE, SPARE)
    shutil.rmtree(tree)


def _install(tree: Path) -> None:
    """Make build/runtime and build/venv."""
    platforms = [word for tag in _PLATFORMS for word in ("--platform", tag)]
    for lock, target in ((venv.RUNTIME_LOCK, tree / "runtime"), (venv.DEV_LOCK, tree / "venv" / _SITE)):
        venv.pip("--requirement", str(lock), "--target", str(target), "--python-version", "3.11", *platforms)
    (tree / "venv/bin").mkdir()
    for name in ("python", "python3"):
        (tree / "venv/bin" / name).symlink_to(PYTHON)
    (tree / "venv/pyvenv.cfg").write_text(f"home = {os.path.dirname(PYTHON)}\n")
