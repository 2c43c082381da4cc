"""`build`: make the programs in build/bin; with `--standalone` also a folder that needs no Python."""

from collections.abc import Sequence
from typing import Final

from tools.dev import launcher, places, standalone, venv
from tools.dev.say import Failure, say

PROGRAMS: Final = {
    "firecracker": "hibana.cli.firecracker",
    "jailer": "hibana.cli.jailer",
    "hibana": "hibana.cli.hibana",
}


def main(arguments: Sequence[str]) -> int:
    """Build, and list what there is."""
    if arguments not in ([], ["--standalone"]):
        raise Failure(f"build: {' '.join(arguments)}? There is only --standalone.")
    kinds = ensure()
    for name, kind in kinds.items():
        print(f"{(places.BIN / name).relative_to(places.ROOT)}  {kind}")
    if not any(kind.startswith("native") for kind in kinds.values()):
        say(f"no C compiler, or no libpython to link with: {launcher.HOW_TO_GET_ONE}")
    if arguments:
        standalone.build(standalone.FOLDER, PROGRAMS)
        print(f"{standalone.FOLDER.relative_to(places.ROOT)}  {standalone.size_mib(standalone.FOLDER)} MiB")
    return 0


def ensure() -> dict[str, str]:
    """Bring build/bin up to date; say of which kind each program is."""
    venv.ensure_runtime()
    places.BIN.mkdir(parents=True, exist_ok=True)
    return {name: launcher.make(places.BIN / name, module) for name, module in PROGRAMS.items()}
