"""Which image is which, what is wrong with it, and the exact sentence for that."""

import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hibana.boot.entry import BootProtocol, Entry, Kernel
from hibana.boot.kernel import load_kernel
from hibana.errors import VmmError
from hibana.memory.guest import GuestMemory
from hibana.units import MIB
from tests.unit.boot.images import (
    COMPRESSIONS,
    DECOMPRESSOR,
    ENTRY,
    SETUP_SIZE,
    Load,
    bzimage,
    close_files,
    elf,
    elf_header,
    file_of,
    note,
    program_header,
    pvh_note,
)

GUEST = Path(__file__).parents[3] / "build/guest"
TEXT = random.Random(2).randbytes(200_000) + bytes(3 * MIB) + b"etext"
DATA = b"data" * 1000
KERNEL = elf(Load(0x1000000, TEXT), Load(0x1400000, DATA))
LOADER = "Cannot load kernel due to invalid memory configuration or invalid kernel image: Kernel Loader: "
ELF_LOADER = LOADER + "failed to load ELF kernel image: Kernel Loader: "
BZIMAGE_LOADER = LOADER + "failed to load bzImage kernel image: Kernel Loader: "


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    memory = GuestMemory(64 * MIB)
    yield memory
    memory.close()


def load(memory: GuestMemory, image: bytes) -> Kernel:
    try:
        return load_kernel(memory, file_of(image))
    finally:
        close_files()


def refusal(memory: GuestMemory, image: bytes) -> str:
    with pytest.raises(VmmError) as caught:
        load(memory, image)
    return str(caught.value)


def test_an_elf_is_loaded_where_its_headers_say(memory: GuestMemory) -> None:
    kernel = load(memory, KERNEL)
    assert kernel == Kernel(Entry(BootProtocol.LINUX_64, ENTRY), b"")
    assert memory.read(0x1000000, len(TEXT)) == TEXT
    assert memory.read(0x1400000, len(DATA) + 0x1000) == DATA + bytes(0x1000)


def test_the_engine_hears_of_every_segment(memory: GuestMemory) -> None:
    writes: list[tuple[int, int]] = []
    memory.on_write = lambda addr, size: writes.append((addr, size))
    load(memory, KERNEL)
    assert writes == [(0x1000000, len(TEXT)), (0x1400000, len(DATA))]


def test_a_segment_may_lie_above_4_gib() -> None:
    memory = GuestMemory(4096 * MIB)
    load(memory, elf(Load(1 << 32, DATA)))
    assert memory.read(1 << 32, len(DATA)) == DATA


# --- PVH --------------------------------------------------------------------------------------------------------------


def test_a_kernel_that_names_a_pvh_entry_is_entered_there(memory: GuestMemory) -> None:
    other = note(b"GNU\0", b"build id", 3) + note(b"Xen\0", b"\1\2\3", 9) + note(b"Linux\0", bytes(4), 18)
    kernel = load(memory, elf(Load(ENTRY, DATA), notes=other + pvh_note(0x1000850) + note(b"Xen\0", b"x", 1)))
    assert kernel.entry == Entry(BootProtocol.PVH, 0x1000850)


def test_notes_of_eight_byte_alignment_are_padded_to_eight(memory: GuestMemory) -> None:
    notes = note(b"GNU\0\0", b"12345", 5, padding=8) + note(b"Xen\0", struct.pack("<I", 0x1000850), 18, padding=8)
    assert load(memory, elf(notes=notes, notes_align=8)).entry == Entry(BootProtocol.PVH, 0x1000850)


@pytest.mark.parametrize("notes", [b"", b"pad", note(b"Xen\0", bytes(4), 17), note(b"Xen", bytes(4), 18)])
def test_notes_without_a_pvh_entry_change_nothing(memory: GuestMemory, notes: bytes) -> None:
    assert load(memory, elf(Load(ENTRY, DATA), notes=notes)).entry == Entry(BootProtocol.LINUX_64, ENTRY)


def test_a_pvh_note_without_an_address_is_refused(memory: GuestMemory) -> None:
    assert refusal(memory, elf(notes=note(b"Xen\0", b"\1\2\3", 18))) == ELF_LOADER + "Invalid PVH note header"
    assert refusal(memory, elf(notes=pvh_note(ENTRY)[:-2])) == ELF_LOADER + "Invalid PVH note header"


@pytest.mark.parametrize(("offset", "size"), [(0x1000, 100), (1 << 63, 4), ((1 << 64) - 1, 4), (64, 1 << 40)])
def test_notes_outside_the_file_are_refused(memory: GuestMemory, offset: int, size: int) -> None:
    image = elf_header(ENTRY, 1) + program_header(4, offset, 0, size, size)
    assert refusal(memory, image) == ELF_LOADER + "Unable to read note header"


def test_the_last_notes_decide(memory: GuestMemory) -> None:
    headers = program_header(4, 176, 0, 20, 20) + program_header(4, 196, 0, 20, 20)
    image = elf_header(ENTRY, 2) + headers + pvh_note(0x1111111) + pvh_note(0x2222222)
    assert load(memory, image).entry.addr == 0x2222222


# --- bad ELFs ---------------------------------------------------------------------------------------------------------


BAD_ELFS = {
    "empty": (b"", "Unable to read elf header"),
    "cut in its header": (KERNEL[:63], "Unable to read elf header"),
    "a script": (b"#!/bin/sh\n" * 100, "Invalid Elf magic number"),
    "big-endian": (elf_header(ENTRY, 0, data=2), "Trying to load big-endian binary on little-endian machine"),
    "32-bit program headers": (elf_header(ENTRY, 0, phentsize=32), "Invalid program header size"),
    "program headers in the header": (elf_header(ENTRY, 0, phoff=63), "Invalid program header offset"),
    "entry below 1 MiB": (elf_header(0xFFFFF, 0), "Invalid entry address"),
    "no program headers": (elf_header(ENTRY, 1), "Unable to read program header"),
    "program headers nowhere": (elf_header(ENTRY, 1, phoff=1 << 63) + bytes(56), "Unable to read program header"),
    "fewer program headers than said": (elf_header(ENTRY, 65535) + bytes(56), "Unable to read program header"),
    "cut in its last segment": (KERNEL[:-1], "Unable to read kernel image"),
    "a segment across the end of RAM": (elf(Load(64 * MIB - 1, b"xy")), "Unable to read kernel image"),
    "a segment across the end of addresses": (elf(Load((1 << 64) - 1, b"xy")), "Unable to read kernel image"),
    "a segment from nowhere": (
        elf_header(ENTRY, 1) + program_header(1, (1 << 64) - 1, ENTRY, 1, 1),
        "Unable to read kernel image",
    ),
    "a segment of everything": (
        elf_header(ENTRY, 1) + program_header(1, 0, ENTRY, (1 << 64) - 1, 0),
        "Unable to read kernel image",
    ),
}


@pytest.mark.parametrize("image", BAD_ELFS)
def test_a_bad_elf_is_refused_with_the_reference_sentence(memory: GuestMemory, image: str) -> None:
    content, sentence = BAD_ELFS[image]
    assert refusal(memory, content) == ELF_LOADER + sentence


def test_the_first_thing_wrong_is_the_one_reported(memory: GuestMemory) -> None:
    image = elf_header(0, 1, phoff=1, phentsize=1, data=0)
    assert refusal(memory, image).endswith("Trying to load big-endian binary on little-endian machine")


def test_segments_that_can_only_overlap_are_refused_before_they_are_copied(memory: GuestMemory) -> None:
    writes: list[int] = []
    memory.on_write = lambda addr, size: writes.append(addr)
    fd = file_of(elf_header(ENTRY, 2) + program_header(1, 0, 0, 33 * MIB, 0) * 2)
    os.truncate(fd, 33 * MIB)
    with pytest.raises(VmmError) as caught:
        load_kernel(memory, fd)
    assert str(caught.value) == ELF_LOADER + "Unable to read kernel image"
    assert writes == []


@pytest.mark.parametrize(("segments", "accepted"), [(64, True), (65, False)])
def test_a_kernel_is_not_a_heap_of_splinters(memory: GuestMemory, segments: int, accepted: bool) -> None:
    """Each of which would be looked at for each of a million pieces that a packed kernel may be made of."""
    image = elf_header(ENTRY, segments) + program_header(1, 0, ENTRY, 4, 4) * segments
    for each in (image, bzimage(COMPRESSIONS["lz4"](image))):
        if accepted:
            load(memory, each)
            assert memory.read(ENTRY, 4) == b"\x7fELF"
        else:
            assert refusal(memory, each).endswith("Unable to read kernel image")


def test_a_later_segment_wins_where_two_overlap(memory: GuestMemory) -> None:
    load(memory, elf(Load(ENTRY, b"first"), Load(ENTRY + 2, b"2nd")))
    assert memory.read(ENTRY, 6) == b"fi2nd\0"


def test_a_directory_is_no_kernel(memory: GuestMemory) -> None:
    fd = os.open("/", os.O_RDONLY)
    with pytest.raises(VmmError) as caught:
        load_kernel(memory, fd)
    os.close(fd)
    assert str(caught.value) == ELF_LOADER + "Unable to read elf header"


# --- bzImages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_kernel_inside_a_bzimage_is_unpacked_on_the_host(memory: GuestMemory, compression: str) -> None:
    image = bzimage(COMPRESSIONS[compression](KERNEL))
    kernel = load(memory, image)
    assert kernel == Kernel(Entry(BootProtocol.LINUX_64, ENTRY), image[0x1F1:0x26C])
    assert memory.read(0x1000000, len(TEXT)) == TEXT
    assert memory.read(0x1400000, len(DATA)) == DATA
    assert memory.read(0x100000, 16) == bytes(16)  # nobody needs the decompressor


def test_an_unpacked_kernel_is_entered_by_the_protocol_of_its_setup_header(memory: GuestMemory) -> None:
    inside = elf(Load(ENTRY, DATA), notes=pvh_note(0x1000850))
    assert load(memory, bzimage(COMPRESSIONS["zstd"](inside))).entry == Entry(BootProtocol.LINUX_64, ENTRY)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x89LZO\0\r\n\x1a\n", COMPRESSIONS["gzip"](b"no ELF inside")],
    ids=["no payload", "an unknown compression", "no ELF inside"],
)
def test_what_cannot_be_unpacked_here_unpacks_itself(memory: GuestMemory, payload: bytes) -> None:
    image = bzimage(payload, code32_start=0x200000)
    kernel = load(memory, image)
    assert kernel == Kernel(Entry(BootProtocol.LINUX_64, 0x200200), image[0x1F1:0x26C])
    assert memory.read(0x200000, len(image) - SETUP_SIZE + 1) == DECOMPRESSOR + payload + b"\0"


def test_no_setup_sectors_means_four(memory: GuestMemory) -> None:
    image = bzimage(b"", setup_sects=0)
    padded = image[:SETUP_SIZE] + bytes(5 * 512 - SETUP_SIZE) + image[SETUP_SIZE:]
    load(memory, padded)
    assert memory.read(0x100000, len(DECOMPRESSOR)) == DECOMPRESSOR


def test_a_header_of_a_later_protocol_is_copied_whole(memory: GuestMemory) -> None:
    image = bytearray(bzimage(b""))
    image[0x201] = 0x7A
    image[0x26C:0x27C] = b"fields to come.."
    assert load(memory, bytes(image)).setup_header == bytes(image[0x1F1:0x27C])


def test_a_header_never_reaches_what_lies_behind_it_in_the_zero_page(memory: GuestMemory) -> None:
    image = bytearray(bzimage(b""))
    image[0x201] = 0xFF
    assert load(memory, bytes(image)).setup_header == bytes(image[0x1F1:0x290])


NO_64_BIT_ENTRY = "bzImage does not provide a 64-bit entry point"
UNREADABLE = BZIMAGE_LOADER + "Unable to read bzImage compressed kernel"
BAD_BZIMAGES = {
    "of protocol 1": (bzimage(b"", version=0x1FF), BZIMAGE_LOADER + "Invalid bzImage"),
    "a zImage": (bzimage(b"", loadflags=0), BZIMAGE_LOADER + "Invalid bzImage"),
    "shorter than its setup": (
        bzimage(b"", setup_sects=255),
        BZIMAGE_LOADER + "Underflow occurred during an arithmetic operation",
    ),
    "loaded below 1 MiB": (bzimage(b"", code32_start=0xFFFFF), BZIMAGE_LOADER + "invalid kernel start address"),
    "too old for 64 bits": (bzimage(b"", version=0x20B), NO_64_BIT_ENTRY),
    "of 32 bits": (bzimage(b"", xloadflags=0xFFFE), NO_64_BIT_ENTRY),
    "loaded above RAM": (bzimage(b"", code32_start=64 * MIB), UNREADABLE),
    "payload nowhere": (bzimage(b"", payload_offset=0xFFFFFFFF), UNREADABLE),
    "payload across the end": (bzimage(b"xyz", payload_length=4), UNREADABLE),
    "payload cut short": (bzimage(COMPRESSIONS["xz"](KERNEL)[:5000]), UNREADABLE + ": cut short"),
    "kernel inside cut short": (
        bzimage(COMPRESSIONS["gzip"](KERNEL[:-1])),
        BZIMAGE_LOADER + "Unable to read kernel image",
    ),
    "kernel inside without headers": (
        bzimage(COMPRESSIONS["gzip"](elf_header(ENTRY, 9))),
        BZIMAGE_LOADER + "Unable to read program header",
    ),
    "kernel inside above RAM": (
        bzimage(COMPRESSIONS["gzip"](elf(Load(64 * MIB, DATA)))),
        BZIMAGE_LOADER + "Unable to read kernel image",
    ),
    "cut in its header": (bzimage(b"")[:0x280], ELF_LOADER + "Invalid Elf magic number"),
}


@pytest.mark.parametrize("image", BAD_BZIMAGES)
def test_a_bad_bzimage_is_refused_with_the_reference_sentence(memory: GuestMemory, image: str) -> None:
    content, sentence = BAD_BZIMAGES[image]
    assert refusal(memory, content) == sentence


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_bomb_inside_a_bzimage_is_stopped_at_the_size_of_ram(compression: str) -> None:
    memory = GuestMemory(8 * MIB)
    bomb = elf(Load(0x200000, DATA), entry=0x200000) + bytes(10 * MIB)
    sentence = UNREADABLE + ": larger than the guest's memory"
    assert refusal(memory, bzimage(COMPRESSIONS[compression](bomb))) == sentence


# --- whatever comes ---------------------------------------------------------------------------------------------------

NASTY = st.sampled_from(
    [0, 1, 63, 64, 0x7F, 0xFF, 0xFFFF, 0xFFFFF, 1 << 20, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1]
)
CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


@st.composite
def mutated(draw: st.DrawFn, base: Callable[[], bytes], end: int) -> bytes:
    """Take a good image and overwrite some of its header with numbers that break parsers."""
    image = bytearray(base())
    for _ in range(draw(st.integers(1, 5))):
        width = draw(st.sampled_from([1, 2, 4, 8]))
        value = draw(NASTY) & (1 << 8 * width) - 1
        struct.pack_into("<" + CODES[width], image, draw(st.integers(0, end - 8)), value)
    return bytes(image[: draw(st.integers(0, len(image)))] if draw(st.booleans()) else image)


SMALL = elf(Load(0x200000, DATA), Load(0x300000, DATA), notes=pvh_note(0x200010))


@given(
    image=st.one_of(
        st.binary(max_size=700),
        st.binary(max_size=100).map(lambda rest: b"\x7fELF\2\1\1" + bytes(9) + rest),
        mutated(lambda: SMALL, 64 + 3 * 56),
        mutated(lambda: bzimage(COMPRESSIONS["gzip"](SMALL)), 0x26C),
        mutated(lambda: bzimage(COMPRESSIONS["lz4"](SMALL)), SETUP_SIZE + len(DECOMPRESSOR) + 100),
    )
)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_image_whatsoever_raises_anything_but_a_sentence(memory: GuestMemory, image: bytes) -> None:
    try:
        load(memory, image)
    except VmmError as error:
        assert str(error).startswith((LOADER, "bzImage does not provide"))


# --- the kernel people boot -------------------------------------------------------------------------------------------


def test_debians_bzimage_and_its_vmlinux_give_the_same_memory() -> None:
    paths = [GUEST / "vmlinux", GUEST / "bzImage"]
    if not all(path.exists() for path in paths):
        pytest.skip("no build/guest/{vmlinux,bzImage}: `tools/devtool guest` makes them")
    contents: list[bytes] = []
    for path in paths:
        memory = GuestMemory(128 * MIB)
        with path.open("rb") as image:
            kernel = load_kernel(memory, image.fileno())
        assert ENTRY <= kernel.entry.addr < ENTRY + 4 * MIB
        contents.append(memory.read(ENTRY, 64 * MIB))
    assert contents[0] == contents[1]
    assert any(contents[0])
