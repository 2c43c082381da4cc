"""`build`: make the programs in build/bin."""

from collections.abc import Sequence
from typing import Final

from tools.dev import launcher, places, venv
from tools.dev.say import say

PROGRAMS: Final = {
    "firecracker": "hibana.cli.firecracker",
    "jailer": "hibana.cli.jailer",
}


def main(arguments: Sequence[str]) -> int:
    """Build, and list what there is."""
    kinds = ensure()
    for name, kind in kinds.items():
        print(f"{(places.BIN / name).relative_to(places.ROOT)}  {kind}")
    if not any(kind.startswith("native") for kind in kinds.values()):
        say(f"no C compiler, or no libpython to link with: {launcher.HOW_TO_GET_ONE}")
    return 0


def ensure() -> dict[str, str]:
    """Bring build/bin up to date; say of which kind each program is."""
    venv.ensure_runtime()
    places.BIN.mkdir(parents=True, exist_ok=True)
    return {name: launcher.make(places.BIN / name, module) for name, module in PROGRAMS.items()}
