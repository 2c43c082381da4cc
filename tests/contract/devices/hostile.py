"""A driver that has gone mad, or is out for harm: bytes become acts.

Hypothesis makes the bytes, and when something breaks, fewer and smaller ones. Each act is a byte that says what and a
few that say how. Values come from a table of those that hurt; and because a device that only sees nonsense never gets
far, many acts are good requests with one thing wrong.
"""

from collections.abc import Callable
from typing import Final

from hibana.devices.virtio import mmio
from hibana.devices.virtio.queue import NEXT, WRITE
from hibana.units import PAGE
from tests.contract.devices.devices import Case
from tests.contract.devices.guest import BUFFERS, MEMORY, SIZE, U16, Guest, Rings

ADDRS: Final = (
    BUFFERS,
    BUFFERS + 1,
    BUFFERS + PAGE - 1,
    BUFFERS + 5 * PAGE + 8,
    MEMORY - 1,
    MEMORY - 512,
    MEMORY - 4096,
    MEMORY,
    MEMORY + 1,
    3 << 30,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
    (1 << 64) - 512,
)
SIZES: Final = (0, 1, 2, 11, 12, 13, 16, 20, 511, 512, 513, 1024, 4096, 65536, 1 << 31, (1 << 32) - 1, (1 << 32) - 512)
INDICES: Final = (0, 1, 2, SIZE - 1, SIZE, SIZE + 1, 255, 256, 0x7FFF, 0x8000, U16)
STATUSES: Final = (0, 0, 1, 3, 11, 15, 64, 79, 128, 255)
SECONDS: Final = (0.001, 0.1, 1.0, 60.0)

LAYOUTS: Final[tuple[Callable[[int], Rings], ...]] = (
    lambda queue: Rings.at(PAGE * (1 + queue)),
    lambda queue: Rings(PAGE * (1 + queue), PAGE * (1 + queue) + 512, PAGE * (1 + queue) + 512),  # the rings are one
    lambda queue: Rings(PAGE * (1 + queue), PAGE * (1 + queue) + 514, PAGE * (1 + queue) + 512),  # … shifted
    lambda queue: Rings(PAGE, PAGE + 512 + 256 * queue, PAGE + 1024 + 256 * queue),  # all queues share a table
    lambda queue: Rings(PAGE * (1 + queue), BUFFERS + 64 * queue, BUFFERS + PAGE + 256 * queue),  # rings in buffers
    lambda queue: Rings(MEMORY - 16 * SIZE, PAGE * (1 + queue), MEMORY - 16 * SIZE - 256),  # at the end of memory
)
"""Where a driver may put its rings. In all of them a device cannot write descriptors by answering."""


class Bytes:
    """The script; when it has ended there are zeros."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self._content)

    def next(self) -> int:
        self._at += 1
        return self._content[self._at - 1] if self._at <= len(self._content) else 0

    def pick(self, table: tuple[int, ...]) -> int:
        return table[self.next() % len(table)]

    def below(self, limit: int) -> int:
        return self.next() % limit


class Madness:
    """Carries a script out."""

    def __init__(self, case: Case, guest: Guest, script: bytes) -> None:
        self._case = case
        self._guest = guest
        self._bytes = Bytes(script)
        self._acts: Final = (
            self._request,
            self._request,
            self._bend,
            self._bend,
            self._knock,
            self._knock,
            self._describe,
            self._publish,
            self._jump,
            self._event,
            self._outside,
            self._pass_time,
            self._register,
            self._config,
            self._status,
            self._restart,
        )

    def run(self) -> None:
        """Start properly, but for the layout, then go mad."""
        self._restart()
        while not self._bytes.ended:
            self._acts[self._bytes.below(len(self._acts))]()

    def _queue(self) -> int:
        return self._bytes.below(len(self._guest.rings))

    def _request(self) -> None:
        queue, offers = self._case.requests[self._bytes.below(len(self._case.requests))]
        self._guest.offer(queue, offers)
        if self._bytes.next() & 1:
            self._guest.knock(queue)

    def _bend(self) -> None:
        """A good request, with one descriptor or offer changed before it is published."""
        queue, offers = self._case.requests[self._bytes.below(len(self._case.requests))]
        guest, script = self._guest, self._bytes
        rings = guest.rings[queue]
        at, what = script.below(len(offers)), script.below(6)
        head = rings.next_descriptor
        for step, offer in enumerate(offers):
            index = (head + step) % SIZE
            addr, size, flags = guest.place(offer)
            following = (index + 1) % SIZE
            flags |= NEXT if step + 1 < len(offers) else 0
            if step == at:
                if what == 0:
                    addr = script.pick(ADDRS)
                elif what == 1:
                    size = script.pick(SIZES)
                elif what == 2:
                    flags ^= WRITE
                elif what == 3:
                    flags ^= NEXT
                elif what == 4:
                    following = script.pick(INDICES)
                else:
                    flags |= script.next() << 2
            guest.describe(queue, index, addr, size, flags, following)
        rings.next_descriptor = (head + len(offers)) % SIZE
        guest.publish(queue, head)
        guest.knock(queue)

    def _knock(self) -> None:
        self._guest.write(mmio.QUEUE_NOTIFY, self._bytes.below(4))

    def _describe(self) -> None:
        script = self._bytes
        self._guest.describe(
            self._queue(),
            script.below(SIZE),
            script.pick(ADDRS),
            script.pick(SIZES),
            script.next() & 7,
            script.pick(INDICES),
        )

    def _publish(self) -> None:
        self._guest.publish(self._queue(), self._bytes.pick(INDICES))

    def _jump(self) -> None:
        queue = self._queue()
        self._guest.set_index(queue, self._guest.rings[queue].index + self._bytes.pick(INDICES))

    def _event(self) -> None:
        """Say when an interrupt is wanted."""
        content = self._bytes.pick(INDICES).to_bytes(2, "little")
        self._guest.store(self._guest.rings[self._queue()].avail + 4 + 2 * SIZE, content)

    def _outside(self) -> None:
        self._case.host_event()

    def _pass_time(self) -> None:
        self._case.timers.advance(SECONDS[self._bytes.below(len(SECONDS))])

    def _register(self) -> None:
        """Any register but the status, in any size, with any value."""
        script = self._bytes
        offset, size, value = script.next(), 1 << script.below(4), script.pick(ADDRS)
        self._guest.transport.read(offset, size)
        if offset != mmio.STATUS:
            self._guest.transport.write(offset, size, value & (1 << 8 * size) - 1)

    def _config(self) -> None:
        script = self._bytes
        offset, size = mmio.CONFIG + script.next(), 1 << script.below(4)
        self._guest.transport.write(offset, size, script.next())
        self._guest.transport.read(offset, size)

    def _status(self) -> None:
        self._guest.write(mmio.STATUS, self._bytes.pick(STATUSES))

    def _restart(self) -> None:
        """Reset, and start again with the rings somewhere else and any of the features."""
        guest, script = self._guest, self._bytes
        layout = LAYOUTS[script.below(len(LAYOUTS))]
        guest.reset()
        guest.negotiate(script.next() << 24 | script.next() << 8 | script.next())
        for queue in range(len(guest.rings)):
            rings = layout(queue)
            guest.store(rings.descriptors, bytes(16 * SIZE))
            guest.store(rings.avail, bytes(6 + 2 * SIZE))
            guest.store(rings.used, bytes(6 + 8 * SIZE))
            guest.set_up(queue, rings)
        guest.say_driver_ok()
