"""virtio-blk (virtio 1.2 §5.2): sectors of a drive, read into and written from guest memory.

One queue. A request is a header, data and a status byte; what may be odd about one, `block_request.py` tells. The host
end is a `Disk`, which either answers at once (`host/disk.py`) or later (`host/disk_uring.py`):

    notify ─► take chains ─► parse ─► rate limiter ─► Disk ─┬─ count ──────────────────► status, used ring
                                                            └─ SUBMITTED ─► completion ─► status, used ring

`_serve_chains` serves what a Linux driver really sends, reads and writes in three descriptors, without a call more than
is needed: a call costs as much as the checks it makes. Whatever is unusual goes to `_serve`, which starts over with the
same copy of the descriptors.
"""

from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import ClassVar, Final, NamedTuple, Protocol

from hibana.devices.rate_limiter import RateLimiter
from hibana.devices.virtio.block_request import (
    FLUSH,
    GET_ID,
    HEADER,
    HEADER_SIZE,
    ID_SIZE,
    IN,
    IOERR,
    NAMES,
    OK,
    OUT,
    SECTOR_BITS,
    SECTOR_MASK,
    UNSUPP,
    Piece,
    find_status,
    parse,
)
from hibana.devices.virtio.device import EVENT_IDX, VirtioDevice
from hibana.devices.virtio.queue import WRITE, Chain, Descriptor
from hibana.devices.virtio.turn import ROUNDS, Turn
from hibana.errors import GuestFault, os_text
from hibana.observe import log
from hibana.observe.metrics_groups import METRICS

FEATURE_RO: Final = 1 << 5
FEATURE_FLUSH: Final = 1 << 9

SUBMITTED: Final = -1
"""A disk's answer: the request is under way, a completion will come."""
BUSY: Final = -2
"""A disk's answer: there are too many requests under way; ask again after the next completion."""

Request = tuple[int, int, int, int, int, list[Piece]]
"""head, type, address of the status, offset on the drive, bytes done, pieces of memory that are left.

A plain tuple, because one is made for every request; a piece is under way when it is the first of those left.
"""

_AGAIN: Final = 4
"""How often the queue is served anew, in one go, because a busy disk has room again."""
_HEAD: Final = 0
_KIND: Final = 1
_OFFSET: Final = 3
_PIECES: Final = 5
_LAST_FLUSH: Final[Request] = (0, FLUSH, 0, 0, 0, [])
_END: Final = EOFError("the disk ends before the request does")


class Completion(NamedTuple):
    """The late answer to a request: how many bytes were moved, or what the host says why none could be."""

    request: Request
    moved: int
    error: OSError | None


class Disk(Protocol):
    """Where a drive's sectors are.

    `read`, `write` and `flush` give the number of bytes that were moved, SUBMITTED or BUSY. It may be less than was
    asked for; none at all means that the disk ends there. They raise OSError when the host fails.
    """

    size: int
    """In bytes; a last part of less than a sector is invisible to the guest."""
    id: bytes
    """Twenty bytes which the guest sees as the serial number."""

    def read(self, offset: int, window: memoryview, request: Request) -> int:
        """Fill a window of guest memory."""

    def write(self, offset: int, window: memoryview, request: Request) -> int:
        """Store what is in a window of guest memory."""

    def flush(self, request: Request) -> int:
        """Make sure that what was answered before survives a crash of the host."""

    def listen(self, on_completed: Callable[[Sequence[Completion]], None]) -> None:
        """Tell late answers to `on_completed`, where devices live."""

    def submit(self) -> Sequence[Completion]:
        """Get going with what has been submitted; give the answers that are there already, instead of telling them."""

    def drain(self) -> Sequence[Completion]:
        """Wait for everything under way and give the answers, instead of telling them."""


class Block(VirtioDevice):
    """A drive.

    Call it where devices live. `replace_disk` and `limiter.update` carry out a PATCH; `drain` comes before a snapshot;
    `close` comes before the disk is closed.
    """

    type_id: ClassVar[int] = 2
    queue_sizes: ClassVar[tuple[int, ...]] = (256,)

    def __init__(
        self, drive_id: str, disk: Disk, limiter: RateLimiter, *, read_only: bool = False, writeback: bool = False
    ) -> None:
        """Make a drive of a disk; `writeback` lets the driver ask for flushes (`cache_type`)."""
        features = EVENT_IDX | (FEATURE_RO if read_only else 0) | (FEATURE_FLUSH if writeback else 0)
        super().__init__(drive_id, features)
        self.limiter = limiter
        limiter.on_ready = self.guarded(self._limiter_is_ready)
        self._turn = Turn(limiter.timers)
        self._turn.on_begin = self.guarded(self._go_on_taking)
        self._writeback = writeback
        self._metrics = METRICS.block[drive_id]
        self._disk_is_busy = False
        self._use(disk)

    # --- life -------------------------------------------------------------------------------------------------------

    def notify(self, index: int) -> None:
        """Serve the requests that are waiting."""
        self._metrics.queue_event_count += 1
        if self.limiter.blocked:
            self._metrics.rate_limiter_throttled_events += 1
        elif self._disk_is_busy:
            self._metrics.io_engine_throttled_events += 1
        else:
            self._take()

    def reset(self) -> bool:
        """Wait for what is under way, and forget it with the driver."""
        self.active = False
        self._collect(self._disk.drain())
        return super().reset()

    def drain(self) -> None:
        """Wait for what is under way, and answer it, and what had to wait for that, unless there is no end of it."""
        for _ in range(_AGAIN):
            if not (completions := self._disk.drain()):
                return
            self._completed(completions)
        while completions := self._disk.drain():
            self._hand_over(self._collect(completions))
        self._turn.end()

    def replace_disk(self, disk: Disk) -> None:
        """Go on with another disk, whose size may differ: tell the driver. The former one is idle then."""
        self.drain()
        self._use(disk)
        self._metrics.update_count += 1
        if self.active:
            self.irq.config()

    def close(self) -> None:
        """Finish what is under way; with `writeback`, make what was written survive."""
        self._disk.drain()
        if not self._writeback:
            return
        try:
            self._disk.flush(_LAST_FLUSH)
            for _, _, error in self._disk.drain():
                if error:
                    raise error
        except OSError as error:
            log.error(f"{self.id}: cannot flush the drive: {os_text(error)}")

    def count_activation_failure(self) -> None:
        """Count an activation that failed."""
        self._metrics.activate_fails += 1

    def count_config_failure(self) -> None:
        """Count a refused write to the configuration structure."""
        self._metrics.cfg_fails += 1

    def count_event_failure(self) -> None:
        """Count a fault of the guest."""
        self._metrics.event_fails += 1

    def _use(self, disk: Disk) -> None:
        disk.listen(self._completed)
        self._disk = disk
        self._capacity = disk.size >> SECTOR_BITS
        self.config = self._capacity.to_bytes(8, "little")

    def _limiter_is_ready(self) -> None:
        self._metrics.rate_limiter_event_count += 1
        self._take()

    def _go_on_taking(self) -> None:
        if not (self.limiter.blocked or self._disk_is_busy):
            self._take()

    # --- the usual request ------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Serve the queue, and once more if a busy disk has room again."""
        for _ in range(_AGAIN):
            if not self._serve_queue() or self._disk_is_busy:
                break
        else:
            self._turn.end()

    def _serve_queue(self) -> bool:
        """Serve chains until there are none, or limiter, disk or others want a break; True if it was the disk."""
        queue = self.queues[0]
        waiting = queue.pending()
        taken = answered = left = 0
        try:
            for _ in range(ROUNDS):
                if left or not (chains := queue.take() or (queue.arm() and queue.take())):
                    break
                left, answers = self._serve_chains(chains)
                if left:
                    queue.give_back(left)
                answered += answers
                taken += len(chains) - left + bool(left)
            else:
                self._turn.end()
            disk_was_busy = self._disk_is_busy
        finally:
            known = min(taken, waiting)
            self._metrics.remaining_reqs_count += waiting * known - known * (known + 1) // 2
            if not self._hand_over(bool(answered)):
                self._metrics.no_avail_buffer += 1
        return disk_was_busy

    def _serve_chains(self, chains: list[Chain]) -> tuple[int, int]:
        """Serve chains in their order; give how many are left for later, and how many have been answered.

        A read or write in three descriptors is served here if all goes well, and by `_serve` from the start if not.
        All in one function, because a call costs as much as all checks of a request together.
        """
        memory, disk, capacity, metrics = self.memory, self._disk, self._capacity, self._metrics
        read, write, push = disk.read, disk.write, self.queues[0].push
        window, touched, unpack, now = memory.window, memory.on_write, HEADER.unpack_from, monotonic_ns
        is_unlimited = self.limiter.ops is None and self.limiter.bandwidth is None
        answered = left = 0
        for at, (head, descriptors) in enumerate(chains):
            try:
                if is_unlimited and len(descriptors) == 3:
                    (header_addr, header_size, header_flags, _), (addr, size, flags, _), status = descriptors
                    status_addr, status_size, status_flags, _ = status
                    kind, sector = unpack(window(header_addr, HEADER_SIZE))
                    if (
                        kind == (IN if flags & WRITE else OUT)
                        and header_size >= HEADER_SIZE
                        and not header_flags & WRITE
                        and not size & SECTOR_MASK
                        and sector + (size >> SECTOR_BITS) <= capacity
                        and status_size
                        and status_flags & WRITE
                    ):
                        offset = sector << SECTOR_BITS
                        data, answer = window(addr, size), window(status_addr, 1)
                        request = (head, kind, status_addr, offset, 0, [(addr, size)])
                        began = now()
                        if kind == IN:
                            count = read(offset, data, request)
                            metrics.read_agg.record((now() - began) // 1000)
                            if count == size:
                                touched(addr, size)
                                metrics.read_bytes += size
                                metrics.read_count += 1
                        else:
                            count = write(offset, data, request)
                            metrics.write_agg.record((now() - began) // 1000)
                            if count == size:
                                metrics.write_bytes += size
                                metrics.write_count += 1
                        if count == size:
                            answer[0] = OK
                            touched(status_addr, 1)
                            push(head, 1 if kind == OUT else size + 1)
                            answered += 1
                            continue
                        if count == SUBMITTED:
                            continue
            except (GuestFault, OSError):
                pass  # rare; `_serve` meets it again and says what is wrong
            written = self._serve(head, descriptors)
            if written == BUSY:
                left = len(chains) - at
                break
            if written != SUBMITTED:
                push(head, written)
                answered += 1
        return left, answered

    # --- any request ------------------------------------------------------------------------------------------------

    def _serve(self, head: int, descriptors: list[Descriptor]) -> int:
        """Serve a chain; give how many bytes were written into it, or SUBMITTED, or BUSY if it has to wait."""
        status_addr = find_status(descriptors)
        try:
            if status_addr is None:
                raise GuestFault("the chain does not end with room for a status")
            kind, offset, pieces = parse(self.memory, descriptors, self._capacity)
        except GuestFault as fault:
            log.error_limited(f"Failed to parse available descriptor chain: {fault}")
            self._metrics.execute_fails += 1
            # The reference writes nothing; then a driver may take what a former request left there for the answer.
            return self._answer(status_addr, IOERR, 0)
        size = sum(size for _, size in pieces) if kind in (IN, OUT) else 0
        if not self.limiter.admit(size):
            self._metrics.rate_limiter_throttled_events += 1
            return BUSY
        written = self._execute((head, kind, status_addr, offset, 0, pieces))
        if written == BUSY:
            self.limiter.refund(size)
            self._disk_is_busy = True
            self._metrics.io_engine_throttled_events += 1
        return written

    def _execute(self, request: Request) -> int:
        head, kind, status_addr, _, _, pieces = request
        if kind in (IN, OUT):
            return self._transfer(request)
        try:
            if kind == FLUSH:
                count = self._disk.flush(request)
                return count if count < 0 else self._finish(request)
            if kind == GET_ID:
                self._give_id(pieces)
                return self._finish((head, kind, status_addr, 0, ID_SIZE, []))
        except (GuestFault, OSError) as why:
            return self._finish(request, why)
        log.error_limited(f"Unsupported virtio block request type: {kind}")
        self._metrics.invalid_reqs_count += 1
        return self._answer(status_addr, UNSUPP, 0)

    def _transfer(self, request: Request) -> int:
        """Move the pieces that are left of a request, as far as the disk goes without waiting."""
        while pieces := request[_PIECES]:
            addr, size = pieces[0]
            try:
                count = self._move(request, addr, size)
            except (GuestFault, OSError) as why:
                return self._finish(request, why)
            if count < 0:
                return count
            if not count and size:
                return self._finish(request, _END)
            request = _advanced(request, count)
        return self._finish(request)

    def _move(self, request: Request, addr: int, size: int) -> int:
        window = self.memory.window(addr, size)
        offset = request[_OFFSET]
        started = monotonic_ns()
        try:
            if request[_KIND] == OUT:
                return self._disk.write(offset, window, request)
            return self._disk.read(offset, window, request)
        finally:  # a read that failed may have changed memory, too
            took_us = (monotonic_ns() - started) // 1000
            if request[_KIND] == OUT:
                self._metrics.write_agg.record(took_us)
            else:
                self._metrics.read_agg.record(took_us)
                self.memory.on_write(addr, size)

    def _give_id(self, pieces: list[Piece]) -> None:
        left = self._disk.id
        for addr, size in pieces:
            self.memory.write(addr, left[:size])
            left = left[size:]

    # --- late answers -----------------------------------------------------------------------------------------------

    def _completed(self, completions: Sequence[Completion]) -> None:
        """Answer requests that were under way, and look into the queue again if it had to wait for that."""
        was_busy = self._disk_is_busy
        self._hand_over(self._collect(completions))
        if was_busy:
            self.guarded(self._take)()

    def _hand_over(self, answered: bool) -> bool:
        """Let the disk begin, and the driver see what was answered; False if nothing was."""
        while completions := self._disk.submit():
            answered = self._collect(completions) or answered
        if answered and self.queues[0].publish():
            self.irq.used(0)
        return answered

    def _collect(self, completions: Sequence[Completion]) -> bool:
        """Put answers into the queue, and tell the engine what was written; False if nobody is answered."""
        self._disk_is_busy = False
        answered = False
        for request, count, error in completions:
            if request[_KIND] == IN:
                self.memory.on_write(*request[_PIECES][0])
            if not self.active:  # the driver broke a rule meanwhile, or gave up
                continue
            written = self._go_on(request, count, error)
            if written >= 0:
                self.queues[0].push(request[_HEAD], written)
                answered = True
        return answered

    def _go_on(self, request: Request, count: int, error: OSError | None) -> int:
        if error or request[_KIND] == FLUSH:
            return self._finish(request, error)
        return self._transfer(_advanced(request, count)) if count else self._finish(request, _END)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _finish(self, request: Request, why: Exception | None = None) -> int:
        """Answer an operation that was tried: count it, and log why it failed if it did."""
        _, kind, status_addr, _, done, _ = request
        metrics = self._metrics
        if why:
            metrics.invalid_reqs_count += 1
            reason = os_text(why) if isinstance(why, OSError) else why
            log.error_limited(f"Failed to execute {NAMES[kind]} virtio block request: {reason}")
        if kind == IN:
            metrics.read_bytes += done
            metrics.read_count += not why
        elif kind == OUT:
            metrics.write_bytes += done
            metrics.write_count += not why
        elif kind == FLUSH:
            metrics.flush_count += 1
        return self._answer(status_addr, IOERR if why else OK, 0 if kind == OUT else done)

    def _answer(self, status_addr: int | None, status: int, written: int) -> int:
        """Write the status; give how many bytes of the chain were written with it, 0 if it could not be."""
        if status_addr is None:
            return 0
        try:
            self.memory.write(status_addr, bytes((status,)))
        except GuestFault as fault:
            log.error_limited(f"Failed to write the status of a virtio block request: {fault}")
            return 0
        return written + 1


def _advanced(request: Request, count: int) -> Request:
    """Give what is left of a request when `count` bytes of its first piece have been moved."""
    head, kind, status_addr, offset, done, ((addr, size), *pieces) = request
    if count < size:
        pieces.insert(0, (addr + count, size - count))
    return head, kind, status_addr, offset + count, done + count, pieces
