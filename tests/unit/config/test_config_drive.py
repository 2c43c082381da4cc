"""Drives: a file or a socket, opened and measured."""

import os
from pathlib import Path

import pytest

from hibana.config.drive import BlockDeviceConfig, Drive
from hibana.config.rate_limit import RateLimiterConfig
from hibana.errors import CreateDriveError, IoEngineError
from hibana.testing.disk import grant_async


def test_a_drive_is_measured_and_shown_with_its_defaults(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(1024))
    drive = Drive(BlockDeviceConfig(drive_id="a", is_root_device=True, path_on_host=str(image)), grant_async)
    assert drive.size == 1024
    assert (drive.config.is_read_only, drive.config.io_engine, drive.config.cache_type) == (False, "Sync", "Unsafe")
    drive.close()


def test_a_drive_of_no_size_is_legal(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.touch()
    drive = Drive(BlockDeviceConfig(drive_id="a", is_root_device=False, path_on_host=str(image)), grant_async)
    assert drive.size == 0
    drive.close()


def test_a_vhost_user_drive_is_shown_without_the_fields_of_a_file() -> None:
    config = BlockDeviceConfig(drive_id="a", is_root_device=False, socket="/s")
    drive = Drive(config, grant_async)
    assert drive.config == config
    assert drive.fd is None


@pytest.mark.parametrize(
    "config",
    [
        BlockDeviceConfig(drive_id="a", is_root_device=False),
        BlockDeviceConfig(drive_id="a", is_root_device=False, path_on_host="/p", socket="/s"),
        BlockDeviceConfig(drive_id="a", is_root_device=False, socket="/s", is_read_only=False),
        BlockDeviceConfig(drive_id="a", is_root_device=False, socket="/s", io_engine="Sync"),
        BlockDeviceConfig(drive_id="a", is_root_device=False, socket="/s", rate_limiter=RateLimiterConfig()),
    ],
)
def test_a_drive_is_either_a_file_or_a_socket(config: BlockDeviceConfig) -> None:
    with pytest.raises(CreateDriveError, match=r"^Unable to create the virtio block device: Invalid block config\.$"):
        Drive(config, grant_async)


def test_a_missing_image_is_named() -> None:
    with pytest.raises(CreateDriveError) as refused:
        Drive(BlockDeviceConfig(drive_id="a", is_root_device=False, path_on_host="foo.bar"), grant_async)
    assert str(refused.value) == (
        "Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: "
        "No such file or directory (os error 2) foo.bar"
    )


def test_a_fifo_is_no_drive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CreateDriveError, match=r"Invalid seek \(os error 29\)"):
        Drive(BlockDeviceConfig(drive_id="a", is_root_device=False, path_on_host=str(tmp_path / "fifo")), grant_async)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_host_without_io_uring_says_so_before_the_start(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.touch()

    def refuse(fd: int) -> None:
        raise IoEngineError(cause="no such thing here")

    before = os.listdir("/proc/self/fd")
    with pytest.raises(CreateDriveError) as refused:
        Drive(BlockDeviceConfig(drive_id="a", is_root_device=False, path_on_host=str(image), io_engine="Async"), refuse)
    assert str(refused.value) == (
        "Unable to create the virtio block device: Virtio backend error: Error coming from the IO engine:"
        " no such thing here"
    )
    assert os.listdir("/proc/self/fd") == before, "the file is closed"
    Drive(BlockDeviceConfig(drive_id="a", is_root_device=False, path_on_host=str(image)), refuse).close()
