"""Where things are; every path hangs on the repository's root."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build"
BIN: Final = BUILD / "bin"
BENCH: Final = BUILD / "bench"
BOX: Final = BUILD / "box"
BOX_IN: Final = BUILD / "box-in"
BOX_OUT: Final = BUILD / "box-out"
GUEST: Final = BUILD / "guest"
VENV: Final = BUILD / "venv"
TEST_CACHE: Final = BUILD / "test-cache"
RUNTIME: Final = BUILD / "runtime"
SOURCE: Final = ROOT / "src"
PYTHON_FOLDERS: Final = ("src", "tests", "tools")
FIRECRACKER: Final = BIN / "firecracker"
