"""Which guest addresses are RAM: the list that Linux gets as e820 and a PVH kernel as its memory map."""

import enum
from typing import NamedTuple

from hibana.memory import layout
from hibana.memory.layout import RamRegion


class MapType(enum.IntEnum):
    """What may be done with a range; e820 and PVH use the same numbers."""

    RAM = 1
    RESERVED = 2


class MapEntry(NamedTuple):
    """A range of guest-physical addresses."""

    addr: int
    size: int
    type: MapType


def memory_map(regions: tuple[RamRegion, ...]) -> list[MapEntry]:
    """List low RAM, what firmware keeps, and every region of RAM from 1 MiB on (machine.md §1.3)."""
    entries = [
        MapEntry(0, layout.SYSTEM_START, MapType.RAM),
        MapEntry(layout.SYSTEM_START, layout.SYSTEM_SIZE, MapType.RESERVED),
        MapEntry(layout.PCI_MMCONFIG_START, layout.PCI_MMCONFIG_SIZE, MapType.RESERVED),
    ]
    for region in regions:
        start = max(layout.HIMEM_START, region.start)
        entries.append(MapEntry(start, region.end - start, MapType.RAM))
    return entries
