"""A drive besides the root: exchanged, grown, limited and cut off while the guest runs."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from hibana.config.drive import BlockDeviceConfig, BlockDeviceUpdateConfig
from hibana.config.rate_limit import RateLimiterConfig, TokenBucketConfig
from hibana.sdk.machine import Machine
from hibana.units import MIB
from tests.guest.conftest import Boot

READ: Final = "dd if=/dev/vda bs=64k iflag=direct 2>/dev/null | sha256sum"


def with_drive(image: Path, io_engine: str) -> Callable[[Machine], None]:
    config = BlockDeviceConfig(
        drive_id="data",
        is_root_device=False,
        path_on_host=str(image),
        cache_type="Writeback",
        io_engine=io_engine,  # type: ignore[arg-type]
    )
    return lambda api: api.put_drive(config)


def image_of(folder: Path, name: str, size: int) -> Path:
    image = folder / name
    image.write_bytes(os.urandom(size))
    return image


def digest(image: Path) -> str:
    return f"{hashlib.sha256(image.read_bytes()).hexdigest()}  -"


@pytest.fixture(params=["Sync", "Async"])
def io_engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_drive_is_swapped_while_the_guest_runs(boot: Boot, tmp_path: Path, io_engine: str) -> None:
    small, large = image_of(tmp_path, "small", 1 * MIB), image_of(tmp_path, "large", 3 * MIB)
    vm = boot(prepare=with_drive(small, io_engine))
    assert vm.run(READ) == digest(small)
    vm.api.patch_drive(BlockDeviceUpdateConfig("data", path_on_host=str(large)))
    vm.run("until [ $(cat /sys/block/vda/size) = 6144 ]; do sleep 0.1; done")
    assert vm.run(READ) == digest(large)
    vm.run("dd if=/bin/busybox of=/dev/vda bs=4k count=64 conv=fsync 2>/dev/null")
    assert vm.run(READ) == digest(large), "what the guest writes is in the new file"


def test_a_drive_that_has_grown_says_so(boot: Boot, tmp_path: Path, io_engine: str) -> None:
    image = image_of(tmp_path, "image", 1 * MIB)
    vm = boot(prepare=with_drive(image, io_engine))
    os.truncate(image, 2 * MIB)
    vm.api.patch_drive(BlockDeviceUpdateConfig("data", path_on_host=str(image)))
    vm.run("until [ $(cat /sys/block/vda/size) = 4096 ]; do sleep 0.1; done")
    assert vm.run(READ) == digest(image)


def test_a_drive_whose_file_was_cut_off_is_broken_where_it_ends(boot: Boot, tmp_path: Path, io_engine: str) -> None:
    image = image_of(tmp_path, "image", 1 * MIB)
    vm = boot(prepare=with_drive(image, io_engine))
    os.truncate(image, MIB // 2)
    vm.run("dd if=/dev/vda of=/dev/null bs=64k count=8 iflag=direct")
    assert "I/O error" in vm.run("dd if=/dev/vda of=/dev/null bs=64k skip=8 iflag=direct", exit_code=1)
    assert vm.is_running


def test_a_limited_drive_makes_the_guest_wait(boot: Boot, tmp_path: Path, io_engine: str) -> None:
    """One MiB at once, and then 512 KiB a second."""
    vm = boot(prepare=with_drive(image_of(tmp_path, "image", 2 * MIB), io_engine))
    limit = RateLimiterConfig(bandwidth=TokenBucketConfig(size=MIB, refill_time=2000))
    vm.api.patch_drive(BlockDeviceUpdateConfig("data", rate_limiter=limit))
    before = float(vm.run("cut -d' ' -f1 /proc/uptime"))
    vm.run(READ)
    assert float(vm.run("cut -d' ' -f1 /proc/uptime")) - before >= 1.8
