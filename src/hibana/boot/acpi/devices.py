r"""The objects of the DSDT: one function a device, in the order in which they stand in the table (machine.md §5.5).

A device that a microVM may or may not have gives its object to `tables.py` through the boot step; serial port and
keyboard controller are always there.
"""

from typing import Final

from hibana.boot.acpi import aml
from hibana.memory import layout

_PRESENT: Final = aml.method("_STA", 0, aml.return_(aml.byte(0x0F)))  # present, enabled, shown, working


def virtio_mmio(addr: int, gsi: int) -> bytes:
    """Describe a virtio device on the MMIO transport."""
    index = gsi - layout.GSI_FIRST_FREE
    return aml.device(
        f"V{index:03d}",
        aml.name("_HID", aml.string("LNRO0005")),
        aml.name("_UID", aml.dword(index)),
        aml.name("_CCA", aml.ONE),
        aml.name("_CRS", aml.resources(aml.fixed_memory(addr, layout.MMIO_SLOT_SIZE), aml.interrupt(gsi))),
    )


def vmgenid(addr: int) -> bytes:
    """Describe the generation ID, which changes when a snapshot is restored."""
    return aml.device(
        "_SB_.VGEN",
        aml.name("_HID", aml.string("VMGENCTR")),
        aml.name("_CID", aml.string("VM_Gen_Counter")),
        aml.name("_DDN", aml.string("VM_Gen_Counter")),
        aml.name("ADDR", aml.package(aml.dword(addr & 0xFFFFFFFF), aml.dword(addr >> 32))),
    )


def vmclock(addr: int, size: int) -> bytes:
    """Describe the page that tells how the clock was disturbed."""
    return aml.device(
        "_SB_.VCLK",
        aml.name("_HID", aml.string("AMZNC10C")),
        aml.name("_CID", aml.string("VMCLOCK")),
        aml.name("_DDN", aml.string("VMCLOCK")),
        _PRESENT,
        aml.name("_CRS", aml.resources(aml.cacheable_memory(addr, size))),
    )


def generic_event_device(vmgenid_gsi: int, vmclock_gsi: int) -> bytes:
    """Describe the device that turns an interrupt into a notification of VGEN or VCLK."""
    changed = aml.byte(0x80)
    return aml.device(
        "_SB_.GED_",
        aml.name("_HID", aml.string("ACPI0013")),
        aml.name("_CRS", aml.resources(aml.interrupt(vmgenid_gsi), aml.interrupt(vmclock_gsi))),
        aml.method(
            "_EVT",
            1,
            aml.if_(aml.equal(aml.arg(0), aml.byte(vmgenid_gsi)), aml.notify("\\_SB_.VGEN", changed)),
            aml.if_(aml.equal(aml.arg(0), aml.byte(vmclock_gsi)), aml.notify("\\_SB_.VCLK", changed)),
            serialized=True,
        ),
    )


def serial() -> bytes:
    """Describe the 16550A at COM1."""
    return aml.device(
        "_SB_.COM1",
        aml.name("_HID", aml.eisa_id("PNP0501")),
        aml.name("_UID", aml.byte(0)),
        aml.name("_DDN", aml.string("COM1")),
        aml.name("_CRS", aml.resources(aml.interrupt(layout.GSI_SERIAL), aml.io_ports(layout.PORT_SERIAL, 8))),
    )


def keyboard_controller() -> bytes:
    """Describe the i8042."""
    return aml.device(
        "_SB_.PS2_",
        aml.name("_HID", aml.eisa_id("PNP0303")),
        _PRESENT,
        aml.name(
            "_CRS",
            aml.resources(
                aml.io_ports(layout.PORT_KEYBOARD, 1),
                aml.io_ports(layout.PORT_KEYBOARD + 4, 1),
                aml.interrupt(layout.GSI_KEYBOARD),
            ),
        ),
    )
