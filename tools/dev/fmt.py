"""`fmt`: format the Python files, and mend what the linter can mend by itself."""

import subprocess
from collections.abc import Sequence

from tools.dev import places


def main(arguments: Sequence[str]) -> int:
    """Run ruff over the tree, or over the given paths."""
    ruff = str(places.VENV / "bin/ruff")
    mended = subprocess.run([ruff, "check", "--fix", *arguments], check=False, cwd=places.ROOT).returncode
    return subprocess.run([ruff, "format", *arguments], check=False, cwd=places.ROOT).returncode or mended
