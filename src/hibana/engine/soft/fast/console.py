"""The console: bytes that a guest prints wait a few milliseconds for each other.

**What the library does.** Each IN and each OUT calls the engine's hook, which is a function in Python.

**Why that is slow.** A kernel prints its log byte by byte, and looks at the line status register before each byte: a
boot makes 31 000 such accesses. Each costs one to three microseconds: the way into the interpreter, the bus, the chip
and a system call.

**What takes its place.** The first byte goes that way. Then, if the chip says that this may be (`SerialPort.steady`),
those that follow are put into a buffer, and reads of the line status are answered with what the chip has said. When
`_PATIENCE_NS` are over, the chip gets the buffer in one piece. KVM has the same for its user space, as coalesced I/O.

**What makes it correct.** *While bytes wait, nothing happens to the chip.* The guest cannot do anything to it, because
its access to any port but these two ends the wait first; and so does a write of a full buffer. The host cannot, because
what it wants is done on this thread, outside the library, and the wait ends when the library comes back, whyever it
does: a halted guest, a kick, a guest that ends, and the timer. So the chip sees all accesses in their order, and those
that it does not see would have changed nothing: a status that reading does not change, a transmitter without an
interrupt to give that the guest does not have already. In loopback, or while the divisor is set, nothing waits.

**What a hostile guest can try.** It chooses the bytes. Their number is compared with the size of the buffer.
"""

import ctypes
from typing import Final

from hibana.engine.interface import SerialPort
from hibana.engine.soft import clock
from hibana.engine.soft.machine_code import MachineCode
from hibana.engine.soft.table import Table
from hibana.units import PAGE

_PATIENCE_NS: Final = 5_000_000
_NO_PORT: Final = 0xFFFFFFFF


def attach(code: MachineCode, plain: MachineCode) -> Table:
    """Begin with an empty buffer and no port that it is for."""
    buffer = Table(PAGE)
    code.set("data_port", _NO_PORT)
    code.set("status_port", _NO_PORT)
    code.set("buffer", buffer.addr)
    return buffer


def detach(code: MachineCode) -> None:
    """Forget what waits."""
    code.set("room", 0)
    code.set("waiting", 0)


class Console:
    """A serial port, and what is on its way there."""

    def __init__(self, code: MachineCode, data_port: int, status_port: int, chip: SerialPort) -> None:
        """Connect the ports."""
        self.data_port: Final = data_port
        self.due: int | None = None
        """When the wait ends; None while nothing may wait."""
        self._chip = chip
        self._room, self._waiting, self._status = (
            ctypes.c_uint64.from_address(code.cell(name)) for name in ("room", "waiting", "status")
        )
        self._buffer = code.get("buffer")
        code.set("data_port", data_port)
        code.set("status_port", status_port)

    def begin(self) -> bool:
        """Let the next bytes wait, if the chip allows it."""
        status = self._chip.steady
        if status is None:
            return False
        self._status.value = status
        self._room.value = PAGE
        self.due = clock.now() + _PATIENCE_NS
        return True

    def end(self) -> None:
        """Give the chip what waits, and let nothing wait any more."""
        self.due = None
        self._room.value = 0
        if count := self._waiting.value:
            self._waiting.value = 0
            self._chip.print(ctypes.string_at(self._buffer, count))
