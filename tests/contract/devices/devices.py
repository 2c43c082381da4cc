"""The table of devices that must pass; a new one is a function here and a line in DEVICES."""

import os
from collections.abc import Callable
from struct import pack
from typing import Final, Literal, NamedTuple

from hibana.devices.rate_limiter import Limit, RateLimiter
from hibana.devices.virtio.block import Block, Disk
from hibana.devices.virtio.device import VirtioDevice
from hibana.devices.virtio.net import Net
from hibana.devices.virtio.rng import Rng
from hibana.host.disk import FileDisk
from hibana.testing.disk import MemoryDisk
from hibana.testing.fakes import FakeTimers
from hibana.testing.net import FakeTap
from hibana.testing.virtio import Offer

SECTOR: Final = 512
_DISK: Final = bytes(64 * SECTOR)
_FRAME: Final = bytes(12) + b"\2\0\0\0\0\1" * 2 + b"\x08\0" + bytes(300)


class Case(NamedTuple):
    """A device with the world around it."""

    device: VirtioDevice
    requests: list[tuple[int, list[Offer]]]
    """What a good driver says: the queue, and the buffers of a chain. `host_event` must be enough to answer it."""
    host_event: Callable[[], None]
    """Something happens outside."""
    timers: FakeTimers
    close: Callable[[], None]


def _nothing() -> None:
    pass


def _limiter(timers: FakeTimers, *, slow: bool) -> RateLimiter:
    if slow:
        return RateLimiter(Limit(4096, 100, 1000), Limit(5, 2, 1000), timers, timers.now_ns)
    return RateLimiter(None, None, timers, timers.now_ns)


def rng(slow: bool = False) -> Case:
    timers = FakeTimers()
    device = Rng(_limiter(timers, slow=slow), source=lambda count: b"\xab" * count)
    return Case(device, [(0, [("w", 64)]), (0, [("w", 5), ("w", 0), ("w", 3000)])], _nothing, timers, _nothing)


def _block(disk: Disk, host_event: Callable[[], None], close: Callable[[], None], slow: bool = False) -> Case:
    timers = FakeTimers()
    device = Block("drive", disk, _limiter(timers, slow=slow), writeback=True)

    def header(kind: int, sector: int) -> tuple[Literal["r"], bytes]:
        return "r", pack("<IIQ", kind, 0, sector)

    requests: list[tuple[int, list[Offer]]] = [
        (0, [header(0, 3), ("w", 2 * SECTOR), ("w", 1)]),
        (0, [header(1, 60), ("r", b"\x11" * SECTOR), ("w", 1)]),
        (0, [header(4, 0), ("w", 1)]),
        (0, [header(8, 0), ("w", 20), ("w", 1)]),
        (0, [header(99, 0), ("w", 20), ("w", 1)]),
        (0, [header(0, 62), ("w", SECTOR), ("w", SECTOR), ("w", 1)]),
        (0, [("r", header(1, 5)[1][:7]), ("r", header(1, 5)[1][7:] + b"\x22" * 100), ("r", b"\x22" * 412), ("w", 1)]),
    ]
    return Case(device, requests, host_event, timers, close)


def block(slow: bool = False) -> Case:
    fd = os.memfd_create("disk")
    os.write(fd, _DISK)
    return _block(FileDisk(fd, len(_DISK)), _nothing, lambda: os.close(fd), slow)


def late_block(slow: bool = False) -> Case:
    """A drive whose disk answers later, and is busy after three requests, as io_uring's is after 256."""
    disk = MemoryDisk(_DISK, room=3)

    def finish() -> None:
        while disk.waiting:
            disk.finish()

    return _block(disk, finish, _nothing, slow)


def net(slow: bool = False) -> Case:
    timers, tap = FakeTimers(), FakeTap()
    device = Net("eth0", tap, b"\2\0\0\0\0\1", 1500, _limiter(timers, slow=slow), _limiter(timers, slow=slow))
    room: list[Offer] = [("w", 70_000)]
    requests: list[tuple[int, list[Offer]]] = [
        (1, [("r", _FRAME)]),
        (1, [("r", _FRAME[:12]), ("r", _FRAME[12:])]),
        (1, [("r", _FRAME[:5]), ("r", b""), ("r", _FRAME[5:20]), ("r", _FRAME[20:])]),
        (0, room),
        (0, [("w", 12), ("w", 66_000)]),
        (0, [("w", 5), ("w", 0), ("w", 20), ("w", 66_000)]),
    ]
    return Case(device, requests, lambda: tap.deliver(_FRAME), timers, _nothing)


Factory = Callable[[bool], Case]

DEVICES: Final[dict[str, Factory]] = {
    "rng": rng,
    "block": block,
    "late block": late_block,
    "net": net,
}
