"""A whole boot: two steps, everything in its place, every failure with its sentence."""

import os
import struct
from collections.abc import Iterator

import pytest

from hibana.boot.acpi import devices
from hibana.boot.cmdline import Cmdline
from hibana.boot.entry import BootProtocol
from hibana.boot.system import Images, describe_machine, load_images
from hibana.boot.x86.pvh import StartInfo
from hibana.boot.x86.zero_page import BootParams
from hibana.errors import InitrdLoadError, SystemConfigError
from hibana.memory.allocator import Pools, RangeAllocator
from hibana.memory.guest import GuestMemory
from hibana.units import MIB
from tests.unit.boot.images import COMPRESSIONS, ENTRY, Load, bzimage, elf, file_of, pvh_note

KERNEL = elf(Load(ENTRY, b"kernel"))
PVH_KERNEL = elf(Load(ENTRY, b"kernel"), notes=pvh_note(ENTRY + 0x850))


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    memory = GuestMemory(128 * MIB)
    yield memory
    memory.close()


def boot(memory: GuestMemory, kernel: bytes, initrd: bytes | None = None, cmdline: str = "quiet") -> Images:
    images = load_images(memory, file_of(kernel), None if initrd is None else file_of(initrd))
    describe_machine(memory, Pools().system, images, Cmdline(cmdline), vcpu_count=1)
    return images


def word(memory: GuestMemory, addr: int) -> int:
    return int.from_bytes(memory.read(addr, 8), "little")


def test_a_vmlinux_boots_by_the_linux_protocol(memory: GuestMemory) -> None:
    images = boot(memory, KERNEL, initrd=b"cpio", cmdline="quiet -- single")
    assert images.kernel.entry.protocol is BootProtocol.LINUX_64
    page = BootParams(memory.read(0x7000, 4096))
    assert (page.type_of_loader, page.kernel_alignment, page.version) == (0xFF, 0x1000000, 0)
    assert (page.ramdisk_image, page.ramdisk_size) == (128 * MIB - 4096, 4)
    assert memory.read(page.cmd_line_ptr, page.cmdline_size) == b"quiet -- single\0"
    assert page.e820_entries == 4
    assert word(memory, 0x508) == 0x00AF9B000000FFFF
    assert word(memory, 0x9000) == 0xA003


def test_a_bzimage_brings_its_own_setup_header(memory: GuestMemory) -> None:
    boot(memory, bzimage(COMPRESSIONS["lz4"](KERNEL)))
    page = BootParams(memory.read(0x7000, 4096))
    assert (page.version, page.kernel_alignment, page.xloadflags) == (0x20F, 0x200000, 0x7F)
    assert page.acpi_rsdp_addr == 0xE0000


def test_a_kernel_with_a_pvh_note_boots_by_pvh(memory: GuestMemory) -> None:
    images = boot(memory, PVH_KERNEL, initrd=b"cpio")
    assert images.kernel.entry == (BootProtocol.PVH, ENTRY + 0x850)
    info = StartInfo(memory.read(0x6000, StartInfo.SIZE))
    assert (info.magic, info.nr_modules, info.memmap_entries) == (0x336EC578, 1, 4)
    assert word(memory, 0x6040) == 128 * MIB - 4096
    assert word(memory, 0x508) == 0x00CF9B000000FFFF
    assert word(memory, 0x9000) == 0  # no page tables: paging is off


def test_tables_are_packed_from_the_place_of_an_ebda(memory: GuestMemory) -> None:
    boot(memory, KERNEL)
    assert memory.read(0x9FC00, 4) == b"_MP_"
    assert memory.read(0x9FC10, 4) == b"PCMP"
    assert memory.read(0x9FC00 + 304, 4) == b"DSDT"
    assert memory.read(0xE0000, 8) == b"RSD PTR "


def test_devices_stand_in_the_dsdt_in_attach_order(memory: GuestMemory) -> None:
    images = load_images(memory, file_of(KERNEL), None)
    objects = [devices.virtio_mmio(0xC0001000, 5), devices.virtio_mmio(0xC0002000, 6)]
    describe_machine(memory, Pools().system, images, Cmdline(""), 1, objects)
    (size,) = struct.unpack_from("<I", memory.window(0x9FD30, 8), 4)
    table = memory.read(0x9FD30, size)
    assert table.index(b"V000") < table.index(b"V001") < table.index(b"COM1") < table.index(b"PS2_")


def test_every_write_is_reported_to_the_engine(memory: GuestMemory) -> None:
    images = load_images(memory, file_of(KERNEL), None)
    reported = bytearray(1 << 20)

    def remember(addr: int, size: int) -> None:
        reported[addr : addr + size] = b"\1" * size

    memory.on_write = remember
    describe_machine(memory, Pools().system, images, Cmdline("quiet"), 1)
    written = {page for page in range(256) if any(memory.read(page << 12, 4096))}
    assert written == {page for page in range(256) if any(reported[page << 12 : (page + 1) << 12])}


def test_a_kernel_that_cannot_be_loaded_is_a_system_configuration_error(memory: GuestMemory) -> None:
    with pytest.raises(SystemConfigError) as caught:
        load_images(memory, file_of(b"not a kernel" * 100), None)
    assert str(caught.value) == (
        "System configuration error: Cannot load kernel due to invalid memory configuration or invalid kernel image: "
        "Kernel Loader: failed to load ELF kernel image: Kernel Loader: Invalid Elf magic number"
    )


def test_a_32_bit_bzimage_is_a_system_configuration_error(memory: GuestMemory) -> None:
    with pytest.raises(SystemConfigError) as caught:
        load_images(memory, file_of(bzimage(b"", xloadflags=0)), None)
    assert str(caught.value) == "System configuration error: bzImage does not provide a 64-bit entry point"


def test_an_initrd_that_cannot_be_loaded_has_a_sentence_of_its_own(memory: GuestMemory) -> None:
    fd = os.open("/", os.O_RDONLY)
    with pytest.raises(InitrdLoadError, match=r"^Error with initrd initialization: "):
        load_images(memory, file_of(KERNEL), fd)
    os.close(fd)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (" -- init", "Cmdline cannot contain only init args."),
        ("a\0b", "Null terminator detected in the command line structure."),
    ],
)
def test_a_command_line_that_cannot_be_stored_says_why(memory: GuestMemory, text: str, cause: str) -> None:
    images = load_images(memory, file_of(KERNEL), None)
    with pytest.raises(SystemConfigError) as caught:
        describe_machine(memory, Pools().system, images, Cmdline(text), 1)
    assert str(caught.value) == f"System configuration error: Cannot load command line string: {cause}"


@pytest.mark.parametrize(("room", "what"), [(303, "Error writing MP table to memory"), (304, "Error configuring ACPI")])
def test_a_full_pool_says_which_table_had_no_room(memory: GuestMemory, room: int, what: str) -> None:
    images = load_images(memory, file_of(KERNEL), None)
    with pytest.raises(SystemConfigError) as caught:
        describe_machine(memory, RangeAllocator(0x9FC00, room), images, Cmdline(""), 1)
    assert str(caught.value) == f"System configuration error: {what}: The requested resource is not available."


@pytest.mark.parametrize("size_mib", [2, 3 * 1024, 4 * 1024])
def test_the_smallest_and_the_split_machine_boot_alike(size_mib: int) -> None:
    memory = GuestMemory(size_mib * MIB)
    boot(memory, elf(Load(MIB, b"tiny"), entry=MIB), initrd=b"cpio")
    assert BootParams(memory.read(0x7000, 4096)).e820_entries == 3 + len(memory.regions)
