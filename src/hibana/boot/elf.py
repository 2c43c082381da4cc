"""ELF kernels: program headers and notes only, and segments straight into guest memory.

A `vmlinux` lies in a file; the ELF inside a bzImage comes out of a decompressor piece by piece. Both are described by
the same headers; the difference is only how the bytes of a segment get to their place.
"""

import os
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final, NamedTuple

from hibana.boot.entry import BootProtocol, Entry
from hibana.errors import BadKernelImage, GuestFault
from hibana.memory.guest import GuestMemory
from hibana.memory.layout import HIMEM_START
from hibana.units import MIB, align_up

MAGIC: Final = b"\x7fELF"

_HEADER: Final = Struct("<4sxB18xQQ14xHH6x")  # e_ident[0:4], EI_DATA, e_entry, e_phoff, e_phentsize, e_phnum
_PROGRAM_HEADER: Final = Struct("<I4xQ8xQQ8xQ")  # p_type, p_offset, p_paddr, p_filesz, p_align
_NOTE_HEADER: Final = Struct("<III")  # n_namesz, n_descsz, n_type

_LITTLE_ENDIAN: Final = 1
_PT_LOAD: Final = 1
_PT_NOTE: Final = 4
_XEN_ELFNOTE_PHYS32_ENTRY: Final = 18
_XEN: Final = b"Xen\0"
_MOST_SEGMENTS: Final = 64  # real kernels have five
_LARGEST_NOTES: Final = MIB  # real kernels have some hundred bytes


class Segment(NamedTuple):
    """A range of the image, and where its bytes belong in guest memory."""

    offset: int
    size: int
    paddr: int
    align: int


class Image(NamedTuple):
    """What the headers of an ELF say."""

    entry: int
    segments: list[Segment]
    notes: Segment | None


def load_file(memory: GuestMemory, fd: int, head: bytes) -> Entry:
    """Load an ELF kernel from a file: each segment is one read into its window of guest memory."""
    image = _parse(head, lambda offset, size: os.pread(fd, size, offset), memory.size)
    try:
        for segment in image.segments:
            memory.fill(segment.paddr, segment.size, fd, segment.offset)
    except (GuestFault, OSError, EOFError) as error:
        raise BadKernelImage(cause="Unable to read kernel image") from error
    pvh_entry = _pvh_entry(fd, image.notes) if image.notes else None
    if pvh_entry is not None:
        return Entry(BootProtocol.PVH, pvh_entry)
    return Entry(BootProtocol.LINUX_64, image.entry)


def load_pieces(memory: GuestMemory, pieces: Iterator[bytes]) -> int | None:
    """Load an ELF kernel that arrives in pieces, headers in the first, and return its 64-bit entry point.

    Returns None, with nothing written, when it is no ELF.
    """
    image: Image | None = None
    position = 0
    for piece in pieces:
        if image is None:
            if not piece.startswith(MAGIC):
                return None
            image = _parse(piece, _reader(piece), memory.size)
        _place(memory, image.segments, position, memoryview(piece))
        position += len(piece)
        if position > memory.size:
            # The kernel's own decompressor works inside RAM: what does not fit there is no kernel, or a bomb.
            raise BadKernelImage(cause="Unable to read bzImage compressed kernel: larger than the guest's memory")
    if image is None:
        return None
    if any(segment.offset + segment.size > position for segment in image.segments):
        raise BadKernelImage(cause="Unable to read kernel image")
    return image.entry


def _place(memory: GuestMemory, segments: list[Segment], position: int, piece: memoryview) -> None:
    """Copy the parts of segments that lie in this piece of the image."""
    for segment in segments:
        start = max(position, segment.offset)
        end = min(position + len(piece), segment.offset + segment.size)
        if start < end:
            try:
                memory.write(segment.paddr + start - segment.offset, piece[start - position : end - position])
            except GuestFault as error:
                raise BadKernelImage(cause="Unable to read kernel image") from error


def _reader(content: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: content[offset : offset + size]


def _parse(head: bytes, read: Callable[[int, int], bytes], memory_size: int) -> Image:
    """Check the headers in the reference's order and list what is to be loaded."""
    if len(head) < _HEADER.size:
        raise BadKernelImage(cause="Unable to read elf header")
    magic, byte_order, entry, phoff, phentsize, phnum = _HEADER.unpack_from(head)
    if magic != MAGIC:
        raise BadKernelImage(cause="Invalid Elf magic number")
    if byte_order != _LITTLE_ENDIAN:
        raise BadKernelImage(cause="Trying to load big-endian binary on little-endian machine")
    if phentsize != _PROGRAM_HEADER.size:
        raise BadKernelImage(cause="Invalid program header size")
    if phoff < _HEADER.size:
        raise BadKernelImage(cause="Invalid program header offset")
    if entry < HIMEM_START:
        raise BadKernelImage(cause="Invalid entry address")
    return _list_segments(entry, _read_program_headers(read, phoff, phnum * phentsize), memory_size)


def _read_program_headers(read: Callable[[int, int], bytes], phoff: int, size: int) -> bytes:
    try:
        table = read(phoff, size)
    except (OSError, OverflowError) as error:
        raise BadKernelImage(cause="Unable to read program header") from error
    if len(table) < size:
        raise BadKernelImage(cause="Unable to read program header")
    return table


def _list_segments(entry: int, table: bytes, memory_size: int) -> Image:
    segments: list[Segment] = []
    notes: Segment | None = None
    for kind, offset, paddr, size, align in _PROGRAM_HEADER.iter_unpack(table):
        if kind == _PT_LOAD and size:
            segments.append(Segment(offset, size, paddr, align))
        elif kind == _PT_NOTE:
            notes = Segment(offset, size, paddr, align)  # the last one decides
    # Segments that together exceed RAM must overlap: refuse them rather than copy for minutes. The same goes for
    # a heap of tiny ones: each would be looked at for each of the pieces, a million perhaps, of a packed kernel.
    if len(segments) > _MOST_SEGMENTS or sum(segment.size for segment in segments) > memory_size:
        raise BadKernelImage(cause="Unable to read kernel image")
    return Image(entry, segments, notes)


def _pvh_entry(fd: int, segment: Segment) -> int | None:
    """Find the 32-bit entry point that a kernel built for PVH names in its notes (Xen's pvh.pandoc)."""
    notes = _read_notes(fd, segment)
    padding = 8 if segment.align == 8 else 4
    at = 0
    while at + _NOTE_HEADER.size <= len(notes):
        name_size, desc_size, kind = _NOTE_HEADER.unpack_from(notes, at)
        name = at + _NOTE_HEADER.size
        desc = name + align_up(name_size, padding)
        if kind == _XEN_ELFNOTE_PHYS32_ENTRY and name_size == len(_XEN) and notes[name : name + len(_XEN)] == _XEN:
            if desc_size < 4 or desc + 4 > len(notes):
                raise BadKernelImage(cause="Invalid PVH note header")
            return int.from_bytes(notes[desc : desc + 4], "little")
        at = desc + align_up(desc_size, padding)
    return None


def _read_notes(fd: int, segment: Segment) -> bytes:
    try:
        notes = os.pread(fd, min(segment.size, _LARGEST_NOTES), segment.offset)
    except (OSError, OverflowError) as error:
        raise BadKernelImage(cause="Unable to read note header") from error
    if len(notes) < segment.size:
        raise BadKernelImage(cause="Unable to read note header")
    return notes
