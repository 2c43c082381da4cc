"""The entropy device: fills the buffers a driver offers with random bytes (virtio 1.2 §5.4)."""

import os
from collections.abc import Callable
from typing import ClassVar, Final

from hibana.devices.rate_limiter import RateLimiter
from hibana.devices.virtio.device import VirtioDevice
from hibana.devices.virtio.queue import MAX_SIZE, WRITE, Chain, Descriptor
from hibana.devices.virtio.turn import ROUNDS, Turn
from hibana.errors import GuestFault
from hibana.observe import log
from hibana.observe.metrics_groups import METRICS

_COUNTERS: Final = METRICS.entropy

MAX_BYTES: Final = 64 * 1024
"""How much one request gets, however much it asks for."""

_LARGEST_CHAIN: Final = (1 << 32) - 1


class Rng(VirtioDevice):
    """virtio-rng: one queue, no features, no configuration."""

    type_id: ClassVar[int] = 4
    queue_sizes: ClassVar[tuple[int, ...]] = (MAX_SIZE,)

    def __init__(self, limiter: RateLimiter, source: Callable[[int], bytes] = os.urandom) -> None:
        """Take random bytes from `source`, as many as `limiter` admits."""
        super().__init__("rng")
        self._limiter = limiter
        self._source = source
        limiter.on_ready = self.guarded(self._limiter_ready)
        self.turn: Final = Turn(limiter.timers)
        self.turn.on_begin = self.guarded(self._go_on)

    def notify(self, index: int) -> None:
        """Answer what is in the queue, unless the limiter says to wait."""
        if self._limiter.blocked:
            _COUNTERS.rate_limiter_event_count += 1  # the reference counts it here, too
        else:
            self._process()

    def count_activation_failure(self) -> None:
        _COUNTERS.activate_fails += 1

    def count_event_failure(self) -> None:
        _COUNTERS.entropy_event_fails += 1

    def _limiter_ready(self) -> None:
        _COUNTERS.rate_limiter_event_count += 1
        self._process()

    def _go_on(self) -> None:
        if not self._limiter.blocked:
            self._process()

    def _process(self) -> None:
        queue = self.queues[0]
        left = 0
        try:
            for _ in range(ROUNDS):
                if left or not (chains := queue.take()):
                    break
                left = self._answer_chains(chains)
                queue.give_back(left)
            else:
                self.turn.end()
        finally:
            if queue.publish():
                self.irq.used(0)

    def _answer_chains(self, chains: list[Chain]) -> int:
        """Answer one chain after the other; give how many have to wait for the limiter."""
        push = self.queues[0].push
        for at, (head, buffers) in enumerate(chains):
            _COUNTERS.entropy_event_count += 1
            try:
                size, room = self._gather(buffers)
            except GuestFault as fault:
                log.error_limited(f"rng: cannot use the buffers of a request: {fault}")
                _COUNTERS.entropy_event_fails += 1
                push(head, 0)
                continue
            if not self._limiter.admit(size):
                _COUNTERS.entropy_rate_limiter_throttled += 1
                return len(chains) - at
            push(head, self._fill(buffers, room, min(size, MAX_BYTES)))
        return 0

    def _gather(self, buffers: list[Descriptor]) -> tuple[int, list[memoryview]]:
        """Find the bytes of a chain in guest memory, all of which must be ours to write. Raises GuestFault."""
        window = self.memory.window
        size = 0
        room: list[memoryview] = []
        for addr, length, flags, _ in buffers:
            if not flags & WRITE:
                raise GuestFault("a buffer is read-only")
            room.append(window(addr, length))
            size += length
        if size > _LARGEST_CHAIN:
            raise GuestFault(f"{size} bytes are too many")
        return size, room

    def _fill(self, buffers: list[Descriptor], room: list[memoryview], wanted: int) -> int:
        """Write random bytes into the windows on a chain's buffers; give how many."""
        try:
            content = self._source(wanted)
        except OSError as error:
            log.error_limited(f"rng: the host has no random bytes: {error}")
            _COUNTERS.host_rng_fails += 1
            _COUNTERS.entropy_event_fails += 1
            return 0
        done = 0
        for (addr, length, _, _), window in zip(buffers, room, strict=True):
            count = min(length, wanted - done)
            if count:
                window[:count] = content[done : done + count]
                self.memory.touched(addr, count)
                done += count
        _COUNTERS.entropy_bytes += done
        return done
