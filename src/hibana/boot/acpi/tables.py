"""The ACPI tables of a hardware-reduced machine (ACPI 6.5 §5.2) and their places in guest RAM.

The kernel finds the RSDP at 0xE0000, from there the XSDT, and in it FADT, MADT and MCFG; the FADT points to the DSDT.
"""

from collections.abc import Iterable
from struct import pack, pack_into
from typing import Final

from hibana.boot.acpi import devices
from hibana.memory import layout
from hibana.memory.allocator import RangeAllocator
from hibana.memory.guest import GuestMemory

_OEM_ID: Final = b"FIRECK"
_OEM_REVISION: Final = 0
_CREATOR_ID: Final = b"FCAT"
_CREATOR_REVISION: Final = 0x20240119
_HEADER_SIZE: Final = 36

_FADT_SIZE: Final = 276
_FADT_MINOR_VERSION: Final = 5
_VGA_NOT_PRESENT: Final = 1 << 2  # IAPC_BOOT_ARCH
_PWR_BUTTON: Final = 1 << 4  # no power button as fixed hardware
_SLP_BUTTON: Final = 1 << 5  # no sleep button either
_HW_REDUCED_ACPI: Final = 1 << 20

_MADT_LOCAL_APIC: Final = 0
_MADT_IO_APIC: Final = 1


def write_acpi_tables(
    memory: GuestMemory, system: RangeAllocator, cpu_count: int, device_objects: Iterable[bytes]
) -> None:
    """Write all tables; the DSDT holds the objects given and those of the devices every machine has."""

    def place(table: bytes) -> int:
        addr = system.lowest(len(table))
        memory.write(addr, table)
        return addr

    dsdt_addr = place(dsdt(device_objects))
    xsdt_addr = place(_xsdt([place(fadt(dsdt_addr)), place(madt(cpu_count)), place(mcfg())]))
    memory.write(layout.RSDP, _rsdp(xsdt_addr))


def dsdt(device_objects: Iterable[bytes]) -> bytes:
    """Make the table of device objects (§5.2.11.1)."""
    body = b"".join([*device_objects, devices.serial(), devices.keyboard_controller()])
    return _table(b"DSDT", 2, b"FCVMDSDT", body)


def fadt(dsdt_addr: int) -> bytes:
    """Make the table of fixed hardware: there is none (§5.2.9)."""
    table = bytearray(_FADT_SIZE)
    pack_into("<HxI", table, 109, _VGA_NOT_PRESENT, _HW_REDUCED_ACPI | _SLP_BUTTON | _PWR_BUTTON)
    pack_into("<B", table, 131, _FADT_MINOR_VERSION)
    pack_into("<Q", table, 140, dsdt_addr)
    pack_into("<8s", table, 268, b"FIRECKVM")
    return _table(b"FACP", 6, b"FCVMFADT", bytes(table[_HEADER_SIZE:]))


def madt(cpu_count: int) -> bytes:
    """Make the table of interrupt controllers: one I/O APIC, one local APIC a CPU (§5.2.12)."""
    body = pack("<II", layout.LAPIC, 0)
    body += pack("<BBBxII", _MADT_IO_APIC, 12, 0, layout.IOAPIC, 0)
    for cpu in range(cpu_count):
        body += pack("<BBBBI", _MADT_LOCAL_APIC, 8, cpu, cpu, 1)
    return _table(b"APIC", 6, b"FCVMMADT", body)


def mcfg() -> bytes:
    """Make the table of PCI Express configuration space: bus 0 of segment 0 (PCI Firmware 3.3 §4.1.2)."""
    return _table(b"MCFG", 1, b"FCMVMCFG", pack("<8xQHBB4x", layout.PCI_MMCONFIG_START, 0, 0, 0))


def _xsdt(addrs: list[int]) -> bytes:
    """Make the table of tables (§5.2.8)."""
    return _table(b"XSDT", 1, b"FCVMXSDT", pack(f"<{len(addrs)}Q", *addrs))


def _rsdp(xsdt_addr: int) -> bytes:
    """Make the pointer to start from; ACPI 1.0 summed its first 20 bytes, later versions all 36 (§5.2.5.3)."""
    rsdp = bytearray(pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, _OEM_ID, 2, 0, 36, xsdt_addr, 0))
    rsdp[8] = -sum(rsdp[:20]) & 0xFF
    rsdp[32] = -sum(rsdp) & 0xFF
    return bytes(rsdp)


def _table(signature: bytes, revision: int, oem_table_id: bytes, body: bytes) -> bytes:
    """Put the header that all tables share in front (§5.2.6)."""
    table = bytearray(
        pack(
            "<4sIBB6s8sI4sI",
            signature,
            _HEADER_SIZE + len(body),
            revision,
            0,
            _OEM_ID,
            oem_table_id,
            _OEM_REVISION,
            _CREATOR_ID,
            _CREATOR_REVISION,
        )
        + body
    )
    table[9] = -sum(table) & 0xFF
    return bytes(table)
