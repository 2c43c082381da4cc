"""The disk of a box with the checkout as it is now; small, and made for every start.

Python and pytest find there what this machine has compiled, if its Python is the box's, as on Debian 12. Elsewhere the
box compiles for itself, which takes it some seconds.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.box.made import PYTHON, SPARE
from tools.dev import build, launcher, places
from tools.dev.say import Failure
from tools.guest.ext4 import fill_image

_COMPILED: Final = "cpython-311"


def checkout_disk(folder: Path) -> Path:
    """Pack what git tracks, and what it would be asked to track; the launchers and caches that go with it."""
    image, tree = folder / "checkout.ext4", folder / "tree"
    checkout = tree / "checkout"
    if sys.implementation.cache_tag == _COMPILED:
        compiler = (sys.executable, "-m", "compileall", "-q", *places.PYTHON_FOLDERS)
        subprocess.run(compiler, check=False, cwd=places.ROOT, stdout=subprocess.DEVNULL)
    for name in sources(places.ROOT):
        target = checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(places.ROOT / name, target, follow_symlinks=False)
    _add_build(checkout)
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)
    fill_image(tree, image, SPARE)
    shutil.rmtree(tree)
    return image


def sources(root: Path) -> Iterator[str]:
    """Name the files of a checkout, and what has been compiled of them for the Python of the box."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, check=False, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"the box takes the files that git knows, but: {done.stderr.strip()}")
    for name in done.stdout.split("\0")[:-1]:
        path = root / name
        if path.is_symlink() or path.is_file():  # it may have been deleted, but not yet from the index
            yield name
            for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.{_COMPILED}*.pyc"):
                yield str(compiled.relative_to(root))


def _add_build(checkout: Path) -> None:
    """Make build/: programs for the Python of the box, what is to go along, and places for the other disk."""
    for program, module in build.PROGRAMS.items():
        path = checkout / (places.BIN / program).relative_to(places.ROOT)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(launcher.script(module, PYTHON))
        path.chmod(0o755)
    for taken in (places.BOX_IN, places.TEST_CACHE):
        if taken.exists():
            shutil.copytree(taken, checkout / taken.relative_to(places.ROOT))
    for empty in (places.BOX_OUT, places.GUEST, places.RUNTIME, places.VENV):
        (checkout / empty.relative_to(places.ROOT)).mkdir()
