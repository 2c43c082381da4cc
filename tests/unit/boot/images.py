"""Kernel images small enough to read in a test: ELFs, bzImages around them, and files that hold any of it."""

import bz2
import gzip
import lzma
import os
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

import lz4.block
from backports import zstd

from hibana.boot.x86.zero_page import BootParams

ENTRY: Final = 0x1000000
HEADERS_SIZE: Final = 0x1000  # segments' contents begin after it
SETUP_SECTS: Final = 3
SETUP_SIZE: Final = (SETUP_SECTS + 1) * 512
DECOMPRESSOR: Final = b"\xeb\xfe" * 0x200  # stands where the code that unpacks the kernel would


class Load(NamedTuple):
    """A PT_LOAD header and its content."""

    paddr: int
    content: bytes


_OPEN: Final[list[int]] = []


def file_of(content: bytes) -> int:
    """Make an anonymous file; its offset is left at the end, where nobody should care."""
    fd = os.memfd_create("image")
    _OPEN.append(fd)
    os.write(fd, content)
    return fd


def close_files() -> None:
    """Close what `file_of` opened: after each test, and within one that makes many."""
    while _OPEN:
        os.close(_OPEN.pop())


def program_header(kind: int, offset: int, paddr: int, filesz: int, memsz: int, align: int = 0x1000) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, 7, offset, 0xFFFFFFFF81000000, paddr, filesz, memsz, align)


def elf_header(entry: int, phnum: int, phoff: int = 64, phentsize: int = 56, data: int = 1) -> bytes:
    ident = b"\x7fELF" + bytes([2, data, 1]) + bytes(9)
    return struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, entry, phoff, 0, 0, 64, phentsize, phnum, 0, 0, 0)


def elf(*loads: Load, entry: int = ENTRY, notes: bytes | None = None, notes_align: int = 4) -> bytes:
    """Build an ELF kernel; each segment's memory is a page larger than its content, like one with a .bss."""
    headers: list[bytes] = []
    body = b""
    for load in loads:
        offset = HEADERS_SIZE + len(body)
        headers.append(program_header(1, offset, load.paddr, len(load.content), len(load.content) + 0x1000))
        body += load.content
    if notes is not None:
        headers.append(program_header(4, HEADERS_SIZE + len(body), 0, len(notes), len(notes), notes_align))
        body += notes
    head = elf_header(entry, len(headers)) + b"".join(headers)
    return head.ljust(HEADERS_SIZE, b"\0") + body


def note(name: bytes, desc: bytes, kind: int, padding: int = 4) -> bytes:
    def padded(content: bytes) -> bytes:
        return content + bytes(-len(content) % padding)

    return struct.pack("<III", len(name), len(desc), kind) + padded(name) + padded(desc)


def pvh_note(entry: int, padding: int = 4) -> bytes:
    return note(b"Xen\0", struct.pack("<I", entry), 18, padding)


def bzimage(payload: bytes, **fields: int) -> bytes:
    """Build a bzImage as `arch/x86/boot` does: setup code, decompressor, payload; `fields` replace header fields."""
    setup = bytearray(SETUP_SIZE)
    params = BootParams(setup)
    params.setup_sects = SETUP_SECTS
    params.boot_flag = 0xAA55
    setup[0x200:0x202] = b"\xeb\x6a"
    params.header = 0x53726448
    params.version = 0x20F
    params.loadflags = 1
    params.code32_start = 0x100000
    params.kernel_alignment = 0x200000
    params.xloadflags = 0x7F
    params.payload_offset = len(DECOMPRESSOR)
    params.payload_length = len(payload)
    struct.pack_into("<QI", setup, 0x258, 0x1000000, 0x3378000)  # pref_address, init_size
    struct.pack_into("<I", setup, 0x268, 0xD7F91C)  # kernel_info_offset, the header's last field
    for name, value in fields.items():
        setattr(params, name, value)
    return bytes(setup) + DECOMPRESSOR + payload


def lz4_legacy(content: bytes) -> bytes:
    """Compress as `lz4 -l` does."""
    blocks = [content[at : at + (8 << 20)] for at in range(0, len(content), 8 << 20)]
    packed = [lz4.block.compress(block, store_size=False) for block in blocks]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(block)) + block for block in packed)


def _with_size(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Append the unpacked size, as the kernel's build does for all but gzip."""
    return lambda content: compress(content) + struct.pack("<I", len(content))


def _xz(content: bytes) -> bytes:
    """Compress as the kernel's build does: CRC32, branches of x86 code made absolute first."""
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 1}]
    return lzma.compress(content, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)


def _zstd(content: bytes) -> bytes:
    """Compress as the `zstd` program does: with a checksum."""
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: 1,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    return zstd.compress(content, options=options)


COMPRESSIONS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda content: gzip.compress(content, 1, mtime=0),
    "bzip2": _with_size(lambda content: bz2.compress(content, 1)),
    "xz": _with_size(_xz),
    "lzma": _with_size(lambda content: lzma.compress(content, lzma.FORMAT_ALONE, preset=1)),
    "lz4": _with_size(lz4_legacy),
    "zstd": _with_size(_zstd),
}
