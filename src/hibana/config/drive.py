"""Drives (api.md §3.6)."""

import os
from collections.abc import Callable
from typing import Final, Literal

from hibana.config.host_file import open_host_file
from hibana.config.rate_limit import RateLimiterConfig, effective
from hibana.errors import (
    BackingFileError,
    CreateDriveError,
    HostFileError,
    InvalidDriveConfig,
    IoEngineError,
    VirtioDriveError,
    os_text,
)
from hibana.observe import log
from hibana.serde.shapes import Strict

CacheType = Literal["Unsafe", "Writeback"]
IoEngine = Literal["Async", "Sync"]

SECTOR: Final = 512

TryAsync = Callable[[int], None]
"""Finds out whether this host can do `io_engine: Async` on an open file. Raises IoEngineError if it cannot."""


class BlockDeviceConfig(Strict, kw_only=True):
    drive_id: str
    partuuid: str | None = None
    is_root_device: bool
    cache_type: CacheType = "Unsafe"
    is_read_only: bool | None = None
    path_on_host: str | None = None
    rate_limiter: RateLimiterConfig | None = None
    io_engine: IoEngine | None = None
    socket: str | None = None

    def is_virtio(self) -> bool:
        """Tell a file on the host (True) from a vhost-user back end (False). Raises InvalidDriveConfig."""
        if self.path_on_host is not None and self.socket is None:
            return True
        file_only = (self.is_read_only, self.path_on_host, self.rate_limiter, self.io_engine)
        if self.socket is not None and all(field is None for field in file_only):
            return False
        raise InvalidDriveConfig


class BlockDeviceUpdateConfig(Strict):
    drive_id: str
    path_on_host: str | None = None
    rate_limiter: RateLimiterConfig | None = None


class Drive:
    """A drive whose backing file is open; a vhost-user drive has none and is connected by its device."""

    def __init__(self, config: BlockDeviceConfig, try_async: TryAsync) -> None:
        """Open the backing file, and see that the engine works with it. Raises CreateDriveError."""
        self.fd: int | None = None
        self.size = 0
        try:
            if not config.is_virtio():
                self.config = config
                return
            self.fd, self.size = open_backing_file(config.path_on_host or "", bool(config.is_read_only))
            if config.io_engine == "Async":
                self._try(try_async)
        except (InvalidDriveConfig, VirtioDriveError) as error:
            raise CreateDriveError(cause=error) from error
        self.config = BlockDeviceConfig(
            drive_id=config.drive_id,
            partuuid=config.partuuid,
            is_root_device=config.is_root_device,
            cache_type=config.cache_type,
            is_read_only=bool(config.is_read_only),
            path_on_host=config.path_on_host,
            rate_limiter=effective(config.rate_limiter),
            io_engine=config.io_engine or "Sync",
        )

    def _try(self, try_async: TryAsync) -> None:
        assert self.fd is not None
        try:
            try_async(self.fd)
        except IoEngineError as error:
            self.close()
            raise VirtioDriveError(cause=error) from error

    def exchange(self, path: str, fd: int, size: int) -> None:
        """Own another backing file from now on, and close the former one."""
        self.close()
        self.fd = fd
        self.size = size
        self.config.path_on_host = path

    def close(self) -> None:
        """Close the backing file."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def open_backing_file(path: str, read_only: bool) -> tuple[int, int]:
    """Open the file behind a drive; give its descriptor and its size. Raises VirtioDriveError."""
    try:
        fd = open_host_file(path, os.O_RDONLY if read_only else os.O_RDWR)
    except HostFileError as error:
        raise VirtioDriveError(cause=BackingFileError(cause=error, path=path)) from error
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
    except OSError as error:  # not seekable: a FIFO, a terminal
        os.close(fd)
        raise VirtioDriveError(cause=BackingFileError(cause=os_text(error), path=path)) from error
    if size % SECTOR:
        log.warn(
            f"Disk size {size} is not a multiple of sector size {SECTOR}; the remainder will not be visible to the"
            " guest."
        )
    return fd, size
