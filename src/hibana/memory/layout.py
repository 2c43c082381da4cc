"""The physical address map of the x86_64 microVM: where RAM is, where it is not, and what lies at fixed places.

Every number here is visible to the guest and to snapshots, and is the same on every engine.
"""

from typing import Final, NamedTuple

from hibana.units import GIB, MIB

# Below 1 MiB: what the boot code leaves for the kernel.
BOOT_GDT: Final = 0x500
BOOT_IDT: Final = 0x520
PVH_INFO: Final = 0x6000
PVH_MODULES: Final = 0x6040
ZERO_PAGE: Final = 0x7000
PVH_MEMORY_MAP: Final = 0x7000  # a PVH boot has no zero page: the memory map takes its place
BOOT_STACK: Final = 0x8FF0
PML4: Final = 0x9000
PDPTE: Final = 0xA000
PDE: Final = 0xB000
CMDLINE: Final = 0x20000
CMDLINE_MAX_SIZE: Final = 2048  # with the final NUL
SYSTEM_START: Final = 0x9FC00  # MP table, ACPI tables, VMGenID, VMClock
SYSTEM_SIZE: Final = 0x40400
RSDP: Final = 0xE0000
HIMEM_START: Final = 0x100000  # lowest address of a kernel

# The hole below 4 GiB: never RAM.
MMIO32_START: Final = 3 * GIB
MMIO32_SIZE: Final = 1 * GIB
BOOT_TIMER: Final = 0xC0000000
MMIO32_DEVICES_START: Final = 0xC0001000
MMIO32_DEVICES_SIZE: Final = 0x2EBFF000
MMIO_SLOT_SIZE: Final = 0x1000
PCI_MMCONFIG_START: Final = 0xEEC00000
PCI_MMCONFIG_SIZE: Final = 256 * MIB
IOAPIC: Final = 0xFEC00000
LAPIC: Final = 0xFEE00000
KVM_TSS: Final = 0xFFFBD000

# Above 4 GiB: RAM again, with one more hole for 64-bit PCI BARs.
RAM_ABOVE_4G: Final = 4 * GIB
MMIO64_START: Final = 256 * GIB
MMIO64_SIZE: Final = 256 * GIB
RAM_ABOVE_512G: Final = 512 * GIB

# Interrupt lines (all edge-triggered, active high).
GSI_PIT: Final = 0
GSI_KEYBOARD: Final = 1
GSI_SERIAL: Final = 4
GSI_FIRST_FREE: Final = 5
GSI_LAST_LEGACY: Final = 23

# Ports.
PORT_KEYBOARD: Final = 0x60
PORT_SERIAL: Final = 0x3F8


class RamRegion(NamedTuple):
    """A range of guest-physical RAM and where it lies in the one contiguous host reservation."""

    start: int
    size: int
    offset: int

    @property
    def end(self) -> int:
        """First guest address after the region."""
        return self.start + self.size


def ram_regions(size: int) -> tuple[RamRegion, ...]:
    """Lay `size` bytes of RAM around the two holes: below 3 GiB, from 4 GiB, from 512 GiB."""
    regions: list[RamRegion] = []
    offset = 0
    for start, limit in ((0, MMIO32_START), (RAM_ABOVE_4G, MMIO64_START), (RAM_ABOVE_512G, 1 << 46)):
        take = min(size - offset, limit - start)
        if take > 0:
            regions.append(RamRegion(start, take, offset))
            offset += take
    return tuple(regions)
