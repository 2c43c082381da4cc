"""Device objects and tables, byte for byte as an independent encoder made them, and reachable from the RSDP."""

import hashlib
import struct

import pytest

from hibana.boot.acpi import devices
from hibana.boot.acpi.tables import dsdt, fadt, madt, mcfg, write_acpi_tables
from hibana.memory.allocator import Pools
from hibana.memory.guest import GuestMemory
from hibana.units import MIB

VECTORS = {
    "V000": (
        "5b82450456303030085f4849440d4c4e524f3030303500085f5549440c00000000085f43434101085f43525311"
        "1a0a1786090001001000c0001000008906000301050000007900"
    ),
    "VGEN": (
        "5b8246052e5f53425f5647454e085f4849440d564d47454e43545200085f4349440d564d5f47656e5f436f756e"
        "74657200085f44444e0d564d5f47656e5f436f756e746572000841444452120c020cf0ff0d000c00000000"
    ),
    "VCLK": (
        "5b8249072e5f53425f56434c4b085f4849440d414d5a4e4331304300085f4349440d564d434c4f434b00085f44"
        "444e0d564d434c4f434b0014095f53544100a40a0f085f43525311330a308a2b00000c02000000000000000000"
        "e00d0000000000ffef0d0000000000000000000000000000100000000000007900"
    ),
    "GED_": (
        "5b8244062e5f53425f4745445f085f4849440d414350493030313300085f43525311170a148906000301060000"
        "008906000301070000007900142c5f45565409a01293680a06865c2e5f53425f5647454e0a80a01293680a0786"
        "5c2e5f53425f56434c4b0a80"
    ),
    "COM1": (
        "5b8243042e5f53425f434f4d31085f4849440c41d00501085f5549440a00085f44444e0d434f4d3100085f4352"
        "5311160a138906000301040000004701f803f80301087900"
    ),
    "PS2_": (
        "5b8243042e5f53425f5053325f085f4849440c41d0030314095f53544100a40a0f085f435253111e0a1b470160"
        "006000010147016400640001018906000301010000007900"
    ),
}
OBJECTS = {
    "V000": devices.virtio_mmio(0xC0001000, 5),
    "VGEN": devices.vmgenid(0xDFFF0),
    "VCLK": devices.vmclock(0xDE000, 4096),
    "GED_": devices.generic_event_device(6, 7),
    "COM1": devices.serial(),
    "PS2_": devices.keyboard_controller(),
}


@pytest.mark.parametrize("device", VECTORS)
def test_a_device_object_has_the_reference_bytes(device: str) -> None:
    assert OBJECTS[device].hex() == VECTORS[device]


def test_the_whole_dsdt_has_the_reference_hash() -> None:
    table = dsdt([OBJECTS[device] for device in ("V000", "VGEN", "VCLK", "GED_")])
    assert len(table) == 558
    digest = hashlib.sha256(table).hexdigest()
    assert digest == "4aebc67b10b43ce94f7a5b5063ccf6b7f7a33e44b8c816028cb5c07a3bbf6610"


def test_devices_are_numbered_from_the_first_free_line() -> None:
    assert b"V018" in devices.virtio_mmio(0xC0013000, 23)


def test_a_generation_id_above_4_gib_is_split_in_two() -> None:
    assert devices.vmgenid(0x123456789).endswith(bytes.fromhex("0c89674523 0c01000000"))


def header(signature: bytes, size: int, revision: int, oem_table_id: bytes, checksum: int) -> bytes:
    return struct.pack(
        "<4sIBB6s8sI4sI", signature, size, revision, checksum, b"FIRECK", oem_table_id, 0, b"FCAT", 0x20240119
    )


def test_the_fadt_says_that_there_is_no_fixed_hardware() -> None:
    table = fadt(0x9FD30)
    body = bytearray(276)
    body[:36] = header(b"FACP", 276, 6, b"FCVMFADT", table[9])
    body[109:111] = b"\4\0"
    body[112:116] = (0x00100030).to_bytes(4, "little")
    body[131] = 5
    body[140:148] = (0x9FD30).to_bytes(8, "little")
    body[268:276] = b"FIRECKVM"
    assert table == body


@pytest.mark.parametrize("cpu_count", [1, 2, 32])
def test_the_madt_lists_one_io_apic_and_every_cpu(cpu_count: int) -> None:
    table = madt(cpu_count)
    cpus = b"".join(bytes([0, 8, cpu, cpu, 1, 0, 0, 0]) for cpu in range(cpu_count))
    assert table[:36] == header(b"APIC", 56 + 8 * cpu_count, 6, b"FCVMMADT", table[9])
    assert table[36:] == struct.pack("<IIBBBBII", 0xFEE00000, 0, 1, 12, 0, 0, 0xFEC00000, 0) + cpus


def test_the_mcfg_covers_one_bus() -> None:
    table = mcfg()
    assert table == header(b"MCFG", 60, 1, b"FCMVMCFG", table[9]) + struct.pack("<QQHBBI", 0, 0xEEC00000, 0, 0, 0, 0)


def sdt(memory: GuestMemory, addr: int) -> bytes:
    """Read a table as a kernel does: its length from its header."""
    (size,) = struct.unpack_from("<I", memory.window(addr, 8), 4)
    return memory.read(addr, size)


def test_every_table_is_found_from_the_rsdp_and_sums_to_zero() -> None:
    memory = GuestMemory(2 * MIB)
    write_acpi_tables(memory, Pools().system, 2, [])
    rsdp = memory.read(0xE0000, 36)
    assert rsdp[:8] == b"RSD PTR "
    assert sum(rsdp[:20]) % 256 == sum(rsdp) % 256 == 0
    oem, revision, rsdt, size, xsdt_addr, _, reserved = struct.unpack_from("<6sBIIQB3s", rsdp, 9)
    assert (oem, revision, rsdt, size, reserved) == (b"FIRECK", 2, 0, 36, bytes(3))
    xsdt = sdt(memory, xsdt_addr)
    assert xsdt[:36] == header(b"XSDT", 60, 1, b"FCVMXSDT", xsdt[9])
    tables = [sdt(memory, addr) for (addr,) in struct.iter_unpack("<Q", xsdt[36:])]
    assert [table[:4] for table in tables] == [b"FACP", b"APIC", b"MCFG"]
    tables += [sdt(memory, struct.unpack_from("<Q", tables[0], 140)[0]), xsdt]
    assert all(sum(table) % 256 == 0 for table in tables)


def test_tables_are_packed_in_the_order_of_the_reference() -> None:
    memory = GuestMemory(2 * MIB)
    write_acpi_tables(memory, Pools().system, 1, [])
    at = 0x9FC00
    found = []
    while memory.read(at, 1) != b"\0":
        table = sdt(memory, at)
        found.append(table[:4])
        at += len(table)
    assert found == [b"DSDT", b"FACP", b"APIC", b"MCFG", b"XSDT"]
