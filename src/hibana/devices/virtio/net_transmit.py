"""From the driver to the cable: each chain is a frame, gathered from guest memory by one system call (devices.md §7.4).

What is wrong with a frame is the frame's end and not the card's: the chain is answered, and the next one is taken.
"""

from collections.abc import Callable
from struct import Struct
from time import perf_counter_ns
from typing import Final

from hibana.devices.rate_limiter import RateLimiter
from hibana.devices.virtio.frames import HEADER_SIZE, LARGEST_FRAME, Frames
from hibana.devices.virtio.queue import WRITE, Chain, Queue
from hibana.devices.virtio.turn import ROUNDS, Turn
from hibana.errors import GuestFault, os_text
from hibana.memory.guest import GuestMemory
from hibana.observe import log
from hibana.observe.metrics_groups import Net as Metrics

_SOURCE: Final = Struct(f"{HEADER_SIZE + 6}x6s")  # behind the header and the destination
_SOURCE_END: Final = _SOURCE.size
_source_of: Final = _SOURCE.unpack_from


class _Malformed(GuestFault):
    """A frame of an impossible size."""


class Transmitter:
    """The half of a network card that sends."""

    def __init__(self, frames: Frames, limiter: RateLimiter, metrics: Metrics, mac: bytes | None) -> None:
        """Send what `limiter` admits; frames that do not come from `mac` are counted, and sent."""
        self._frames = frames
        self._limiter = limiter
        self._metrics = metrics
        self._mac = mac
        self.turn: Final = Turn(limiter.timers)

    def activate(self, memory: GuestMemory, queue: Queue, interrupt: Callable[[], None]) -> None:
        """Take over the transmit queue."""
        self._memory = memory
        self._queue = queue
        self._interrupt = interrupt

    def notify(self) -> None:
        """Hear from the driver that there are frames. Raises GuestFault."""
        self._metrics.tx_queue_event_count += 1
        if self._limiter.blocked:
            self._metrics.tx_rate_limiter_throttled += 1
        else:
            self._process()

    def limiter_ready(self) -> None:
        """Hear from the limiter that frames may go again. Raises GuestFault."""
        self._metrics.tx_rate_limiter_event_count += 1
        self._process()

    def go_on(self) -> None:
        """Begin another turn. Raises GuestFault."""
        if not self._limiter.blocked:
            self._process()

    def _process(self) -> None:
        """Send what is in the queue, up to the frame that the limiter refuses or to the end of the turn."""
        queue = self._queue
        waiting = queue.pending()
        taken = left = 0
        try:
            for _ in range(ROUNDS):
                if left or not (chains := queue.take() or (queue.arm() and queue.take())):
                    break
                left = self._send_chains(chains)
                if left:
                    queue.give_back(left)
                taken += len(chains) - left
            else:
                self.turn.end()
        finally:
            if queue.publish():
                self._interrupt()
            self._count_taken(waiting, taken)

    def _send_chains(self, chains: list[Chain]) -> int:
        """Send one frame after the other; give how many have to wait for the limiter.

        A call costs as much as a check here: what is usual is done in this function, what is not elsewhere.
        """
        push, window, clock = self._queue.push, self._memory.window, perf_counter_ns
        limiter, send, mac = self._limiter, self._frames.send, self._mac
        limited = limiter.bandwidth is not None or limiter.ops is not None
        metrics = self._metrics
        left = 0
        packets = sent_bytes = 0
        record = metrics.tap_write_agg.record
        for at, (head, buffers) in enumerate(chains):
            size = 0
            frame = []
            try:
                for addr, length, flags, _ in buffers:
                    if flags & WRITE:
                        raise GuestFault("a buffer of it is for writing")
                    frame.append(window(addr, length))
                    size += length
                if not HEADER_SIZE <= size <= LARGEST_FRAME:
                    raise _Malformed(f"it has {size} bytes")
                if limited and not limiter.admit(size):
                    metrics.tx_rate_limiter_throttled += 1
                    left = len(chains) - at
                    break
                if mac is not None and _sender(frame) != mac:
                    metrics.tx_spoofed_mac_count += 1
                began = clock()
                send(frame)
                record((clock() - began) // 1000)
                packets += 1
                sent_bytes += size
            except (GuestFault, OSError) as problem:
                self._drop(problem)
            push(head, 0)
        metrics.tx_count += packets
        metrics.tx_packets_count += packets
        metrics.tx_bytes_count += sent_bytes
        return left

    def _drop(self, problem: GuestFault | OSError) -> None:
        """Count a frame that was not sent, and say why."""
        if isinstance(problem, OSError):
            self._metrics.tap_write_fails += 1
            log.error_limited(f"Failed to write to tap: {os_text(problem)}")
            return
        if isinstance(problem, _Malformed):
            self._metrics.tx_malformed_frames += 1
        else:
            self._metrics.tx_fails += 1
        log.error_limited(f"Cannot send a frame: {problem}")

    def _count_taken(self, waiting: int, taken: int) -> None:
        if not taken:
            self._metrics.no_tx_avail_buffer += 1
        # The sum of what was still waiting each time a frame was taken.
        expected = min(taken, waiting)
        self._metrics.tx_remaining_reqs_count += expected * (2 * waiting - expected - 1) // 2


def _sender(frame: list[memoryview]) -> bytes:
    """Read who claims to have sent a frame; of a frame that is too short, what there is."""
    if len(frame[0]) >= _SOURCE_END:
        sender: bytes = _source_of(frame[0])[0]
        return sender
    return b"".join(view[:_SOURCE_END] for view in frame)[HEADER_SIZE + 6 : _SOURCE_END]
