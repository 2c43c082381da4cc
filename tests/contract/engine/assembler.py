"""Guest programs as text: GNU as and ld at test time, remembered in build/test-cache by the hash of the source."""

import functools
import hashlib
import os
import re
import struct
import subprocess
import tempfile
from typing import Final, NamedTuple

_ROOT: Final = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))
_CACHE: Final = os.path.join(_ROOT, "build", "test-cache")
_ELF_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_PT_LOAD: Final = 1
_SHT_SYMTAB: Final = 2


class Program(NamedTuple):
    """Linked machine code: where it lies, its bytes, and what its labels mean."""

    base: int
    code: bytes
    labels: dict[str, int]


@functools.cache
def assemble(source: str, base: int) -> Program:
    """Translate GNU as source (64-bit mode, Intel syntax) into bytes linked at `base`."""
    key = hashlib.sha256(f"{base:#x}\n{source}".encode()).hexdigest()[:32]
    path = os.path.join(_CACHE, f"{key}.elf")
    if not os.path.exists(path):
        _build(source, base, path)
    with open(path, "rb") as file:
        return _read_elf(file.read(), base)


def _build(source: str, base: int, path: str) -> None:
    os.makedirs(_CACHE, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as work:
        part, whole = os.path.join(work, "part.o"), os.path.join(work, "whole.elf")
        _tool(["as", "--64", "-o", part, "-"], f".intel_syntax noprefix\n.code64\n{source}\n")
        # -N: text is writable and data follows it directly, so the program is one piece.
        _tool(["ld", "-N", "--no-warn-rwx-segments", "-e", hex(base), f"-Ttext={base:#x}", "-o", whole, part], "")
        os.replace(whole, path)  # atomic: several test processes share the cache


def _tool(command: list[str], text: str) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{command[0]}: {done.stderr}\n{_excerpt(text, done.stderr)}")


def _excerpt(text: str, complaint: str) -> str:
    """Show the source around the lines that the assembler complains about."""
    lines = text.splitlines()
    wrong = {int(number) for number in re.findall(r"^\{standard input\}:(\d+):", complaint, re.MULTILINE)}
    near = sorted({n for w in wrong for n in range(w - 2, w + 3) if 1 <= n <= len(lines)})
    return "\n".join(f"{n:5}{'>' if n in wrong else ' '} {lines[n - 1]}" for n in near)


def _read_elf(image: bytes, base: int) -> Program:
    header = _ELF_HEADER.unpack_from(image)
    program_at, section_at, program_count, section_count = header[5], header[6], header[10], header[12]
    code = bytearray()
    for number in range(program_count):
        kind, _, offset, addr, _, size, _, _ = _PROGRAM_HEADER.unpack_from(image, program_at + 56 * number)
        if kind == _PT_LOAD:
            code.extend(bytes(addr - base - len(code)))
            code += image[offset : offset + size]
    return Program(base, bytes(code), _read_labels(image, section_at, section_count))


def _read_labels(image: bytes, section_at: int, section_count: int) -> dict[str, int]:
    sections = [_SECTION_HEADER.unpack_from(image, section_at + 64 * number) for number in range(section_count)]
    labels: dict[str, int] = {}
    for _, kind, _, _, offset, size, link, _, _, _ in sections:
        if kind != _SHT_SYMTAB:
            continue
        names_at = sections[link][4]
        for at in range(offset, offset + size, 24):
            name, _, _, _, value, _ = _SYMBOL.unpack_from(image, at)
            start = names_at + name
            labels[image[start : image.index(b"\0", start)].decode()] = value
    return labels
