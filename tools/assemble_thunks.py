"""Assemble the machine code of the soft engine into Python tables; `--check` only compares.

    thunks.S         → thunks.py                what stands between the library and a real CPU
    floats.S         → floats.py                the same for floating point
    vectors.S        → vectors.py               the same for vectors of integers and strings
    fast/UNIT.S      → fast/UNIT_code.py        what makes it fast, unit by unit
    selfcheck.S      → selfcheck_code.py        the guest of the start-up self-check

Needs GNU as. The offsets of offsets.py come in as symbols: `ENV.eflags` is `ENV_EFLAGS` in the source.
"""

import os
import struct
import subprocess
import sys
import tempfile
from typing import Final, NamedTuple

from hibana.engine.soft import offsets

_SOFT: Final = os.path.dirname(os.path.abspath(offsets.__file__))
_PAGE: Final = 4096
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_STRUCTURES: Final = (
    *(offsets.UC, offsets.CPU, offsets.CC, offsets.FLOAT, offsets.SEGMENT, offsets.ENV),
    *(offsets.TLB, offsets.TLBE, offsets.TB, offsets.TCG, offsets.TCGOP),
)
_SYMTAB: Final = 2
_RELA: Final = 4


class Program(NamedTuple):
    """A text section that refers to nothing outside itself, and its labels in order."""

    code: bytes
    labels: dict[str, int]


def main() -> int:
    """Write the tables, or compare them."""
    check = "--check" in sys.argv[1:]
    stale = 0
    units = sorted(name.removesuffix(".S") for name in os.listdir(os.path.join(_SOFT, "fast")) if name.endswith(".S"))
    for source, table, render in (
        ("thunks.S", "thunks.py", render_thunks),
        ("floats.S", "floats.py", render_thunks),
        ("vectors.S", "vectors.py", render_thunks),
        *((f"fast/{unit}.S", f"fast/{unit}_code.py", render_thunks) for unit in units),
        ("selfcheck.S", "selfcheck_code.py", render_guest),
    ):
        text = render(source, assemble(source))
        path = os.path.join(_SOFT, table)
        if not check:
            with open(path, "w") as file:
                file.write(text)
            continue
        with open(path) as file:
            if file.read() != text:
                print(f"{table} does not belong to {source} and offsets.py: run tools/assemble_thunks.py")
                stale = 1
    return stale


def assemble(source: str) -> Program:
    """Run the assembler over the offsets and a source file."""
    with open(os.path.join(_SOFT, source)) as file:
        text = _offsets() + file.read()
    with tempfile.TemporaryDirectory() as work:
        out = os.path.join(work, "out.o")
        subprocess.run(["as", "--64", "-o", out, "-"], input=text, text=True, check=True)
        with open(out, "rb") as binary:
            return _read(binary.read(), source)


def _offsets() -> str:
    lines = []
    for structure in _STRUCTURES:
        for name, value in vars(structure).items():
            if isinstance(value, int):
                lines.append(f".equ {structure.__name__}_{name.upper()}, {value}\n")
    return "".join(lines)


def _read(image: bytes, source: str) -> Program:
    """Take the text section and its symbols out of a relocatable ELF file."""
    at = struct.unpack_from("<Q", image, 40)[0]
    count, names_index = struct.unpack_from("<HH", image, 60)
    sections = [_SECTION.unpack_from(image, at + _SECTION.size * index) for index in range(count)]
    names = sections[names_index][4]
    text = next(i for i, section in enumerate(sections) if _name(image, names + section[0]) == ".text")
    if any(section[1] == _RELA and section[7] == text for section in sections):
        raise SystemExit(f"{source} refers to something outside itself")
    labels: dict[str, int] = {}
    for section in sections:
        if section[1] == _SYMTAB:
            strings = sections[section[6]][4]
            for offset in range(section[4], section[4] + section[5], _SYMBOL.size):
                name, info, _, home, value, _ = _SYMBOL.unpack_from(image, offset)
                if home == text and info & 15 == 0 and name:
                    labels[_name(image, strings + name)] = value
    start, size = sections[text][4], sections[text][5]
    return Program(image[start : start + size], dict(sorted(labels.items(), key=lambda item: (item[1], item[0]))))


def _name(image: bytes, at: int) -> str:
    return image[at : image.index(b"\0", at)].decode()


def render_thunks(source: str, program: Program) -> str:
    """Write the thunks as Python: code up to the cells, and which label is what."""
    labels = dict(program.labels)
    cells, end = labels.pop("cells"), labels.pop("cells_end")
    code = program.code[:cells].rstrip(b"\xcc")
    entries = {name: value for name, value in labels.items() if value < cells}
    places = {name: value - cells for name, value in labels.items() if value >= cells}
    return (
        f'"""The machine code of {source}, and its labels.\n\n'
        'Written by tools/assemble_thunks.py; do not edit.\n"""\n\n'
        "from typing import Final\n\nfrom hibana.engine.soft.assembled import Assembled\n\n"
        "THUNKS: Final = Assembled(\n"
        + f"    code={_code(code)}"
        + f"    entries={_mapping(entries)},\n"
        + f"    cells={_mapping(places)},\n"
        + f"    cells_size={end - cells},\n"
        + f"    cells_at={-(-len(code) // _PAGE) * _PAGE},\n"
        + ")\n"
    )


def render_guest(source: str, program: Program) -> str:
    """Write a guest program as Python."""
    code = "".join(f'    "{line}"\n' for line in _lines(program.code))
    labels = "".join(f'    "{name}": {value},\n' for name, value in program.labels.items())
    return (
        '"""The machine code of the self-check\'s guest, and its labels.\n\n'
        f'Written by tools/assemble_thunks.py out of {source}; do not edit.\n"""\n\n'
        "from typing import Final\n\n"
        f"CODE: Final = bytes.fromhex(\n{code})\n\n"
        f"LABELS: Final = {{\n{labels}}}\n"
    )


def _code(code: bytes) -> str:
    return "bytes.fromhex(\n" + "".join(f'        "{line}"\n' for line in _lines(code)) + "    ),\n"


def _lines(code: bytes) -> list[str]:
    return [code[at : at + 32].hex() for at in range(0, len(code), 32)]


def _mapping(values: dict[str, int]) -> str:
    return "{\n" + "".join(f'        "{name}": {value},\n' for name, value in values.items()) + "    }"


if __name__ == "__main__":
    sys.exit(main())
