"""A guest in front of any virtio device on the MMIO transport, with a memory of everything it may have allowed."""

from collections.abc import Sequence
from struct import pack
from typing import Final

from hibana.devices.virtio import mmio
from hibana.devices.virtio.device import VirtioDevice
from hibana.devices.virtio.mmio import MmioTransport
from hibana.devices.virtio.queue import NEXT, WRITE
from hibana.memory.guest import GuestMemory
from hibana.testing.fakes import FakeIrq
from hibana.testing.virtio import Offer
from hibana.units import KIB, PAGE, align_up

MEMORY: Final = 512 * KIB
BUFFERS: Final = 192 * KIB
SIZE: Final = 16
"""Entries of every queue: enough for chains, few enough to wrap often."""
U16: Final = 0xFFFF
CANARY: Final = 0xC5

_BLANK: Final = bytes([CANARY]) * MEMORY


class Rings:
    """Where the three areas of a queue are, and how far the driver has come."""

    def __init__(self, descriptors: int, avail: int, used: int) -> None:
        self.descriptors = descriptors
        self.avail = avail
        self.used = used
        self.index = 0
        self.seen = 0
        self.next_descriptor = 0

    @classmethod
    def at(cls, base: int) -> "Rings":
        """Lay the areas out one after the other."""
        avail = base + 16 * SIZE
        return cls(base, avail, align_up(avail + 6 + 2 * SIZE, 4))


class Guest:
    """A driver that can do everything a driver can, right or wrong; nothing it does may raise an exception."""

    def __init__(self, device: VirtioDevice) -> None:
        self.device = device
        self.memory = GuestMemory(MEMORY)
        self.irq = FakeIrq()
        self.transport = MmioTransport(device, self.memory, self.irq)
        self.memory.window(0, MEMORY)[:] = _BLANK
        self._expected = bytearray(_BLANK)
        """What memory holds, as far as the guest has written it."""
        self._writable: list[tuple[int, int]] = []
        self._used_rings: list[tuple[int, int]] = []
        self._told: list[tuple[int, int]] = []
        self.memory.on_write = lambda addr, size: self._told.append((addr, size))
        self.rings = [Rings.at(PAGE * (1 + at)) for at in range(len(device.queue_sizes))]
        self._next_buffer = BUFFERS

    # --- registers ----------------------------------------------------------------------------------------------------

    def read(self, register: int) -> int:
        return self.transport.read(register, 4)

    def write(self, register: int, value: int) -> None:
        self.transport.write(register, 4, value)

    @property
    def status(self) -> int:
        return self.read(mmio.STATUS)

    @property
    def needs_reset(self) -> bool:
        return bool(self.status & mmio.DEVICE_NEEDS_RESET)

    def negotiate(self, refused: int = 0) -> None:
        """Accept all features but the refused ones, up to FEATURES_OK."""
        for status in (mmio.ACKNOWLEDGE, mmio.ACKNOWLEDGE | mmio.DRIVER):
            self.write(mmio.STATUS, status)
        for page in (0, 1):
            self.write(mmio.DEVICE_FEATURES_SEL, page)
            self.write(mmio.DRIVER_FEATURES_SEL, page)
            self.write(mmio.DRIVER_FEATURES, self.read(mmio.DEVICE_FEATURES) & ~(refused >> 32 * page))
        self.write(mmio.STATUS, mmio.ACKNOWLEDGE | mmio.DRIVER | mmio.FEATURES_OK)

    def set_up(self, index: int, rings: Rings, size: int = SIZE, ready: int = 1) -> None:
        """Tell the device where a queue is."""
        self.rings[index] = rings
        self._used_rings.append((rings.used, 6 + 8 * SIZE))
        self.write(mmio.QUEUE_SEL, index)
        self.write(mmio.QUEUE_NUM, size)
        for low, addr in (
            (mmio.QUEUE_DESC_LOW, rings.descriptors),
            (mmio.QUEUE_DRIVER_LOW, rings.avail),
            (mmio.QUEUE_DEVICE_LOW, rings.used),
        ):
            self.write(low, addr & 0xFFFFFFFF)
            self.write(low + 4, addr >> 32)
        self.write(mmio.QUEUE_READY, ready)

    def say_driver_ok(self) -> None:
        self.write(mmio.STATUS, 15)

    def start(self, refused: int = 0) -> None:
        """Do everything right, with rings of zeros."""
        self.negotiate(refused)
        for index in range(len(self.rings)):
            rings = Rings.at(PAGE * (1 + index))
            self.store(rings.descriptors, bytes(PAGE))
            self.set_up(index, rings)
        self.say_driver_ok()
        assert self.status == 15

    def reset(self) -> None:
        self.write(mmio.STATUS, 0)

    def knock(self, queue: int) -> None:
        """Write QueueNotify."""
        self.write(mmio.QUEUE_NOTIFY, queue)

    # --- memory -------------------------------------------------------------------------------------------------------

    def store(self, addr: int, content: bytes) -> None:
        """Write guest memory as a CPU does; outside of RAM there is nothing to write."""
        if addr >= MEMORY:
            return
        content = content[: MEMORY - addr]
        self.memory.window(addr, len(content))[:] = content
        self._expected[addr : addr + len(content)] = content

    def describe(self, queue: int, index: int, addr: int, size: int, flags: int, following: int) -> None:
        """Write a descriptor."""
        if flags & WRITE:
            self._writable.append((addr, size))
        self.store(self.rings[queue].descriptors + 16 * index, pack("<QIHH", addr, size, flags, following))

    def set_index(self, queue: int, index: int) -> None:
        """Claim that so many chains have been made available."""
        self.rings[queue].index = index & U16
        self.store(self.rings[queue].avail + 2, pack("<H", index & U16))

    def publish(self, queue: int, head: int) -> None:
        """Make a chain available."""
        rings = self.rings[queue]
        self.store(rings.avail + 4 + 2 * (rings.index % SIZE), pack("<H", head))
        self.set_index(queue, rings.index + 1)

    def place(self, offer: Offer) -> tuple[int, int, int]:
        """Put a buffer where nothing else lies, or over the oldest ones; give (addr, size, flags)."""
        size = len(offer[1]) if offer[0] == "r" else offer[1]
        if self._next_buffer + size >= MEMORY:
            self._next_buffer = BUFFERS
        addr = self._next_buffer
        self._next_buffer += size + 3  # nothing is aligned
        if offer[0] == "r":
            self.store(addr, offer[1])
            return addr, size, 0
        return addr, size, WRITE

    def offer(self, queue: int, offers: Sequence[Offer]) -> int:
        """Make a chain of buffers available; give its head."""
        rings = self.rings[queue]
        indices = [(rings.next_descriptor + step) % SIZE for step in range(len(offers))]
        rings.next_descriptor = (rings.next_descriptor + len(offers)) % SIZE
        for at, offer in enumerate(offers):
            addr, size, flags = self.place(offer)
            is_last = at + 1 == len(offers)
            following = 0 if is_last else indices[at + 1]
            self.describe(queue, indices[at], addr, size, flags if is_last else flags | NEXT, following)
        self.publish(queue, indices[0])
        return indices[0]

    def completions(self, queue: int) -> list[int]:
        """List the heads that have been answered since the last time."""
        rings, heads = self.rings[queue], []
        index = self._word(rings.used + 2)
        while rings.seen != index:
            heads.append(self._word(rings.used + 4 + 8 * (rings.seen % SIZE)))
            rings.seen = (rings.seen + 1) & U16
        return heads

    def _word(self, addr: int) -> int:
        return int.from_bytes(self.memory.read(addr, 2), "little")

    def switch_off(self) -> None:
        """Give the RAM back to the host. Raises BufferError while the device holds on to any of it."""
        mapping = self.memory._mapping
        self.memory.close()
        mapping.close()

    # --- what must never be -------------------------------------------------------------------------------------------

    def stray_writes(self) -> list[int]:
        """List pages that changed outside of all buffers which the guest has ever offered to be written."""
        return self._changes_outside(self._writable)

    def untold_writes(self) -> list[int]:
        """List pages that changed without the engine being told."""
        return self._changes_outside(self._told)

    def _changes_outside(self, ranges: Sequence[tuple[int, int]]) -> list[int]:
        now, expected = bytearray(self.memory.read(0, MEMORY)), self._expected
        for addr, size in [*ranges, *self._used_rings]:
            end = min(addr + size, MEMORY)
            now[addr:end] = expected[addr:end]
        if now == expected:
            return []
        return [at for at in range(0, MEMORY, PAGE) if now[at : at + PAGE] != expected[at : at + PAGE]]
