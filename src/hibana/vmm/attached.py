"""Virtio devices of a microVM: each made of what was wanted and a host end, and changed by PATCH while the guest runs.

The notebook's entries (`Drive`, `Interface`) own the descriptors and what GET /vm/config shows; here they are connected
with the device that the guest sees. A change is prepared on the API's thread, and made where devices live.
"""

import os

from hibana.bus.home import Home
from hibana.config.drive import BlockDeviceUpdateConfig, Drive, open_backing_file
from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.net import Interface, NetworkInterfaceUpdateConfig
from hibana.config.rate_limit import RateLimiterConfig, TokenBucketConfig, merged
from hibana.devices.rate_limiter import Limit, RateLimiter
from hibana.devices.virtio.block import Block
from hibana.devices.virtio.net import Net
from hibana.devices.virtio.rng import Rng
from hibana.errors import IoEngineError, VirtioDriveError, WrongDriveBackend
from hibana.host.disk import FileDisk
from hibana.host.disk_uring import UringDisk
from hibana.host.tap import Tap
from hibana.vmm.machine import Ask


class AttachedDrive:
    """A drive with its file."""

    def __init__(self, drive: Drive, home: Home) -> None:
        """Make the device. Raises VirtioDriveError."""
        self._drive = drive
        self._home = home
        config = drive.config
        assert drive.fd is not None  # no vhost-user drive comes here
        self._disk = self._open(drive.fd, drive.size)
        self.device = Block(
            config.drive_id,
            self._disk,
            RateLimiter(*limits(config.rate_limiter), home),
            read_only=bool(config.is_read_only),
            writeback=config.cache_type == "Writeback",
        )

    def patch(self, change: BlockDeviceUpdateConfig, ask: Ask) -> None:
        """Exchange the file, then the rate limiter. Raises VirtioDriveError, WrongDriveBackend."""
        if change.path_on_host is None and change.rate_limiter is None:
            raise WrongDriveBackend
        config = self._drive.config
        if (path := change.path_on_host) is not None:
            fd, size = open_backing_file(path, bool(config.is_read_only))
            try:
                ask(lambda: self._exchange(fd, size))
            except VirtioDriveError:
                os.close(fd)
                raise
            self._drive.exchange(path, fd, size)
        if (limiter := change.rate_limiter) is not None:
            ask(lambda: self.device.limiter.update(*limits(limiter)))
            config.rate_limiter = merged(config.rate_limiter, limiter)

    def close(self) -> None:
        """Finish what is under way."""
        self.device.close()
        self._disk.close()

    def _exchange(self, fd: int, size: int) -> None:
        self.device.drain()
        try:
            self._disk.exchange(fd, size)
        except IoEngineError as error:
            raise VirtioDriveError(cause=error) from error
        self.device.replace_disk(self._disk)

    def _open(self, fd: int, size: int) -> FileDisk | UringDisk:
        if self._drive.config.io_engine != "Async":
            return FileDisk(fd, size)
        try:
            return UringDisk(fd, size, self._home)
        except IoEngineError as error:
            raise VirtioDriveError(cause=error) from error


class AttachedInterface:
    """A network interface with its tap."""

    def __init__(self, interface: Interface, home: Home) -> None:
        """Make the device."""
        self._interface = interface
        config = interface.config
        self.device = Net(
            config.iface_id,
            Tap(interface.fd, home),
            bytes.fromhex(config.guest_mac.replace(":", "")) if config.guest_mac else None,
            config.mtu,
            RateLimiter(*limits(config.rx_rate_limiter), home),
            RateLimiter(*limits(config.tx_rate_limiter), home),
        )

    def patch(self, change: NetworkInterfaceUpdateConfig, ask: Ask) -> None:
        """Change the rate limiters."""
        ask(lambda: self._limit(change))
        self._interface.update(change)

    def _limit(self, change: NetworkInterfaceUpdateConfig) -> None:
        self.device.rx_limiter.update(*limits(change.rx_rate_limiter))
        self.device.tx_limiter.update(*limits(change.tx_rate_limiter))


def entropy_device(config: EntropyDeviceConfig, home: Home) -> Rng:
    """Make the entropy device."""
    return Rng(RateLimiter(*limits(config.rate_limiter), home))


def limits(config: RateLimiterConfig | None) -> tuple[Limit | None, Limit | None]:
    """Translate a rate limiter as users write it: bandwidth and operations."""
    if config is None:
        return None, None
    bandwidth, ops = (limit(bucket) if bucket else None for bucket in (config.bandwidth, config.ops))
    return bandwidth, ops


def limit(bucket: TokenBucketConfig) -> Limit:
    """Translate one token bucket."""
    return Limit(bucket.size, bucket.one_time_burst or 0, bucket.refill_time)
