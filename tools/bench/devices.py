"""`bench devices`: what a virtio device costs per request in this process alone, without guest, engine or wake-ups.

The driver's half is prepared outside the clock. Beside each figure stands its floor: a loop that moves the same bytes
by the same system call, reads the same records from memory and writes the same answers, and checks, counts and decides
nothing.
"""

import argparse
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, repeat
from statistics import median
from struct import Struct, pack
from time import perf_counter_ns
from typing import Final, NamedTuple

from hibana.devices.rate_limiter import RateLimiter
from hibana.devices.virtio.block import Block
from hibana.devices.virtio.device import VirtioDevice
from hibana.devices.virtio.net import RX as RECEIVE
from hibana.devices.virtio.net import TX as TRANSMIT
from hibana.devices.virtio.net import Net
from hibana.devices.virtio.rng import Rng
from hibana.host.disk import FileDisk
from hibana.testing.fakes import FakeTimers
from hibana.testing.virtio import Driver, Offer
from hibana.units import KIB, MIB
from tools.bench import table

BATCHES: Final = (1, 32)
_BLOCK: Final = 4 * KIB
_FRAME: Final = bytes(12) + b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0" + bytes(1486)
_DISK: Final = 16 * MIB

Pipe = tuple[int, int]
Floor = Callable[[int], int]
"""Does the least that a batch needs; gives the ns it took."""


class Row(NamedTuple):
    """One figure and its floor, in µs per request."""

    what: str
    batch: int
    device: float
    floor: float


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("tools/devtool bench devices")
    parser.add_argument("--n", type=int, default=2000, help="batches for a figure (2000)")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    options = parser.parse_args(arguments)
    rows = list(_rows(options.n))
    if options.json:
        print(json.dumps([row._asdict() for row in rows], indent=2))
    else:
        print(_report(rows))
    return 0


def _rows(rounds: int) -> Iterator[Row]:
    fd = os.memfd_create("disk")
    os.truncate(fd, _DISK)
    null = os.open(os.devnull, os.O_WRONLY)
    # Of these pipes a read takes what one write has put in, as of a tap.
    pipes = [os.pipe2(os.O_DIRECT | os.O_NONBLOCK) for _ in range(2)]
    for _, into in pipes:
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, max(BATCHES) * 4 * KIB)
    try:
        subjects: tuple[tuple[str, Subject | Receiving, Floor], ...] = (
            ("block, read 4 KiB", _block(fd, write=False), _read_floor(fd)),
            ("block, write 4 KiB", _block(fd, write=True), _write_floor(fd)),
            ("net, send 1512 bytes", _net_sending(null), _send_floor(null)),
            ("net, receive 1512 bytes", Receiving(pipes[0]), _receive_floor(pipes[1])),
            ("rng, 64 bytes", _rng(), _rng_floor()),
        )
        for what, subject, floor in subjects:
            for batch in BATCHES:
                ours, theirs = [], []
                for _ in range(rounds):  # in turn, so that both see the same weather
                    ours.append(subject.time(batch))
                    theirs.append(floor(batch))
                yield Row(what, batch, median(ours) / batch / 1000, median(theirs) / batch / 1000)
    finally:
        for each in (fd, null, *pipes[0], *pipes[1]):
            os.close(each)


def _report(rows: Sequence[Row]) -> str:
    head = ["µs per request", "batch", "device", "floor", "ratio"]
    return table.render(
        [head]
        + [
            [row.what, str(row.batch), f"{row.device:.2f}", f"{row.floor:.2f}", f"{row.device / row.floor:.1f}"]
            for row in rows
        ]
    )


def _no_engine(addr: int, size: int) -> None:
    """Stand in for an engine that wants to know of writes."""


# --- devices ----------------------------------------------------------------------------------------------------------


class Subject:
    """A device with a driver that offers the same request again and again."""

    def __init__(self, device: VirtioDevice, queue: int, offers: Iterable[Sequence[Offer]]) -> None:
        self._device = device
        self._queue = queue
        self._driver = Driver(memory_size=4 * MIB)
        self._driver.start(device)
        self._driver.memory.on_write = _no_engine
        ring = self._driver.rings[queue]
        self._heads = [
            ring.chain([self._driver.place(each) for each in offer]) for offer in islice(offers, max(BATCHES))
        ]
        self._done = 0

    def time(self, batch: int) -> int:
        """Take the time of one notification with `batch` requests, in ns."""
        ring = self._driver.rings[self._queue]
        for head in self._heads[:batch]:
            ring.publish(head)
        ring.want_interrupt_after(self._done)
        notify, queue = self._device.notify, self._queue
        began = perf_counter_ns()
        notify(queue)
        took = perf_counter_ns() - began
        self._done += batch
        assert ring.used_index == self._done & 0xFFFF, "not every request was answered"
        return took


def _unlimited() -> RateLimiter:
    return RateLimiter(None, None, FakeTimers())


def _block(fd: int, *, write: bool) -> Subject:
    data: Offer = ("r", bytes(_BLOCK)) if write else ("w", _BLOCK)
    sectors = range(0, _DISK // 512, 64)
    offers: list[Sequence[Offer]] = [(("r", pack("<IIQ", int(write), 0, at)), data, ("w", 1)) for at in sectors]
    return Subject(Block("drive", FileDisk(fd, _DISK), _unlimited()), 0, offers)


class _Cable:
    """Frames that are sent go nowhere; frames to receive come out of a pipe one by one (fulfils `frames.Frames`)."""

    def __init__(self, into: int, out_of: int) -> None:
        self.arrived: Callable[[], None]
        self._into = into
        self._out_of = out_of

    def send(self, frame: list[memoryview]) -> int:
        return os.writev(self._into, frame)

    def receive(self, room: list[memoryview]) -> int:
        try:
            return os.readv(self._out_of, room)
        except BlockingIOError:
            return 0

    def set_offload(self, csum: bool, tso4: bool, tso6: bool, ufo: bool) -> None: ...

    def listen(self, handler: Callable[[], None]) -> None:
        self.arrived = handler

    def ignore(self) -> None: ...


def _net(cable: _Cable) -> Net:
    return Net("eth0", cable, None, None, _unlimited(), _unlimited())


def _net_sending(null: int) -> Subject:
    return Subject(_net(_Cable(null, null)), TRANSMIT, repeat((("r", _FRAME[:12]), ("r", _FRAME[12:]))))


class Receiving:
    """A network card with enough room in its queue that frames never wait."""

    def __init__(self, pipe: Pipe) -> None:
        out_of, self._into = pipe
        self._cable = _Cable(self._into, out_of)
        self._driver = Driver(memory_size=4 * MIB)
        self._driver.start(_net(self._cable))
        self._driver.memory.on_write = _no_engine
        for _ in range(max(BATCHES) + 64 * KIB // _BLOCK + 1):
            self._driver.offer(("w", _BLOCK), queue=RECEIVE)
        self._driver.kick(RECEIVE)
        self._done = 0

    def time(self, batch: int) -> int:
        """Take the time of one event with `batch` frames, in ns."""
        ring, arrived = self._driver.rings[RECEIVE], self._cable.arrived
        ring.want_interrupt_after(self._done)
        for _ in range(batch):
            os.write(self._into, _FRAME)
        began = perf_counter_ns()
        arrived()
        took = perf_counter_ns() - began
        self._done += batch
        answered = ring.completions()
        assert [size for _, size in answered] == [len(_FRAME)] * batch, "not every frame was received"
        for head, _ in answered:
            ring.publish(head)
        return took


def _rng() -> Subject:
    return Subject(Rng(_unlimited()), 0, repeat((("w", 64),)))


# --- floors -----------------------------------------------------------------------------------------------------------


_MEMORY: Final = memoryview(bytearray(MIB))
_read_descriptor: Final = Struct("<QIHH").unpack_from
_read_header: Final = Struct("<IIQ").unpack_from
_write_used: Final = Struct("<II").pack_into


def _read_floor(fd: int) -> Floor:
    def floor(batch: int) -> int:
        memory = _MEMORY
        began = perf_counter_ns()
        for at in range(batch):
            _read_descriptor(memory, 48 * at)
            _read_descriptor(memory, 48 * at + 16)
            _read_descriptor(memory, 48 * at + 32)
            _read_header(memory, 16 * at)
            os.preadv(fd, (memory[_BLOCK * at : _BLOCK * (at + 1)],), 32 * KIB * at)
            memory[at] = 0
            _write_used(memory, 8 * at, at, _BLOCK + 1)
        return perf_counter_ns() - began

    return floor


def _write_floor(fd: int) -> Floor:
    def floor(batch: int) -> int:
        memory = _MEMORY
        began = perf_counter_ns()
        for at in range(batch):
            _read_descriptor(memory, 48 * at)
            _read_descriptor(memory, 48 * at + 16)
            _read_descriptor(memory, 48 * at + 32)
            _read_header(memory, 16 * at)
            os.pwritev(fd, (memory[_BLOCK * at : _BLOCK * (at + 1)],), 32 * KIB * at)
            memory[at] = 0
            _write_used(memory, 8 * at, at, 1)
        return perf_counter_ns() - began

    return floor


def _send_floor(null: int) -> Floor:
    def floor(batch: int) -> int:
        memory = _MEMORY
        began = perf_counter_ns()
        for at in range(batch):
            _read_descriptor(memory, 32 * at)
            _read_descriptor(memory, 32 * at + 16)
            os.writev(null, (memory[:12], memory[12 : len(_FRAME)]))
            _write_used(memory, 8 * at, at, 0)
        return perf_counter_ns() - began

    return floor


def _receive_floor(pipe: Pipe) -> Floor:
    out_of, into = pipe

    def floor(batch: int) -> int:
        memory = _MEMORY
        for _ in range(batch):
            os.write(into, _FRAME)
        began = perf_counter_ns()
        for at in range(batch):
            _read_descriptor(memory, 16 * at)
            os.readv(out_of, (memory[_BLOCK * at : _BLOCK * (at + 1)],))
            _write_used(memory, 8 * at, at, len(_FRAME))
        try:
            os.readv(out_of, (memory[:_BLOCK],))
        except BlockingIOError:  # only this says that there are no more
            pass
        return perf_counter_ns() - began

    return floor


def _rng_floor() -> Floor:
    def floor(batch: int) -> int:
        memory = _MEMORY
        began = perf_counter_ns()
        for at in range(batch):
            _read_descriptor(memory, 16 * at)
            memory[64 * at : 64 * at + 64] = os.urandom(64)
            _write_used(memory, 8 * at, at, 64)
        return perf_counter_ns() - began

    return floor
