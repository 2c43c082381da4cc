"""The zero page: how a boot loader talks to Linux (x86 boot protocol, "64-bit Boot Protocol").

The setup header lies at the same offsets in this page as in a bzImage file, so one declaration serves both.
"""

from struct import Struct
from typing import Final

from hibana.boot.initrd import Initrd
from hibana.boot.x86.memory_map import MapEntry
from hibana.memory import layout
from hibana.memory.guest import GuestMemory
from hibana.units import MIB, PAGE
from hibana.view import View, u8, u16, u32, u64

SETUP_HEADER: Final = 0x1F1
SETUP_HEADER_END: Final = 0x290  # room kept for it; what follows belongs to the BIOS's disks
E820_TABLE: Final = 0x2D0

_HDRS: Final = 0x53726448  # "HdrS"
_SECTOR: Final = 512
_BOOT_FLAG: Final = 0xAA55
_LOADER_UNREGISTERED: Final = 0xFF
_E820_ENTRY: Final = Struct("<QQI")


class BootParams(View):
    """struct boot_params, with the setup header ("The Real-Mode Kernel Header") inside."""

    SIZE = PAGE
    acpi_rsdp_addr = u64(0x070)
    e820_entries = u8(0x1E8)
    setup_sects = u8(0x1F1)  # size of the real-mode code in sectors; 0 means 4
    boot_flag = u16(0x1FE)
    header = u32(0x202)
    version = u16(0x206)  # of the boot protocol: 0x020F is 2.15
    type_of_loader = u8(0x210)
    loadflags = u8(0x211)
    code32_start = u32(0x214)  # where the protected-mode code wants to be
    ramdisk_image = u32(0x218)
    ramdisk_size = u32(0x21C)
    cmd_line_ptr = u32(0x228)
    kernel_alignment = u32(0x230)
    xloadflags = u16(0x236)
    cmdline_size = u32(0x238)
    payload_offset = u32(0x248)  # from the protected-mode code
    payload_length = u32(0x24C)

    @property
    def setup_size(self) -> int:
        """Bytes of boot sector and real-mode code; in a file, the protected-mode code follows."""
        return ((self.setup_sects or 4) + 1) * _SECTOR


def has_setup_header(head: bytes) -> bool:
    """Tell whether the beginning of a file, of SETUP_HEADER_END bytes or more, is that of a bzImage."""
    return len(head) >= SETUP_HEADER_END and BootParams(head).header == _HDRS


def write_zero_page(
    memory: GuestMemory, memory_map: list[MapEntry], setup_header: bytes, cmdline_size: int, initrd: Initrd | None
) -> None:
    """Write the zero page of a kernel with its own setup header, or of an ELF kernel, which has none."""
    page = bytearray(BootParams.SIZE)
    page[SETUP_HEADER : SETUP_HEADER + len(setup_header)] = setup_header
    params = BootParams(page)
    params.acpi_rsdp_addr = layout.RSDP
    params.boot_flag = _BOOT_FLAG
    params.header = _HDRS
    params.type_of_loader = _LOADER_UNREGISTERED
    params.cmd_line_ptr = layout.CMDLINE
    params.cmdline_size = cmdline_size
    if not setup_header:
        params.kernel_alignment = 16 * MIB
    if initrd:
        params.ramdisk_image = initrd.addr
        params.ramdisk_size = initrd.size
    params.e820_entries = len(memory_map)
    for index, entry in enumerate(memory_map):
        _E820_ENTRY.pack_into(page, E820_TABLE + index * _E820_ENTRY.size, *entry)
    memory.write(layout.ZERO_PAGE, page)
