"""`distclean`: delete everything that devtool made."""

import shutil
from collections.abc import Sequence

from tools.dev import places

_CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")


def main(arguments: Sequence[str]) -> int:
    """Delete build/ and the tools' caches."""
    for made in (places.BUILD, *(places.ROOT / name for name in _CACHES)):
        shutil.rmtree(made, ignore_errors=True)
    for folder in places.PYTHON_FOLDERS:
        for compiled in (places.ROOT / folder).rglob("__pycache__"):
            shutil.rmtree(compiled, ignore_errors=True)
    return 0
