"""Memory that is plugged while the guest runs (api.md §3.19)."""

from typing import Final

from msgspec import Struct

from hibana.errors import (
    BlockSizeNotPowerOfTwo,
    BlockSizeTooSmall,
    SlotSizeNotMultiple,
    SlotSizeTooSmall,
    TotalSizeNotMultiple,
    TotalSizeTooSmall,
)
from hibana.serde.shapes import U32, Strict
from hibana.units import is_power_of_two

MIN_BLOCK_MIB: Final = 2
MIN_SLOT_MIB: Final = 128


class MemoryHotplugConfig(Strict):
    total_size_mib: U32
    block_size_mib: U32 = MIN_BLOCK_MIB
    slot_size_mib: U32 = MIN_SLOT_MIB


class MemoryHotplugSizeUpdate(Strict):
    requested_size_mib: U32


class MemoryHotplugStatus(Struct):
    """The answer of GET /hotplug/memory."""

    block_size_mib: U32
    total_size_mib: U32
    slot_size_mib: U32
    plugged_size_mib: U32
    requested_size_mib: U32


def check(config: MemoryHotplugConfig) -> None:
    """Check block, slot and total size, in this order. Raises the error of the first that is wrong."""
    total, block, slot = config.total_size_mib, config.block_size_mib, config.slot_size_mib
    if block < MIN_BLOCK_MIB:
        raise BlockSizeTooSmall
    if not is_power_of_two(block):
        raise BlockSizeNotPowerOfTwo
    if slot < MIN_SLOT_MIB:
        raise SlotSizeTooSmall
    if slot % block:
        raise SlotSizeNotMultiple(block_size_mib=block)
    if total < slot:
        raise TotalSizeTooSmall(slot_size_mib=slot)
    if total % slot:
        raise TotalSizeNotMultiple(slot_size_mib=slot)
