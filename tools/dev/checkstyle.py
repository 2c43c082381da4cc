"""`checkstyle`: formatting, lint and types, without changing a file."""

import subprocess
from collections.abc import Sequence
from typing import Final

from tools.dev import places
from tools.dev.say import Step

_CHECKS: Final = {
    "formatting": ("ruff", "format", "--check", "--quiet", "--diff", *places.PYTHON_FOLDERS),
    "lint": ("ruff", "check", "--quiet", *places.PYTHON_FOLDERS),
    "types": ("mypy", "--no-error-summary"),
}


def main(arguments: Sequence[str]) -> int:
    """Run all checks, and show the findings of each that has any."""
    failed = 0
    for name, (program, *options) in _CHECKS.items():
        with Step(f"checkstyle: {name}"):
            command = [str(places.VENV / "bin" / program), *options]
            done = subprocess.run(command, check=False, cwd=places.ROOT, capture_output=True, text=True)
        if done.returncode:
            failed = 1
            print(done.stdout + done.stderr, end="")
            print(f"checkstyle: {name}: failed")
    return failed
