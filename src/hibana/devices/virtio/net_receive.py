"""From the cable to the driver: frames are read straight into the guest's buffers (devices.md §7.5).

Chains that the driver offers are taken ahead of the frames, because a frame can only be read whole: whatever its size
turns out to be, it must fit. With mergeable buffers (MRG_RXBUF) a frame may fill several chains. Nearly all fill one,
and a system call that is handed 64 KiB of room in pages takes twice as long as one that is handed a page. So a frame
gets as many chains as the frame before it needed, and behind them a spare buffer of ours; what ends up there is copied.
Frames come in bursts of a kind, so that happens to the first of a burst only.

The cable is listened to only while frames can be taken:

    listening ─┬─► the chains are used up ────► the driver offers more ─┬─► reading
        ▲      └─► the limiter refuses a frame ─► time passes ──────────┘      │
        └───────────────────────── there are no more frames ◄──────────────────┘

A frame that the limiter refuses has been read already: it stays where it is, and the driver hears of it later.
"""

from collections import deque
from collections.abc import Callable
from itertools import islice
from struct import Struct
from typing import Final

from hibana.devices.rate_limiter import RateLimiter
from hibana.devices.virtio.frames import HEADER_SIZE, LARGEST_FRAME, NUM_BUFFERS_AT, Frames
from hibana.devices.virtio.queue import WRITE, Chain, Descriptor, Queue
from hibana.devices.virtio.turn import ROUNDS, Turn
from hibana.errors import GuestFault, os_text
from hibana.memory.guest import GuestMemory
from hibana.observe import log
from hibana.observe.metrics_groups import Net as Metrics

MOST_BUFFERS: Final = 256
"""How many buffers are taken ahead."""
LARGEST_UNSEGMENTED: Final = 1526
"""The room that a frame needs when no offload makes it longer: header, ethernet header, 1500 bytes."""

_BURST: Final = 256
"""How many frames are read before others get their turn."""
_PATIENCE: Final = 16
"""How many failures in a row mean that the cable is cut."""
_LARGEST_CHAIN: Final = (1 << 32) - 1
_U16: Final = Struct("<H")
_pack_u16: Final = _U16.pack_into

Room = tuple[int, int, list[Descriptor], list[memoryview]]
"""A chain that has been taken: head, size in bytes, its buffers, and windows on them; behind those the spare buffer."""


class Receiver:
    """The half of a network card that receives."""

    def __init__(self, frames: Frames, limiter: RateLimiter, metrics: Metrics, on_frames: Callable[[], None]) -> None:
        """Receive what `limiter` admits; `on_frames` is called by the cable, and calls `frames_arrived`."""
        self._frames = frames
        self._limiter = limiter
        self._metrics = metrics
        self._on_frames = on_frames
        self._listening = False
        self._failures = 0
        self.turn: Final = Turn(limiter.timers)
        self._forget()

    def _forget(self) -> None:
        self._chains: deque[Room] = deque()
        self._buffers = 0
        self._size = 0
        """Of all chains together."""
        self._usual = 1
        """How many chains the frame before needed."""
        self._refused: tuple[int, list[tuple[int, int]]] | None = None
        """Size and used elements of the frame that waits for the limiter."""

    def activate(
        self, memory: GuestMemory, queue: Queue, interrupt: Callable[[], None], mergeable: bool, segments: bool
    ) -> None:
        """Take over the receive queue; `segments` tells whether frames beyond the MTU may come."""
        self._memory = memory
        self._queue = queue
        self._interrupt = interrupt
        self._mergeable = mergeable
        self._shortest = HEADER_SIZE if mergeable else LARGEST_FRAME if segments else LARGEST_UNSEGMENTED
        self._spare = memoryview(bytearray(LARGEST_FRAME if mergeable else 0))

    def reset(self) -> None:
        """Drop what was taken from the queue, and the frame that waits."""
        self._listen(False)
        self._forget()

    def notify(self) -> None:
        """Hear from the driver that there is room for frames. Raises GuestFault."""
        self._metrics.rx_queue_event_count += 1
        if self._limiter.blocked:
            self._metrics.rx_rate_limiter_throttled += 1
        elif not self._listening:
            self._process()

    def frames_arrived(self) -> None:
        """Hear from the cable that there are frames. Raises GuestFault."""
        self._metrics.rx_tap_event_count += 1
        if self._limiter.blocked:
            self._metrics.rx_rate_limiter_throttled += 1
            self._listen(False)
        else:
            self._process()

    def limiter_ready(self) -> None:
        """Hear from the limiter that frames may come again. Raises GuestFault."""
        self._metrics.rx_event_rate_limiter_count += 1
        self._process()

    def go_on(self) -> None:
        """Begin another turn. Raises GuestFault."""
        if not self._limiter.blocked:
            self._process()

    def _listen(self, wanted: bool) -> None:
        if wanted and not self._listening:
            self._frames.listen(self._on_frames)
        elif self._listening and not wanted:
            self._frames.ignore()
        self._listening = wanted

    def _process(self) -> None:
        self._listen(self._read_frames())
        if self._queue.publish():
            self._interrupt()

    def _read_frames(self) -> bool:
        """Read until there are no more frames (True), or until none can be taken (False). Raises GuestFault.

        Runs once a frame, so what is usual is done here: a frame that fits one chain of one buffer.
        """
        if self._refused is not None and not self._hand_over(*self._refused):
            return False
        receive, touched, push = self._frames.receive, self._memory.touched, self._queue.push
        chains, limiter = self._chains, self._limiter
        limited = limiter.bandwidth is not None or limiter.ops is not None
        frames = received = 0
        try:
            for _ in range(_BURST):
                if self._size < LARGEST_FRAME and not self._take_chains():
                    self._metrics.no_rx_avail_buffer += 1
                    return False
                head, room, buffers, windows = chains[0]
                size = receive(windows if self._usual == 1 else self._offer_several())
                if not size:
                    return True
                if size <= room and len(buffers) == 1:
                    del chains[0]
                    self._size -= room
                    self._buffers -= 1
                    self._usual = 1
                    _pack_u16(windows[0], NUM_BUFFERS_AT, 1)
                    touched(buffers[0][0], size)
                    if limited and not limiter.admit(size):
                        self._refuse(size, [(head, size)])
                        return False
                    push(head, size)
                    frames += 1
                    received += size
                elif not self._hand_over(size, self._settle(size)):
                    return False
            return True
        except OSError as error:
            return self._count_failure(error)
        finally:
            self._count(frames, received)

    def _take_chains(self) -> bool:
        """Take all chains that there are; tell whether the largest frame fits now. Raises GuestFault.

        A driver that offers chains as fast as they are sent back as no good gets no further than to the end of a turn.
        """
        queue = self._queue
        left = 0
        for _ in range(ROUNDS):
            if left or not (chains := queue.take() or (queue.arm() and queue.take())):
                break
            left = self._keep_chains(chains)
            queue.give_back(left)
        else:
            self.turn.end()
        return self._size >= LARGEST_FRAME

    def _keep_chains(self, chains: list[Chain]) -> int:
        """Keep chains for frames, and return those that are no good; give how many are too many for now."""
        window, shortest, spare = self._memory.window, self._shortest, self._spare
        for at, (head, buffers) in enumerate(chains):
            if self._buffers + len(buffers) > MOST_BUFFERS:
                return len(chains) - at
            room = 0
            windows = []
            try:
                for addr, length, flags, _ in buffers:
                    if not flags & WRITE:
                        raise GuestFault("a buffer of it is read-only")
                    windows.append(window(addr, length))
                    room += length
                if not shortest <= room <= _LARGEST_CHAIN:
                    raise GuestFault(f"it has {room} bytes")
            except GuestFault as fault:
                self._metrics.rx_fails += 1
                log.error_limited(f"Cannot receive into a chain: {fault}")
                self._queue.push(head, 0)
                continue
            windows.append(spare)
            self._chains.append((head, room, buffers, windows))
            self._buffers += len(buffers)
            self._size += room
        return 0

    def _offer_several(self) -> list[memoryview]:
        """Give the next frame as much room as the frame before needed."""
        room = [window for *_, windows in islice(self._chains, self._usual) for window in windows[:-1]]
        return [*room, self._spare]

    def _settle(self, size: int) -> list[tuple[int, int]]:
        """Finish the frame that has been read: give the used elements of its chains."""
        size = min(size, LARGEST_FRAME)  # with the spare buffer, there was room for more than the chains hold
        head, room, buffers, windows = self._chains.popleft()
        self._size -= room
        self._buffers -= len(buffers)
        elements = [(head, min(size, room))]
        if size <= room:
            self._usual = 1
        else:
            elements += self._merge(size - room)
        first = windows[0]
        if len(first) >= HEADER_SIZE:
            _pack_u16(first, NUM_BUFFERS_AT, len(elements))
        else:
            _scatter(windows, NUM_BUFFERS_AT, _U16.pack(len(elements)))
        self._touch(buffers, size)
        return elements

    def _merge(self, size: int) -> list[tuple[int, int]]:
        """Finish the part of a frame that went beyond its first chain."""
        usual, spare = self._usual, self._spare
        elements: list[tuple[int, int]] = []
        copied = 0
        while size:
            head, room, buffers, windows = self._chains.popleft()
            self._size -= room
            self._buffers -= len(buffers)
            used = min(size, room)
            size -= used
            elements.append((head, used))
            if len(elements) >= usual:
                _scatter(windows, 0, spare[copied : copied + used])
                copied += used
            self._touch(buffers, used)
        self._usual = len(elements) + 1
        return elements

    def _touch(self, buffers: list[Descriptor], size: int) -> None:
        """Report what a frame has changed in a chain."""
        touched = self._memory.touched
        for addr, length, _, _ in buffers:
            if size <= length:
                touched(addr, size)
                return
            touched(addr, length)
            size -= length

    def _hand_over(self, size: int, elements: list[tuple[int, int]]) -> bool:
        """Give a frame to the driver, unless the limiter says to wait."""
        if not self._limiter.admit(size):
            self._refuse(size, elements)
            return False
        self._refused = None
        for head, used in elements:
            self._queue.push(head, used)
        self._count(1, size)
        return True

    def _refuse(self, size: int, elements: list[tuple[int, int]]) -> None:
        self._refused = size, elements
        self._metrics.rx_rate_limiter_throttled += 1

    def _count(self, frames: int, received: int) -> None:
        if frames:
            self._failures = 0
        metrics = self._metrics
        metrics.rx_count += frames
        metrics.rx_packets_count += frames
        metrics.rx_bytes_count += received

    def _count_failure(self, error: OSError) -> bool:
        """Count a failure; False once there have been so many in a row that no better is to be expected."""
        self._metrics.tap_read_fails += 1
        self._metrics.event_fails += 1
        self._failures += 1
        log.error_limited(f"Failed to read from tap: {os_text(error)}")
        return self._failures < _PATIENCE


def _scatter(windows: list[memoryview], offset: int, content: bytes | memoryview) -> None:
    """Write into a chain, beginning `offset` bytes behind its first."""
    for window in windows:
        part = window[offset : offset + len(content)]
        part[:] = content[: len(part)]
        content = content[len(part) :]
        offset = max(0, offset - len(window))
