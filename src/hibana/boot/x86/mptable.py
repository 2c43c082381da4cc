"""The MP table: CPUs, buses and interrupt lines for kernels without ACPI (Intel MultiProcessor Specification 1.4)."""

from struct import pack
from typing import Final

from hibana.memory import layout
from hibana.memory.allocator import RangeAllocator
from hibana.memory.guest import GuestMemory

_SPEC_1_4: Final = 4
_APIC_VERSION: Final = 0x14
_POINTER_SIZE: Final = 16
_HEADER_SIZE: Final = 44

_PROCESSOR: Final = 0
_BUS: Final = 1
_IOAPIC: Final = 2
_INTERRUPT: Final = 3
_LOCAL_INTERRUPT: Final = 4

_ENABLED: Final = 1
_BOOT_PROCESSOR: Final = 2
_CPU_SIGNATURE: Final = 0x600  # a Pentium Pro
_CPU_FEATURES: Final = 0x201  # FPU, APIC

_INT: Final = 0
_NMI: Final = 1
_EXTINT: Final = 3
_ALL_APICS: Final = 0xFF


def write_mptable(memory: GuestMemory, system: RangeAllocator, cpu_count: int) -> None:
    """Write the table where an EBDA would be: the last KiB of low RAM, where kernels search."""
    entries = _entries(cpu_count)
    size = _HEADER_SIZE + sum(map(len, entries))
    addr = system.lowest(_POINTER_SIZE + size)
    table = b"".join([_header(size, len(entries)), *entries])
    memory.write(addr, _pointer(addr + _POINTER_SIZE) + _with_checksum(table, 7))


def _pointer(table_addr: int) -> bytes:
    """Make the MP Floating Pointer Structure (§4.1)."""
    return _with_checksum(pack("<4sIBBB5x", b"_MP_", table_addr, 1, _SPEC_1_4, 0), 10)


def _header(size: int, entry_count: int) -> bytes:
    """Make the MP Configuration Table Header (§4.2); the reference counts the pointer as an entry, too."""
    return pack(
        "<4sHBB8s12sIHHI4x",
        b"PCMP",
        size,
        _SPEC_1_4,
        0,
        b"FC      ",
        b"000000000000",
        0,
        0,
        entry_count + 1,
        layout.LAPIC,
    )


def _entries(cpu_count: int) -> list[bytes]:
    """List the Base MP Configuration Table Entries (§4.3)."""
    ioapic_id = cpu_count + 1
    return [
        *(
            pack(
                "<BBBBII8x",
                _PROCESSOR,
                cpu,
                _APIC_VERSION,
                _ENABLED if cpu else _ENABLED | _BOOT_PROCESSOR,
                _CPU_SIGNATURE,
                _CPU_FEATURES,
            )
            for cpu in range(cpu_count)
        ),
        pack("<BB6s", _BUS, 0, b"ISA   "),
        pack("<BBBBI", _IOAPIC, ioapic_id, _APIC_VERSION, _ENABLED, layout.IOAPIC),
        *(pack("<BBHBBBB", _INTERRUPT, _INT, 0, 0, gsi, ioapic_id, gsi) for gsi in range(layout.GSI_LAST_LEGACY + 1)),
        pack("<BBHBBBB", _LOCAL_INTERRUPT, _EXTINT, 0, 0, 0, 0, 0),
        pack("<BBHBBBB", _LOCAL_INTERRUPT, _NMI, 0, 0, 0, _ALL_APICS, 1),
    ]


def _with_checksum(structure: bytes, at: int) -> bytes:
    """Fill in the byte that makes the sum of all bytes a multiple of 256."""
    return structure[:at] + bytes([-sum(structure) & 0xFF]) + structure[at + 1 :]
