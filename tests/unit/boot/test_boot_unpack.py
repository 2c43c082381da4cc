"""Payloads of every compression, whole, damaged, cut short and blown up."""

import random
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibana.boot.unpack import Payload, unpack, unpack_bzimage
from hibana.errors import BadKernelImage
from hibana.units import MIB
from tests.unit.boot.images import COMPRESSIONS, bzimage, close_files, file_of, lz4_legacy

BOMB = 40 * MIB
CONTENT = random.Random(1).randbytes(200_000) + bytes(3 * MIB) + b"the end"


def pieces_of(packed: bytes, before: bytes = b"", after: bytes = b"") -> list[bytes] | None:
    pieces = unpack(Payload(file_of(before + packed + after), len(before), len(packed)))
    try:
        return None if pieces is None else list(pieces)
    finally:
        close_files()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_payload_comes_out_as_it_went_in(compression: str) -> None:
    pieces = pieces_of(COMPRESSIONS[compression](CONTENT), before=b"setup" * 100, after=b"signature")
    assert pieces is not None
    assert b"".join(pieces) == CONTENT


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_size_behind_the_stream_is_optional(compression: str) -> None:
    packed = COMPRESSIONS[compression](CONTENT)
    if compression != "gzip":
        packed = packed[:-4]
    pieces = pieces_of(packed)
    assert pieces is not None
    assert b"".join(pieces) == CONTENT


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_payload_cut_in_the_middle_is_refused(compression: str) -> None:
    packed = COMPRESSIONS[compression](CONTENT)
    with pytest.raises(BadKernelImage, match=r"^Unable to read bzImage compressed kernel: cut short$"):
        pieces_of(packed[: len(packed) // 2])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_damaged_payload_is_refused(compression: str) -> None:
    # LZ4's legacy frame has no checksum; a stream of references to before the beginning is wrong all the same.
    packed = bytearray(COMPRESSIONS[compression](CONTENT))
    middle = len(packed) // 2 if compression != "lz4" else 8
    packed[middle : middle + 4000] = bytes(4000)
    with pytest.raises(BadKernelImage, match=r"^Unable to read bzImage compressed kernel: "):
        pieces_of(bytes(packed))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_bomb_comes_in_small_pieces(compression: str) -> None:
    packed = COMPRESSIONS[compression](bytes(BOMB))
    pieces = unpack(Payload(file_of(packed), 0, len(packed)))
    assert pieces is not None
    sizes = [len(piece) for piece in pieces]
    assert sum(sizes) == BOMB
    assert max(sizes) <= 17 * MIB


def test_lz4_frames_may_follow_each_other() -> None:
    packed = lz4_legacy(b"first, ") + lz4_legacy(b"second") + struct.pack("<I", 13)
    assert pieces_of(packed) == [b"first, ", b"second"]


@pytest.mark.parametrize("size", [0, 9 * MIB, 0xFFFFFFFF])
def test_an_lz4_block_cannot_be_larger_than_its_frame_allows(size: int) -> None:
    with pytest.raises(BadKernelImage, match="cut short"):
        pieces_of(b"\x02\x21\x4c\x18" + struct.pack("<I", size) + bytes(10 * MIB))


def test_an_xz_stream_cannot_ask_for_more_memory_than_kernels_do() -> None:
    lzma_alone_with_a_dictionary_of_4_gib = b"\x5d\x00\x00\x00\xff" + bytes([255] * 8) + bytes(100)
    with pytest.raises(BadKernelImage, match="Memory usage limit"):
        pieces_of(lzma_alone_with_a_dictionary_of_4_gib)


@pytest.mark.parametrize("payload", [b"", b"\x1f", b"\x89LZO\0\r\n\x1a\n not here", b"\x7fELF plain"])
def test_an_unknown_compression_is_left_to_the_kernel_itself(payload: bytes) -> None:
    assert pieces_of(payload) is None


def test_a_codec_that_this_python_lacks_is_an_unknown_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lzma", None)
    assert pieces_of(COMPRESSIONS["xz"](b"content")) is None


@given(
    magic=st.sampled_from(
        [b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x5d\0\0\0\1", b"\x02\x21\x4c\x18", b"(\xb5/\xfd"]
    ),
    rest=st.binary(max_size=300),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_behind_a_magic_unpack_or_are_refused(magic: bytes, rest: bytes) -> None:
    try:
        pieces_of(magic + rest)
    except BadKernelImage as error:
        assert str(error).startswith("Unable to read bzImage compressed kernel")


@given(compression=st.sampled_from(sorted(COMPRESSIONS)), at=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(deadline=None)
def test_a_flipped_byte_never_escapes_as_anything_else(compression: str, at: int, value: int) -> None:
    packed = bytearray(COMPRESSIONS[compression](CONTENT[:5000]))
    packed[at % len(packed)] = value
    try:
        pieces_of(bytes(packed))
    except BadKernelImage as error:
        assert str(error).startswith("Unable to read bzImage compressed kernel")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tools_get_the_kernel_out_of_a_bzimage_in_one_piece(compression: str) -> None:
    assert unpack_bzimage(bzimage(COMPRESSIONS[compression](CONTENT))) == CONTENT


@pytest.mark.parametrize("image", [b"", b"\x7fELF" + bytes(1000)])
def test_tools_are_told_what_is_no_bzimage(image: bytes) -> None:
    with pytest.raises(BadKernelImage, match=r"^Invalid bzImage$"):
        unpack_bzimage(image)


def test_tools_are_told_when_they_cannot() -> None:
    with pytest.raises(BadKernelImage, match=r"^Unable to read bzImage compressed kernel: unknown compression$"):
        unpack_bzimage(bzimage(b"\x89LZO\0\r\n\x1a\n"))
