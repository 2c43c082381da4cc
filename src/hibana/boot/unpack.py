"""Compressed kernels: what lies inside a bzImage, unpacked on the host, piece by piece.

A guest that unpacks itself spends its own, possibly emulated, cycles on it; the host has fast decompressors. The
pieces are bounded, so a bomb costs its user patience and nobody memory; who consumes them decides when it is enough.

The compressed stream is followed by its unpacked size in four bytes, except for gzip, which ends in it anyway
(arch/x86/boot/compressed/mkpiggy.c). Decompressors are imported by the functions that use them.
"""

import os
import sys
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from hibana.boot.x86.zero_page import BootParams, has_setup_header
from hibana.errors import BadKernelImage
from hibana.units import KIB, MIB

_PIECE: Final = MIB
_SLICE: Final = 16 * KIB
_MEMORY_LIMIT: Final = 256 * MIB  # of an LZMA dictionary: kernels are packed with up to 128 MiB
_LZ4_MAGIC: Final = 0x184C2102
_LZ4_BLOCK: Final = 8 * MIB
_LZ4_PACKED_BLOCK: Final = _LZ4_BLOCK + _LZ4_BLOCK // 255 + 16  # incompressible


class Payload:
    """A range of a file, read from front to back through one reused buffer."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._at = offset
        self._end = offset + size
        self._buffer = memoryview(bytearray(_SLICE))

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self._end - self._at

    def peek(self, size: int) -> bytes:
        """Copy the next bytes without consuming them; fewer at the end."""
        return os.pread(self._fd, min(size, self.left), self._at)

    def read(self, size: int) -> memoryview:
        """Give the next bytes, fewer at the end; valid until the next read."""
        size = min(size, self.left)
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        count = os.preadv(self._fd, [self._buffer[:size]], self._at)
        self._at += count
        return self._buffer[:count]


class _Stream(Protocol):
    """What the decompressor objects of bz2, lzma and zstd have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes | memoryview, max_length: int = -1) -> bytes: ...


def unpack(payload: Payload) -> Iterator[bytes] | None:
    """Give the kernel inside in pieces, none of them empty; None when nobody here knows the compression.

    The iterator raises BadKernelImage where the stream is damaged or cut short.
    """
    head = payload.peek(8)
    for magic, unpacker in _UNPACKERS:
        if head.startswith(magic):
            try:
                return unpacker(payload)
            except ImportError:  # a Python built without this codec
                return None
    return None


def unpack_bzimage(image: bytes) -> bytes:
    """Give the kernel inside a bzImage in one piece, for tools that keep it."""
    if not has_setup_header(image):
        raise BadKernelImage(cause="Invalid bzImage")
    header = BootParams(image)
    fd = os.memfd_create("bzImage")
    try:
        os.write(fd, image)
        pieces = unpack(Payload(fd, header.setup_size + header.payload_offset, header.payload_length))
        if pieces is None:
            raise _damaged("unknown compression")
        return b"".join(pieces)
    finally:
        os.close(fd)


def _gzip(payload: Payload) -> Iterator[bytes]:
    import zlib

    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    def pieces() -> Iterator[bytes]:
        # DEFLATE expands at most 1032 times, so bounded slices of input are bounded pieces of output.
        while not stream.eof:
            packed = payload.read(_SLICE)
            if not packed:
                raise _damaged("cut short")
            try:
                piece = stream.decompress(packed)
            except zlib.error as error:
                raise _damaged(error) from error
            if piece:
                yield piece

    return pieces()


def _bzip2(payload: Payload) -> Iterator[bytes]:
    import bz2

    return _drain(bz2.BZ2Decompressor(), payload, OSError)


def _xz(payload: Payload) -> Iterator[bytes]:
    import lzma

    return _drain(lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY_LIMIT), payload, lzma.LZMAError)


def _lzma(payload: Payload) -> Iterator[bytes]:
    import lzma

    return _drain(lzma.LZMADecompressor(lzma.FORMAT_ALONE, _MEMORY_LIMIT), payload, lzma.LZMAError)


def _zstd(payload: Payload) -> Iterator[bytes]:
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor, ZstdError
    else:
        from backports.zstd import ZstdDecompressor, ZstdError

    return _drain(ZstdDecompressor(), payload, ZstdError)


def _drain(stream: _Stream, payload: Payload, fault: type[Exception]) -> Iterator[bytes]:
    """Feed slices, take pieces; neither grows with what the stream claims to hold."""
    while not stream.eof:
        packed: bytes | memoryview = payload.read(_SLICE) if stream.needs_input else b""
        if stream.needs_input and not packed:
            raise _damaged("cut short")
        try:
            piece = stream.decompress(packed, _PIECE)
        except fault as error:
            raise _damaged(error) from error
        if piece:
            yield piece


def _lz4(payload: Payload) -> Iterator[bytes]:
    """Unpack the *legacy* frame: after the magic, blocks of 8 MiB, each behind its packed size."""
    from lz4.block import LZ4BlockError, decompress

    def pieces() -> Iterator[bytes]:
        while payload.left > 4:  # the last four bytes are the unpacked size, not a block
            size = int.from_bytes(payload.read(4), "little")
            if size == _LZ4_MAGIC:  # frames may follow each other
                continue
            if not 0 < size <= min(_LZ4_PACKED_BLOCK, payload.left):
                raise _damaged("cut short")
            try:
                yield decompress(payload.read(size), uncompressed_size=_LZ4_BLOCK)
            except LZ4BlockError as error:
                raise _damaged(error) from error

    return pieces()


def _damaged(why: object) -> BadKernelImage:
    return BadKernelImage(cause=f"Unable to read bzImage compressed kernel: {why}")


_UNPACKERS: Final[tuple[tuple[bytes, Callable[[Payload], Iterator[bytes]]], ...]] = (
    (b"\x1f\x8b", _gzip),
    (b"BZh", _bzip2),
    (b"\xfd7zXZ\0", _xz),
    (b"\x5d\0\0", _lzma),
    (b"\x02\x21\x4c\x18", _lz4),
    (b"\x28\xb5\x2f\xfd", _zstd),
)
