"""The split virtqueue, seen from the device (virtio 1.2 §2.7).

Three areas in guest memory. The driver describes buffers in the descriptor table, links them to chains, and puts the
index of each chain's head into the available ring. The device takes chains from there and answers in the used ring,
in any order. Each ring has an index that only ever grows, modulo 2 ** 16; it is written last.

    while chains := queue.take():
        for head, buffers in chains:
            for addr, size, flags, _ in buffers: ...
            queue.push(head, written)
    if queue.publish(): irq.used(0)

The guest may change everything at any time, so each value is read once, checked, and from then on the copy counts. The
queue never reads or writes outside its three areas; whether the buffers lie in RAM, only `GuestMemory.window` can tell.
This runs for every request. That is why chains are taken all at once, and are plain tuples, and the areas are typed
views: a named tuple a descriptor would cost three times as much as all the rest.
"""

import _thread
from struct import Struct, error
from typing import Final

from hibana.errors import GuestFault
from hibana.memory.guest import GuestMemory
from hibana.units import is_power_of_two

NEXT: Final = 1
WRITE: Final = 2
"""The device writes into the buffer; without it the device reads."""

Descriptor = tuple[int, int, int, int]
"""addr, size, flags, next: an entry of the descriptor table, read once (§2.7.5)."""
Chain = tuple[int, list[Descriptor]]
"""head, and at least one descriptor: one request."""

MAX_SIZE: Final = 256
"""What every queue of ours offers."""

_DESCRIPTOR: Final = Struct("<QIHH")
_unpack: Final = _DESCRIPTOR.unpack_from
_DESCRIPTOR_SIZE: Final = 16
_ELEMENT_SIZE: Final = 8
_RING_HEAD: Final = 4  # flags and index
_EVENT_SIZE: Final = 2
_U16: Final = 0xFFFF

# Offsets into an available ring as a view of 16-bit words.
_INDEX: Final = 1
_RING: Final = 2

# A store must be visible to the other side before the next load is made, and x86 may swap the two. Python has no fence;
# an uncontended lock is the cheapest thing that contains one. It is shared by all queues because it guards nothing.
_lock: Final = _thread.allocate_lock()


def _fence() -> None:
    if _lock.acquire(False):
        _lock.release()


class Queue:
    """One virtqueue: set up by a transport, then used by a device."""

    __slots__ = (
        "_avail",
        "_avail_event",
        "_descriptors",
        "_event_idx",
        "_mask",
        "_next_avail",
        "_next_used",
        "_published",
        "_used_elements",
        "_used_index",
        "avail_addr",
        "descriptors_addr",
        "max_size",
        "ready",
        "size",
        "used_addr",
    )

    def __init__(self, max_size: int = MAX_SIZE) -> None:
        """Make a queue that the driver has not set up yet."""
        self.max_size = max_size
        self.reset()

    def reset(self) -> None:
        """Forget the driver, and let go of its memory."""
        self.size = self.max_size
        self.ready = False
        self.descriptors_addr = 0
        self.avail_addr = 0
        self.used_addr = 0
        self._next_avail = 0
        self._next_used = 0
        self._published = 0
        self._event_idx = False
        self._mask = 0
        nothing = memoryview(b"")
        self._descriptors = nothing
        self._avail = self._avail_event = self._used_index = self._used_elements = nothing

    def activate(self, memory: GuestMemory, event_idx: bool) -> None:
        """Check what the driver has set up, and keep windows on it. Raises GuestFault."""
        size = self.size
        if not self.ready:
            raise GuestFault("Attempt to use virtio queue that is not marked ready")
        if not is_power_of_two(size) or size > self.max_size:
            raise GuestFault(f"Virtio queue with invalid size: {size}")
        for addr, alignment in ((self.descriptors_addr, 16), (self.avail_addr, 2), (self.used_addr, 4)):
            if addr % alignment:
                raise GuestFault(f"Pointer is not aligned properly: {addr:#x} not {alignment}-byte aligned.")
        used_end = _RING_HEAD + _ELEMENT_SIZE * size
        descriptors = memory.window(self.descriptors_addr, _DESCRIPTOR_SIZE * size)
        avail = memory.window(self.avail_addr, _RING_HEAD + 2 * size + _EVENT_SIZE)
        used = memory.window(self.used_addr, used_end + _EVENT_SIZE)
        self._descriptors = descriptors
        self._avail = avail.cast("H")
        self._used_index = used[:_RING_HEAD].cast("H")
        self._used_elements = used[_RING_HEAD:used_end].cast("Q")  # length in the upper half, id in the lower
        self._avail_event = used[used_end:].cast("H")
        self._mask = size - 1
        self._event_idx = event_idx
        # Once for all: the rings are written all the time, but a page of a ring stays a page of a ring.
        memory.touched(self.used_addr, len(used))

    def take(self) -> list[Chain]:
        """Take all chains that are there. Raises GuestFault when the driver broke the rings.

        Chains that are in order come first; the fault comes with the next call.
        """
        first = self._next_avail
        avail, mask, table = self._avail, self._mask, self._descriptors
        pending = (avail[_INDEX] - first) & _U16
        chains: list[Chain] = []
        if not pending:
            return chains
        if pending > mask + 1:
            raise GuestFault(
                f"The number of available virtio descriptors {pending} is greater than queue size: {mask + 1}!"
            )
        try:
            for at in range(first, first + pending):
                head = index = avail[_RING + (at & mask)]
                descriptor = _unpack(table, index << 4)
                chain: list[Descriptor] = [descriptor]
                while descriptor[2] & NEXT:
                    if len(chain) > mask:
                        raise GuestFault(f"The descriptor chain at {head} is a loop.")
                    index = descriptor[3]
                    descriptor = _unpack(table, index << 4)
                    chain.append(descriptor)
                chains.append((head, chain))
        except error:  # beyond the end of the table
            if not chains:
                raise GuestFault(f"There is no descriptor {index} in a queue of {mask + 1}.") from None
        except GuestFault:
            if not chains:
                raise
        self._next_avail = (first + len(chains)) & _U16
        return chains

    def give_back(self, count: int) -> None:
        """Give back so many chains, those that were taken last: the next `take` finds them again."""
        self._next_avail = (self._next_avail - count) & _U16

    def pending(self) -> int:
        """Count the chains that could be taken now."""
        return (self._avail[_INDEX] - self._next_avail) & _U16

    def push(self, head: int, written: int) -> None:
        """Answer a chain, having written that many bytes into it; the driver cannot see it before `publish`."""
        next_used = self._next_used
        self._used_elements[next_used & self._mask] = written << 32 | head
        self._next_used = (next_used + 1) & _U16

    def publish(self) -> bool:
        """Show the driver all answers since the last time; True if it wants an interrupt for them (§2.7.10)."""
        new, old = self._next_used, self._published
        if new == old:
            return False
        # The index must be written last: the driver may look the moment it changes.
        self._used_index[_INDEX] = new
        self._published = new
        if not self._event_idx:
            return True
        _fence()
        used_event = self._avail[_RING + self._mask + 1]
        return (new - used_event - 1) & _U16 < (new - old) & _U16

    def arm(self) -> bool:
        """Ask for a notification of the next chain; True if one arrived meanwhile, so go on taking (§2.7.10).

        Call it when `take` has found nothing.
        """
        if not self._event_idx:
            return False
        next_avail = self._next_avail
        self._avail_event[0] = next_avail
        _fence()
        return self._avail[_INDEX] != next_avail
