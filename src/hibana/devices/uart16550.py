"""The serial port: an 8250/16550A as far as guests look (ports 0x3F8-0x3FF, GSI 4).

A pure chip: bytes for the guest enter through `receive`, bytes from the guest leave through a `Sink`, interrupts
through an `IrqLine`. It has no baud rate; a byte is sent the moment it is written. All calls come from the thread
where devices live.

Where it differs from the data sheet it does so like the reference, because drivers have been run against that: both
pending interrupts show in IIR at once (0x06), reading IIR withdraws all of them, enabling the transmitter interrupt
does not raise it, and reading one byte withdraws the receiver interrupt even if more are waiting. But enabling the
receiver interrupt raises it when bytes are waiting: Linux disables it while it prints, and would never see them.
"""

from collections import deque
from collections.abc import Callable
from typing import Annotated, Final, Protocol

from msgspec import Meta, Struct

from hibana.bus.irq import IrqLine
from hibana.observe.metrics_groups import METRICS

_COUNTERS: Final = METRICS.uart

SIZE: Final = 8
"""Addresses the chip takes."""
FIFO_SIZE: Final = 64

# Offsets. With LCR.DLAB set, 0 and 1 are the divisor latch.
DATA: Final = 0  # read: receiver buffer (RBR), write: transmitter holding register (THR)
IER: Final = 1
IIR: Final = 2  # written: FIFO control (FCR)
LCR: Final = 3
MCR: Final = 4
LSR: Final = 5
MSR: Final = 6
SCR: Final = 7

IER_RECEIVED: Final = 0x01
IER_THR_EMPTY: Final = 0x02
IER_VALID: Final = 0x0F
IIR_NONE: Final = 0x01
IIR_THR_EMPTY: Final = 0x02
IIR_RECEIVED: Final = 0x04
IIR_FIFOS_ENABLED: Final = 0xC0
FCR_CLEAR_RECEIVER: Final = 0x02
LCR_DLAB: Final = 0x80
MCR_DTR: Final = 0x01
MCR_RTS: Final = 0x02
MCR_OUT1: Final = 0x04
MCR_OUT2: Final = 0x08
MCR_LOOP: Final = 0x10
LSR_DATA_READY: Final = 0x01
LSR_IDLE: Final = 0x60  # THR empty, transmitter empty
MSR_CTS: Final = 0x10
MSR_DSR: Final = 0x20
MSR_RI: Final = 0x40
MSR_DCD: Final = 0x80

# The guest sends byte by byte; an index costs a third of making a new object each time.
_BYTES: Final = tuple(bytes((value,)) for value in range(256))

# In loopback the modem control outputs feed the modem status inputs.
_LOOPED: Final = ((MCR_DTR, MSR_DSR), (MCR_RTS, MSR_CTS), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD))

Byte = Annotated[int, Meta(ge=0, le=0xFF)]


class Sink(Protocol):
    """Where the guest's bytes go."""

    def write(self, content: bytes) -> int:
        """Take bytes without waiting, and tell how many; the others are lost."""


class UartState(Struct):
    """All registers and the received bytes, as a snapshot keeps them; the defaults are the chip after a reset."""

    divisor_low: Byte = 0x0C  # 9600 baud
    divisor_high: Byte = 0
    ier: Byte = 0
    iir: Byte = IIR_NONE
    lcr: Byte = 0x03  # 8 data bits, no parity, 1 stop bit
    lsr: Byte = LSR_IDLE
    mcr: Byte = MCR_OUT2
    msr: Byte = MSR_DCD | MSR_DSR | MSR_CTS
    scr: Byte = 0
    fifo: Annotated[bytes, Meta(max_length=FIFO_SIZE)] = b""


def _nobody() -> None:
    """Stand in for a host end that waits for room."""


class Uart16550:
    """An 8250/16550A serial port."""

    def __init__(self, sink: Sink, irq: IrqLine) -> None:
        """Make a chip in its reset state."""
        self.on_drained: Callable[[], None] = _nobody
        """Told when the guest has taken or thrown away all received bytes."""
        self._sink = sink
        self._irq = irq
        self._restore(UartState())

    @property
    def room(self) -> int:
        """How many bytes `receive` can take now."""
        return FIFO_SIZE - len(self._fifo)

    def receive(self, content: bytes) -> None:
        """Put bytes from outside into the receiver FIFO; what does not fit is lost, in loopback everything is."""
        if self._mcr & MCR_LOOP or not content:
            return
        self._fifo.extend(content[: self.room])
        self._announce_received()

    def read(self, offset: int, size: int) -> int:
        """Answer a guest's read; only single bytes are served."""
        if size != 1:
            _COUNTERS.missed_read_count += 1
            return 0
        # The hottest access of a booting guest comes first: Linux looks at LSR before each byte it prints.
        if offset == LSR:
            return self._lsr
        if offset == IIR:
            return self._read_iir()
        if offset == DATA:
            return self._divisor_low if self._lcr & LCR_DLAB else self._read_rbr()
        if offset == IER:
            return self._divisor_high if self._lcr & LCR_DLAB else self._ier
        if offset == LCR:
            return self._lcr
        if offset == MCR:
            return self._mcr
        if offset == MSR:
            return self._read_msr()
        return self._scr if offset == SCR else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Take a guest's write; LSR and MSR cannot be written."""
        if size != 1:
            _COUNTERS.missed_write_count += 1
        elif offset == DATA:
            self._write_data(value)
        elif offset == IER:
            self._write_ier(value)
        elif offset == IIR:
            self._write_fcr(value)
        elif offset == LCR:
            self._lcr = value
        elif offset == MCR:
            self._mcr = value
        elif offset == SCR:
            self._scr = value

    @property
    def steady(self) -> int | None:
        """Give LSR while writes to DATA do nothing but print; None while one could do more.

        Then `print` may have them later, if nothing else happens to the chip in between.
        """
        would_interrupt = self._ier & IER_THR_EMPTY and not self._iir & IIR_THR_EMPTY
        return None if self._lcr & LCR_DLAB or self._mcr & MCR_LOOP or would_interrupt else self._lsr

    def print(self, content: bytes) -> None:
        """Send bytes that were written to DATA while the chip was `steady`."""
        taken = self._sink.write(content)
        _COUNTERS.write_count += taken
        _COUNTERS.missed_write_count += len(content) - taken

    def save(self) -> UartState:
        """Export the complete state."""
        return UartState(
            self._divisor_low,
            self._divisor_high,
            self._ier,
            self._iir,
            self._lcr,
            self._lsr,
            self._mcr,
            self._msr,
            self._scr,
            bytes(self._fifo),
        )

    def load(self, state: UartState) -> None:
        """Replace the complete state and raise the interrupts that were pending in it once more."""
        self._restore(state)
        # The pulse may have been on its way when the state was saved.
        if self._iir & IIR_RECEIVED and self._ier & IER_RECEIVED:
            self._irq.pulse()
        if self._iir & IIR_THR_EMPTY and self._ier & IER_THR_EMPTY:
            self._irq.pulse()

    def _restore(self, state: UartState) -> None:
        self._divisor_low = state.divisor_low
        self._divisor_high = state.divisor_high
        self._ier = state.ier
        self._iir = state.iir
        self._lcr = state.lcr
        self._lsr = state.lsr
        self._mcr = state.mcr
        self._msr = state.msr
        self._scr = state.scr
        self._fifo = deque(state.fifo)

    def _read_rbr(self) -> int:
        self._withdraw(IIR_RECEIVED)
        byte = self._fifo.popleft() if self._fifo else 0
        _COUNTERS.read_count += 1
        if not self._fifo:
            self._drained()
        return byte

    def _read_iir(self) -> int:
        iir = self._iir
        self._iir = IIR_NONE
        return iir | IIR_FIFOS_ENABLED

    def _read_msr(self) -> int:
        if not self._mcr & MCR_LOOP:
            return self._msr
        return sum(status for control, status in _LOOPED if self._mcr & control)

    def _write_data(self, value: int) -> None:
        if self._lcr & LCR_DLAB:
            self._divisor_low = value
        elif self._mcr & MCR_LOOP:
            if self.room:
                self._fifo.append(value)
                self._announce_received()
        else:
            self.print(_BYTES[value])
            # Even when the byte was lost: a driver that waits for the transmitter must not wait for ever.
            if self._ier & IER_THR_EMPTY:
                self._raise(IIR_THR_EMPTY)

    def _write_ier(self, value: int) -> None:
        if self._lcr & LCR_DLAB:
            self._divisor_high = value
        else:
            self._ier = value & IER_VALID
            if self._lsr & LSR_DATA_READY:
                self._announce_received()

    def _write_fcr(self, value: int) -> None:
        if value & FCR_CLEAR_RECEIVER:
            self._fifo.clear()
            self._drained()

    def _drained(self) -> None:
        self._lsr &= ~LSR_DATA_READY
        self.on_drained()

    def _announce_received(self) -> None:
        self._lsr |= LSR_DATA_READY
        if self._ier & IER_RECEIVED:
            self._raise(IIR_RECEIVED)

    def _raise(self, cause: int) -> None:
        if not self._iir & cause:
            self._iir = (self._iir | cause) & ~IIR_NONE
            self._irq.pulse()

    def _withdraw(self, cause: int) -> None:
        self._iir = self._iir & ~cause or IIR_NONE
