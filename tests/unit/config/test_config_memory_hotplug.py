"""Sizes of hotpluggable memory."""

import pytest

from hibana.config import memory_hotplug
from hibana.config.memory_hotplug import MemoryHotplugConfig
from hibana.errors import (
    VmmError,
)


@pytest.mark.parametrize(
    ("total", "block", "slot", "sentence"),
    [
        (1024, 1, 1, "Block size must not be lower than 2 MiB"),
        (1024, 3, 1, "Block size must be a power of 2"),
        (1024, 2, 64, "Slot size must not be lower than 128 MiB"),
        (1024, 256, 128, "Slot size must be a multiple of block size (256 MiB)"),
        (64, 2, 128, "Total size must not be lower than slot size (128 MiB)"),
        (192, 2, 128, "Total size must be a multiple of slot size (128 MiB)"),
    ],
)
def test_the_sizes_of_hotpluggable_memory_fit_each_other(total: int, block: int, slot: int, sentence: str) -> None:
    with pytest.raises(VmmError) as refused:
        memory_hotplug.check(MemoryHotplugConfig(total, block, slot))
    assert str(refused.value) == sentence


def test_good_sizes_of_hotpluggable_memory() -> None:
    memory_hotplug.check(MemoryHotplugConfig(1024))
    memory_hotplug.check(MemoryHotplugConfig(512, 4, 256))
