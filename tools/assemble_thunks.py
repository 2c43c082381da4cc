"""Assemble src/hibana/engine/soft/thunks.S into the table thunks.py; `--check` only compares.

Needs GNU as. The offsets of offsets.py come in as symbols: `ENV.eflags` is `ENV_EFLAGS` in the source.
"""

import os
import struct
import subprocess
import sys
import tempfile
from typing import Final, NamedTuple

from hibana.engine.soft import offsets

SOFT: Final = os.path.join(os.path.dirname(os.path.abspath(offsets.__file__)))
SOURCE: Final = os.path.join(SOFT, "thunks.S")
TABLE: Final = os.path.join(SOFT, "thunks.py")
_PAGE: Final = 4096
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_SYMTAB: Final = 2
_RELA: Final = 4
_HEAD: Final = '''"""The machine code of thunks.S and its symbols. Written by tools/assemble_thunks.py; do not edit."""

from typing import Final

'''


class Assembled(NamedTuple):
    """The text section up to the cells, and the symbols of both parts."""

    code: bytes
    entries: dict[str, int]
    cells: dict[str, int]
    functions: tuple[str, ...]
    libc_functions: tuple[str, ...]
    cells_size: int


def main() -> int:
    """Write the table, or compare it."""
    table = render(assemble())
    if "--check" in sys.argv[1:]:
        with open(TABLE) as file:
            if file.read() == table:
                return 0
        print("thunks.py does not belong to thunks.S and offsets.py: run tools/assemble_thunks.py")
        return 1
    with open(TABLE, "w") as file:
        file.write(table)
    return 0


def assemble() -> Assembled:
    """Run the assembler over the offsets and the source."""
    with open(SOURCE) as file:
        text = _offsets() + file.read()
    with tempfile.TemporaryDirectory() as work:
        out = os.path.join(work, "thunks.o")
        subprocess.run(["as", "--64", "-o", out, "-"], input=text, text=True, check=True)
        with open(out, "rb") as binary:
            return _read(binary.read())


def _offsets() -> str:
    lines = []
    for structure in (offsets.UC, offsets.CPU, offsets.CC, offsets.SEGMENT, offsets.ENV):
        for name, value in vars(structure).items():
            if isinstance(value, int):
                lines.append(f".equ {structure.__name__}_{name.upper()}, {value}\n")
    return "".join(lines)


def _read(image: bytes) -> Assembled:
    """Take the text section and its symbols out of a relocatable ELF file."""
    at, count, names_index = (struct.unpack_from(code, image, offset)[0] for code, offset in _HEADER)
    sections = [_SECTION.unpack_from(image, at + _SECTION.size * index) for index in range(count)]
    names = sections[names_index][4]
    text = next(i for i, section in enumerate(sections) if _name(image, names + section[0]) == ".text")
    if any(section[1] == _RELA and section[7] == text for section in sections):
        raise SystemExit("thunks.S refers to something outside itself")
    symbols: dict[str, int] = {}
    for section in sections:
        if section[1] == _SYMTAB:
            strings = sections[section[6]][4]
            for offset in range(section[4], section[4] + section[5], _SYMBOL.size):
                name, info, _, home, value, _ = _SYMBOL.unpack_from(image, offset)
                if home == text and info & 15 == 0 and name:
                    symbols[_name(image, strings + name)] = value
    start = symbols["cells"]
    ordered = sorted(symbols, key=lambda name: (symbols[name], name))
    named = [name for name in ordered if name not in ("cells", "functions", "libc_functions", "cells_end")]
    return Assembled(
        code=image[sections[text][4] : sections[text][4] + start].rstrip(b"\xcc"),
        entries={name: symbols[name] for name in named if symbols[name] < start},
        cells={name: symbols[name] - start for name in named if symbols[name] >= start},
        functions=tuple(n for n in named if symbols["functions"] <= symbols[n] < symbols["libc_functions"]),
        libc_functions=tuple(n for n in named if symbols["libc_functions"] <= symbols[n] < symbols["cells_end"]),
        cells_size=symbols["cells_end"] - start,
    )


_HEADER: Final = (("<Q", 40), ("<H", 60), ("<H", 62))


def _name(image: bytes, at: int) -> str:
    return image[at : image.index(b"\0", at)].decode()


def render(thunks: Assembled) -> str:
    """Write the table as Python."""
    code = "".join(f'    "{thunks.code[at : at + 32].hex()}"\n' for at in range(0, len(thunks.code), 32))
    return (
        f"{_HEAD}CODE: Final = bytes.fromhex(\n{code})\n\n"
        f"CELLS_AT: Final = {-(-len(thunks.code) // _PAGE) * _PAGE}\n"
        '"""The cells begin on the page after the code."""\n\n'
        f"CELLS_SIZE: Final = {thunks.cells_size}\n\n"
        f"ENTRIES: Final = {_mapping(thunks.entries)}\n"
        '"""Thunk → offset in CODE. A thunk with the name of a library function replaces it."""\n\n'
        f"CELLS: Final = {_mapping(thunks.cells)}\n"
        '"""Cell → offset from CELLS_AT."""\n\n'
        f"FUNCTIONS: Final = {_names(thunks.functions)}\n"
        '"""Cells that hold the address of the library\'s function of the same name."""\n\n'
        f"LIBC_FUNCTIONS: Final = {_names(thunks.libc_functions)}\n"
        '"""The same for the C library."""\n'
    )


def _mapping(values: dict[str, int]) -> str:
    return "{\n" + "".join(f'    "{name}": {value},\n' for name, value in values.items()) + "}"


def _names(values: tuple[str, ...]) -> str:
    return "(\n" + "".join(f'    "{name}",\n' for name in values) + ")"


if __name__ == "__main__":
    sys.exit(main())
