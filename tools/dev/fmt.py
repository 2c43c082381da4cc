"""`fmt`: format the Python files, and mend what the linter can mend by itself."""

import subprocess
from collections.abc import Sequence

from tools.dev import places


def main(arguments: Sequence[str]) -> int:
    """Run ruff over the tree, or over the given paths."""
    ruff = str(places.VENV / "bin/ruff")
    paths = arguments or places.PYTHON_FOLDERS
    mended = subprocess.run([ruff, "check", "--fix", *paths], check=False, cwd=places.ROOT).returncode
    return subprocess.run([ruff, "format", *paths], check=False, cwd=places.ROOT).returncode or mended
