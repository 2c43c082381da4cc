"""The descriptor tables and segments a kernel starts with: flat, at privilege level 0 (SDM vol. 3 §3.4.5)."""

from struct import pack
from typing import Final, NamedTuple

from hibana.boot.entry import BootProtocol
from hibana.engine.state import DescriptorTable, Segment
from hibana.memory import layout
from hibana.memory.guest import GuestMemory


class Gdt(NamedTuple):
    """The boot GDT; entry n has selector 8n."""

    null: int
    code: int
    data: int
    tss: int


GDT: Final = {
    BootProtocol.LINUX_64: Gdt(0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x008F8B000000FFFF),
    BootProtocol.PVH: Gdt(0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00008B0000000067),
}
GDTR: Final = DescriptorTable(layout.BOOT_GDT, 8 * len(Gdt._fields) - 1)
IDTR: Final = DescriptorTable(layout.BOOT_IDT, 7)  # one empty entry: an exception this early is a triple fault


def write_descriptor_tables(memory: GuestMemory, protocol: BootProtocol) -> None:
    """Write the GDT of a protocol and an IDT without handlers."""
    memory.write(layout.BOOT_GDT, pack("<4Q", *GDT[protocol]))
    memory.write(layout.BOOT_IDT, bytes(8))


def segment(descriptor: int, selector: int) -> Segment:
    """Load a descriptor as the CPU would: scattered fields gathered, the limit in bytes."""
    limit = descriptor & 0xFFFF | descriptor >> 32 & 0xF0000
    granular = descriptor >> 55 & 1
    return Segment(
        base=descriptor >> 16 & 0xFFFFFF | descriptor >> 32 & 0xFF000000,
        limit=limit << 12 | 0xFFF if granular else limit,
        selector=selector,
        type=descriptor >> 40 & 0xF,
        s=descriptor >> 44 & 1,
        dpl=descriptor >> 45 & 3,
        present=descriptor >> 47 & 1,
        avl=descriptor >> 52 & 1,
        l=descriptor >> 53 & 1,
        db=descriptor >> 54 & 1,
        g=granular,
    )
