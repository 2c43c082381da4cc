"""The one place where the VMM waits: one epoll, one thread, handlers that never block.

What a handler may do. Anything that does not wait: watch, modify and forget descriptors (its own too), set and cancel
timers, stop the loop. It takes no argument, because a descriptor's readiness is a hint: it looks for itself, with
non-blocking calls, and copes with finding nothing. An exception in a handler is a bug of ours; it comes out of `run`.

Level, not edge. A descriptor is reported as long as it is ready, so a handler may take one frame of a hundred and
leave the rest for the next round: nothing starves and nothing is forgotten. The price: a descriptor whose readiness
nobody consumes makes the loop spin. Who cannot use what is there forgets the descriptor until it can. Asking for no
events is not enough for that, because the kernel reports hang-ups and errors unasked.

Stale reports. One `epoll_wait` answers for many descriptors, and the handler of the first may change the fate of the
second: forget it, close it, watch a new descriptor that got the same number, or lose interest in what was reported. So
a report counts only if the watch existed before the batch was fetched and still wants that event. A dropped report
loses nothing: if it still holds, the next round brings it again. Forget a descriptor *before* closing it: epoll holds
on to the open file, not to the number, and a duplicate elsewhere would keep it reporting.

Other threads. Only `call` may be used from another thread (or a signal handler). It counts up an eventfd in semaphore
mode, so each round makes one call; a flood of calls cannot keep descriptors waiting, and calls left over when the
loop stops are made when it runs again.

Timers are a heap ordered by deadline, then by age. A cancelled one stays in the heap, without its handler, until it is
due. The resolution is epoll's: a millisecond, rounded up.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from select import EPOLLERR, EPOLLHUP, EPOLLIN, epoll
from typing import Final

_LONGEST_WAIT_S: Final = 1_000_000.0  # epoll counts milliseconds in 31 bits: 24 days


class Timer:
    """A call in the future."""

    __slots__ = ("handler",)

    def __init__(self, handler: Callable[[], None]) -> None:
        self.handler: Callable[[], None] | None = handler

    def cancel(self) -> None:
        """Never call the handler, however late it is."""
        self.handler = None


class _Watch:
    """Who hears about a descriptor, about what, and from which batch on."""

    __slots__ = ("batch", "handler", "wanted")

    def __init__(self, handler: Callable[[], None], events: int, batch: int) -> None:
        self.handler = handler
        self.wanted = events | EPOLLHUP | EPOLLERR
        self.batch = batch


class Loop:
    """Waits for descriptors, timers and calls from other threads, and hands each to its handler."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Make a loop whose timers follow `clock`, in seconds."""
        self._clock = clock
        self._epoll = epoll()
        self._watches: dict[int, _Watch] = {}
        self._batch = 0
        self._timers: list[tuple[float, int, Timer]] = []
        self._timers_made = 0
        self._stopping = False
        self._calls: deque[Callable[[], None]] = deque()
        self._call_count = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        self.watch(self._call_count, self._make_call)

    def watch(self, fd: int, handler: Callable[[], None], events: int = EPOLLIN) -> None:
        """Call `handler` whenever one of `events`, a hang-up or an error is reported for a descriptor."""
        self._epoll.register(fd, events)
        self._watches[fd] = _Watch(handler, events, self._batch)

    def modify(self, fd: int, events: int) -> None:
        """Change which events of a watched descriptor matter."""
        self._epoll.modify(fd, events)
        self._watches[fd].wanted = events | EPOLLHUP | EPOLLERR

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor, which must still be open."""
        del self._watches[fd]
        self._epoll.unregister(fd)

    def after(self, seconds: float, handler: Callable[[], None]) -> Timer:
        """Call `handler` once when the time has passed, unless the timer is cancelled before."""
        timer = Timer(handler)
        self._timers_made += 1
        heappush(self._timers, (self._clock() + seconds, self._timers_made, timer))
        return timer

    def call(self, handler: Callable[[], None]) -> None:
        """Call `handler` on the loop's thread soon, in the order of the calls. Safe from any thread."""
        self._calls.append(handler)
        os.eventfd_write(self._call_count, 1)

    def stop(self) -> None:
        """Make `run` return when the present handler does, or at once if it is not running yet."""
        self._stopping = True

    def run(self) -> None:
        """Wait and call handlers until `stop`."""
        while not self._stopping:
            self._batch += 1
            for fd, reported in self._epoll.poll(self._time_to_wait()):
                watch = self._watches.get(fd)
                if watch is not None and watch.batch < self._batch and reported & watch.wanted:
                    watch.handler()
                    if self._stopping:
                        break
            if self._timers:
                self._call_due_timers()
        self._stopping = False

    def close(self) -> None:
        """Give back the loop's own descriptors; watched ones belong to others."""
        self._epoll.close()
        os.close(self._call_count)

    def _time_to_wait(self) -> float | None:
        if not self._timers:
            return None
        return min(max(0.0, self._timers[0][0] - self._clock()), _LONGEST_WAIT_S)

    def _call_due_timers(self) -> None:
        now = self._clock()
        newest = self._timers_made  # a handler that sets a timer of zero seconds waits for the next round
        while self._timers and not self._stopping:
            deadline, number, timer = self._timers[0]
            if deadline > now or number > newest:
                return
            heappop(self._timers)
            if timer.handler is not None:
                timer.handler()

    def _make_call(self) -> None:
        os.eventfd_read(self._call_count)
        self._calls.popleft()()
