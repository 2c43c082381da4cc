"""PVH start info: how a boot loader talks to a kernel that is entered in 32-bit flat mode (Xen's start_info.h)."""

from struct import Struct
from typing import Final

from hibana.boot.initrd import Initrd
from hibana.boot.x86.memory_map import MapEntry
from hibana.memory import layout
from hibana.memory.guest import GuestMemory
from hibana.view import View, u32, u64

_MAGIC: Final = 0x336EC578  # "xEn3" with the top bit of the E set
_MODULE: Final = Struct("<QQQQ")  # paddr, size, cmdline_paddr, reserved
_MAP_ENTRY: Final = Struct("<QQI4x")  # addr, size, type


class StartInfo(View):
    """struct hvm_start_info, version 1."""

    SIZE = 56
    magic = u32(0)
    version = u32(4)
    flags = u32(8)
    nr_modules = u32(12)
    modlist_paddr = u64(16)
    cmdline_paddr = u64(24)
    rsdp_paddr = u64(32)  # left zero: the kernel finds the RSDP by its scan
    memmap_paddr = u64(40)
    memmap_entries = u32(48)


def write_start_info(memory: GuestMemory, memory_map: list[MapEntry], initrd: Initrd | None) -> None:
    """Write the start info and the tables it points to; the initrd is the one module there can be."""
    start_info = StartInfo(bytearray(StartInfo.SIZE))
    start_info.magic = _MAGIC
    start_info.version = 1
    start_info.cmdline_paddr = layout.CMDLINE
    start_info.memmap_paddr = layout.PVH_MEMORY_MAP
    start_info.memmap_entries = len(memory_map)
    if initrd:
        start_info.nr_modules = 1
        start_info.modlist_paddr = layout.PVH_MODULES
        memory.write(layout.PVH_MODULES, _MODULE.pack(initrd.addr, initrd.size, 0, 0))
    memory.write(layout.PVH_MEMORY_MAP, b"".join(_MAP_ENTRY.pack(*entry) for entry in memory_map))
    memory.write(layout.PVH_INFO, start_info.buf)
