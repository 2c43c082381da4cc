"""The guest's half of a virtio device: rings in guest memory, and somebody who counts interrupts.

    driver = Driver()
    rng = Rng(...)
    driver.start(rng)
    head = driver.offer(("w", 16), ("w", 4))
    driver.kick()
    assert driver.completions() == [(head, 20)]
    assert driver.irq.used_count == [1]

`offer` puts buffers where nothing else lies and remembers them, so that `written` can show what the device did and,
after `remember`, `stray_writes` and `unreported_writes` what it should not have done. Who wants to break the rules
writes descriptors and indices by hand, with `Ring.describe`, `Ring.publish` and `Ring.set_index`.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from struct import pack, unpack
from typing import Final, Literal

from hibana.devices.virtio.device import EVENT_IDX, VirtioDevice
from hibana.devices.virtio.queue import NEXT, WRITE, Queue
from hibana.errors import GuestFault
from hibana.memory.guest import GuestMemory
from hibana.units import KIB, MIB, PAGE, align_up

Offer = tuple[Literal["r"], bytes] | tuple[Literal["w"], int]
"""("r", content) is for the device to read, ("w", size) is room for it to write into."""

CANARY: Final = 0xC5
"""What fills all memory at first."""

_RINGS: Final = 64 * KIB
_RING_SPACE: Final = 16 * KIB
_BUFFERS: Final = 256 * KIB
_U16: Final = 0xFFFF


class FakeInterrupt:
    """Counts what a device tells its driver (fulfils `devices.virtio.device.Interrupt`)."""

    def __init__(self, device: VirtioDevice, queue_count: int) -> None:
        self._device = device
        self.used_count = [0] * queue_count
        self.config_count = 0
        self.fault: GuestFault | None = None
        """Why the device gave up on the driver."""

    def used(self, queue: int) -> None:
        """Count an interrupt for a queue."""
        self.used_count[queue] += 1

    def config(self) -> None:
        """Count an interrupt for the configuration."""
        self.config_count += 1

    def needs_reset(self, fault: GuestFault) -> None:
        """Remember the fault, and stop the device as a transport would."""
        self.fault = fault
        self._device.active = False


class Ring:
    """The driver's side of one split virtqueue (virtio 1.2 §2.7)."""

    def __init__(self, memory: GuestMemory, base: int, size: int) -> None:
        """Lay out the three areas from `base` on, and clear the indices."""
        self.size = size
        self.descriptors_addr = base
        self.avail_addr = base + 16 * size
        self.used_addr = align_up(self.avail_addr + 6 + 2 * size, 4)
        self.end = self.used_addr + 6 + 8 * size
        self._memory = memory
        self._store(base, bytes(self.end - base))
        self.avail_index = 0
        self._seen = 0
        self._next_descriptor = 0

    def set_up(self, queue: Queue) -> None:
        """Tell a queue where the areas are, as a transport does."""
        queue.size = self.size
        queue.descriptors_addr = self.descriptors_addr
        queue.avail_addr = self.avail_addr
        queue.used_addr = self.used_addr
        queue.ready = True

    def describe(self, index: int, addr: int, size: int, flags: int = 0, following: int = 0) -> None:
        """Write a descriptor."""
        self._store(self.descriptors_addr + 16 * index, pack("<QIHH", addr, size, flags, following))

    def chain(self, buffers: Sequence[tuple[int, int, int]]) -> int:
        """Describe (addr, size, flags) buffers as one chain, in descriptors that are next in turn; give its head."""
        indices = [(self._next_descriptor + step) % self.size for step in range(len(buffers))]
        self._next_descriptor = (self._next_descriptor + len(buffers)) % self.size
        for at, (addr, size, flags) in enumerate(buffers):
            is_last = at + 1 == len(buffers)
            self.describe(indices[at], addr, size, flags | (0 if is_last else NEXT), 0 if is_last else indices[at + 1])
        return indices[0]

    def publish(self, head: int) -> None:
        """Make a chain available."""
        self._store(self.avail_addr + 4 + 2 * (self.avail_index % self.size), pack("<H", head))
        self.set_index(self.avail_index + 1)

    def set_index(self, index: int) -> None:
        """Claim that so many chains have been made available so far."""
        self.avail_index = index & _U16
        self._store(self.avail_addr + 2, pack("<H", self.avail_index))

    def want_interrupt_after(self, used_index: int) -> None:
        """Ask for an interrupt when the used index passes this one (EVENT_IDX)."""
        self._store(self.avail_addr + 4 + 2 * self.size, pack("<H", used_index & _U16))

    @property
    def wants_notification_at(self) -> int:
        """The available index at which the device wants to be notified (EVENT_IDX)."""
        return self._word(self.used_addr + 4 + 8 * self.size)

    @property
    def used_index(self) -> int:
        """How many chains the device has answered so far, modulo 2 ** 16."""
        return self._word(self.used_addr + 2)

    def completions(self) -> list[tuple[int, int]]:
        """List (head, bytes written) of what has been answered since the last time."""
        found: list[tuple[int, int]] = []
        while self._seen != self.used_index:
            element = self._memory.read(self.used_addr + 4 + 8 * (self._seen % self.size), 8)
            head, written = unpack("<II", element)
            found.append((head, written))
            self._seen = (self._seen + 1) & _U16
        return found

    def _store(self, addr: int, content: bytes) -> None:
        self._memory.window(addr, len(content))[:] = content  # and not `write`: the engine has no part in this

    def _word(self, addr: int) -> int:
        return int.from_bytes(self._memory.read(addr, 2), "little")


class Driver:
    """A driver in a guest of its own: memory, one ring a queue, interrupts."""

    def __init__(self, queue_size: int = 256, memory_size: int = 2 * MIB) -> None:
        """Make a guest whose rings will have `queue_size` entries."""
        self.memory = GuestMemory(memory_size)
        self.memory.window(0, memory_size)[:] = bytes([CANARY]) * memory_size
        self.queues: list[Queue] = []
        self.rings: list[Ring] = []
        self.irq: FakeInterrupt
        self.touched: list[tuple[int, int]] = []
        """(addr, size) of every write that was reported to the engine since `start` or `remember`."""
        self._queue_size = queue_size
        self._next_buffer = _BUFFERS
        self._offers: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        self._device: VirtioDevice
        self._picture = b""

    def start(self, device: VirtioDevice, refused: int = 0) -> None:
        """Accept what a device offers, but for `refused`, set up its queues and activate it."""
        acked = device.features & ~refused
        self._device = device
        self.lay_out_rings(len(device.queue_sizes))
        self.queues = [Queue(size) for size in device.queue_sizes]
        self.irq = FakeInterrupt(device, len(self.queues))
        for ring, queue in zip(self.rings, self.queues, strict=True):
            ring.set_up(queue)
            queue.activate(self.memory, bool(acked & EVENT_IDX))
        self.memory.on_write = lambda addr, size: self.touched.append((addr, size))
        device.activate(self.memory, self.queues, self.irq, acked)

    def lay_out_rings(self, count: int) -> None:
        """Make fresh rings, without telling anybody."""
        self.rings = [Ring(self.memory, _RINGS + at * _RING_SPACE, self._queue_size) for at in range(count)]

    def offer(self, *offers: Offer, queue: int = 0) -> int:
        """Make a chain of buffers available; give its head."""
        buffers = [self.place(offer) for offer in offers]
        ring = self.rings[queue]
        head = ring.chain(buffers)
        self._offers[queue, head] = buffers
        ring.publish(head)
        return head

    def place(self, offer: Offer) -> tuple[int, int, int]:
        """Put a buffer where nothing else lies; give (addr, size, flags) for a descriptor."""
        size = len(offer[1]) if offer[0] == "r" else offer[1]
        addr = self._next_buffer
        self._next_buffer = align_up(addr + size + 1, 16)
        if offer[0] == "r":
            self.memory.window(addr, size)[:] = offer[1]
            return addr, size, 0
        return addr, size, WRITE

    def kick(self, queue: int = 0) -> None:
        """Notify the device; a fault ends as it would in a transport."""
        self._device.guarded(lambda: self._device.notify(queue))()

    def completions(self, queue: int = 0) -> list[tuple[int, int]]:
        """List (head, bytes written) of what has been answered since the last time."""
        return self.rings[queue].completions()

    def written(self, head: int, queue: int = 0) -> list[bytes]:
        """Show what lies in the writable buffers of an offer."""
        return [self.memory.read(addr, size) for addr, size, flags in self._offers[queue, head] if flags & WRITE]

    def remember(self) -> None:
        """Take a picture of all memory, to be compared later."""
        self._picture = self.memory.read(0, self.memory.size)
        self.touched.clear()

    def stray_writes(self) -> list[int]:
        """List the pages that differ from the picture outside of writable buffers on offer and the used rings."""
        return self._changes_outside(
            (addr, size) for buffers in self._offers.values() for addr, size, flags in buffers if flags & WRITE
        )

    def unreported_writes(self) -> list[int]:
        """List the pages that differ from the picture outside of what the engine was told and the used rings."""
        return self._changes_outside(self.touched)

    def _changes_outside(self, ranges: Iterable[tuple[int, int]]) -> list[int]:
        now = bytearray(self.memory.read(0, self.memory.size))
        for addr, size in chain(ranges, ((ring.used_addr, ring.end - ring.used_addr) for ring in self.rings)):
            now[addr : addr + size] = self._picture[addr : addr + size]
        if now == self._picture:
            return []
        return [at for at in range(0, len(now), PAGE) if now[at : at + PAGE] != self._picture[at : at + PAGE]]
