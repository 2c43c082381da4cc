"""What is typed for the guest: standard input to the serial port, never more than its FIFO can take.

How much room there is, only the thread where devices live can tell. So a readable descriptor is first forgotten by the
loop, then read over there, and watched again when there is room for more: at once, or when the guest has emptied the
FIFO. Between the two nobody spins, and nothing is read that would have to be kept.
"""

import os
import stat
from collections.abc import Callable

from hibana.bus.loop import Loop
from hibana.devices.uart16550 import Uart16550
from hibana.host.terminal import in_foreground
from hibana.observe import log


class SerialInput:
    """Feeds a terminal or a FIFO to the serial port until it ends."""

    def __init__(self, fd: int, uart: Uart16550, loop: Loop, post: Callable[[Callable[[], None]], None]) -> None:
        """Connect a descriptor with a chip; `post` runs a task where devices live."""
        self._fd = fd
        self._uart = uart
        self._loop = loop
        self._post = post
        self._waits_for_room = False

    def start(self) -> None:
        """Begin to listen, if the descriptor is something people or programs type into. Call it on the loop."""
        if _is_typed_into(self._fd):
            self._uart.on_drained = self._drained
            self._watch()

    def _watch(self) -> None:
        self._loop.watch(self._fd, self._readable)

    def _readable(self) -> None:
        self._loop.forget(self._fd)
        self._post(self._transfer)

    def _transfer(self) -> None:
        if self._uart.room and not self._read():
            log.warn("Detached the serial input due to peer close/error.")
        elif self._uart.room:
            self._loop.call(self._watch)
        else:
            self._waits_for_room = True

    def _read(self) -> bool:
        try:
            content = os.read(self._fd, self._uart.room)
        except BlockingIOError:  # somebody else was faster
            return True
        except OSError:
            return False
        self._uart.receive(content)
        return bool(content)

    def _drained(self) -> None:
        if self._waits_for_room:
            self._waits_for_room = False
            self._loop.call(self._watch)


def _is_typed_into(fd: int) -> bool:
    """Tell whether a descriptor is a FIFO, or a terminal that is ours; files and /dev/null cannot be waited for."""
    return (os.isatty(fd) and in_foreground(fd)) or stat.S_ISFIFO(os.fstat(fd).st_mode)
