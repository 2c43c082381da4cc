"""Where devices live: the thread on which they are called, and how the world outside reaches them there.

On soft, devices are called on the thread that runs the guest, because only there may guest memory change (design.md
§2). On kvm they live on the thread of the event loop; the guest's accesses to their registers come from the threads of
the vCPUs, and one lock sees to it that only one thread is with the devices at a time. A device sees one object with the
same four verbs in both cases. All of them may be used wherever devices are called; and before the guest runs, on the
loop's thread.

A watched descriptor is reported once, and again only after its handler has run over there; so the loop never spins
while a report is on its way. Who cannot use what is there forgets the descriptor until it can.
"""

from collections.abc import Callable
from select import EPOLLIN, EPOLLONESHOT
from typing import Final

from hibana.bus.loop import Loop

Task = Callable[[], None]

_ONCE: Final = EPOLLIN | EPOLLONESHOT


class Appointment:
    """A call in the future."""

    __slots__ = ("_handler",)

    def __init__(self, handler: Task) -> None:
        self._handler: Task | None = handler

    def cancel(self) -> None:
        """Never call the handler, however late it is."""
        self._handler = None

    def keep(self) -> None:
        """Call the handler, unless that was cancelled."""
        handler, self._handler = self._handler, None
        if handler is not None:
            handler()


class _Watch:
    """One `watch`: lives on the devices' thread, but for what it asks the loop to do."""

    __slots__ = ("_handler", "_home", "fd", "wanted")

    def __init__(self, home: "Home", fd: int, handler: Task) -> None:
        self._home = home
        self._handler = handler
        self.fd = fd
        self.wanted = True

    def listen(self) -> None:
        """Start to watch. On the loop's thread."""
        self._home.loop.watch(self.fd, self.report, _ONCE)

    def report(self) -> None:
        """Carry the news to where devices live. On the loop's thread."""
        self._home.deliver(self.handle)

    def handle(self) -> None:
        """Call the handler and listen again, unless it has lost interest."""
        if self.wanted:
            self._handler()
        if self.wanted:
            self._home.on_loop(self.listen_again)

    def listen_again(self) -> None:
        """Let the next report come. On the loop's thread."""
        if self.wanted:
            self._home.loop.modify(self.fd, _ONCE)

    def leave(self) -> None:
        """Stop watching. On the loop's thread."""
        self._home.loop.forget(self.fd)


class Home:
    """Brings descriptors, timers and tasks to the thread where devices live."""

    def __init__(self, loop: Loop, post: Callable[[Task], None], visit: Callable[[Task], None] | None = None) -> None:
        """Connect the loop with a thread; `post` runs a task on it and is safe from any thread.

        Where devices live on the loop's own thread, `visit` runs a task there at once.
        """
        self.loop: Final = loop
        self.post: Final = post
        """Run a task where devices live, soon."""
        self.deliver: Final = visit or post
        """Bring news there; on the loop's thread."""
        self.on_loop: Final[Callable[[Task], None]] = loop.call if visit is None else _at_once
        """Have something done on the loop's thread after a delivery."""
        self._watches: dict[int, _Watch] = {}

    def watch(self, fd: int, handler: Task) -> None:
        """Call `handler` whenever a descriptor is readable, or closed at its other end."""
        watch = self._watches[fd] = _Watch(self, fd, handler)
        self.loop.call(watch.listen)

    def forget(self, fd: int) -> None:
        """Never call a descriptor's handler again. The descriptor must stay open until the loop has come by."""
        watch = self._watches.pop(fd)
        watch.wanted = False
        self.loop.call(watch.leave)

    def after(self, seconds: float, handler: Task) -> Appointment:
        """Call `handler` once when the time has passed, unless the appointment is cancelled before."""
        appointment = Appointment(handler)
        self.loop.call(lambda: self._wait(seconds, appointment))
        return appointment

    def _wait(self, seconds: float, appointment: Appointment) -> None:
        self.loop.after(seconds, lambda: self.deliver(appointment.keep))


def _at_once(task: Task) -> None:
    task()
