"""Find where libunicorn refers to the functions that thunks replace, and write slots.py; `--check` only compares."""

import os
import sys
from typing import Final

from hibana.engine.soft import floats, library, relocations, thunks, vectors
from hibana.engine.soft.fast import switch
from hibana.engine.soft.offsets import BUILD_ID

TABLE: Final = os.path.join(os.path.dirname(os.path.abspath(library.__file__)), "slots.py")
_HEAD: Final = '''"""Relocation slots in the library of one build-id. Written by tools/find_slots.py; do not edit."""

from typing import Final

'''


def main() -> int:
    """Write the table, or compare it."""
    if reason := library.missing():
        print(reason)
        return 1
    table = render()
    if "--check" in sys.argv[1:]:
        with open(TABLE) as file:
            if file.read() == table:
                return 0
        print("slots.py does not belong to thunks.py and the library: run tools/find_slots.py")
        return 1
    with open(TABLE, "w") as file:
        file.write(table)
    return 0


def render() -> str:
    """Write the slots of every thunk that has the name of a library function."""
    path = library.find()
    assert path is not None
    own = (*thunks.THUNKS.entries, *floats.THUNKS.entries, *vectors.THUNKS.entries)
    names = [*own, *(name for unit in switch.UNITS.values() for name in unit.thunks.entries)]
    slots = relocations.find(path, names)
    lines = "".join(f'    "{name}": {places},\n' for name, places in slots.items() if places)
    return (
        f'{_HEAD}BUILD_ID: Final = "{BUILD_ID}"\n\n'
        f"SLOTS: Final[dict[str, tuple[tuple[int, int], ...]]] = {{\n{lines}}}\n"
        '"""Function → (offset from the load address, relocation type)."""\n'
    )


if __name__ == "__main__":
    sys.exit(main())
