"""The keyboard controller: how a guest resets the machine, and how Ctrl-Alt-Del reaches it (ports 0x60-0x64, GSI 1).

Only the data port (offset 0) and the status and command port (offset 4) are decoded. There is no keyboard behind it
beyond three keys, and no mouse.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from hibana.bus.irq import IrqLine
from hibana.errors import I8042BufferFull
from hibana.observe import log
from hibana.observe.metrics_groups import METRICS

_COUNTERS: Final = METRICS.i8042

SIZE: Final = 5
"""Addresses the chip takes."""
BUFFER_SIZE: Final = 16

# Offsets.
DATA: Final = 0
STATUS: Final = 4  # written: command

STATUS_DATA_AVAILABLE: Final = 0x01
STATUS_EXPECTS_PARAMETER: Final = 0x08  # the next byte written to DATA belongs to the last command
STATUS_KEYBOARD_ENABLED: Final = 0x10

CONTROL_KEYBOARD_INTERRUPT: Final = 0x01
CONTROL_SELF_TEST_PASSED: Final = 0x04

READ_CONTROL: Final = 0x20
WRITE_CONTROL: Final = 0x60
READ_OUTPUT_PORT: Final = 0xD0
WRITE_OUTPUT_PORT: Final = 0xD1
RESET_CPU: Final = 0xFE

ACK: Final = 0xFA

# Make codes of scan code set 2: one interrupt per key.
CTRL_ALT_DEL: Final = (b"\x14", b"\x11", b"\xe0\x71")


class I8042:
    """A PS/2 controller with a keyboard nobody types on."""

    def __init__(self, irq: IrqLine, on_reset: Callable[[], None]) -> None:
        """Make a controller in its reset state; `on_reset` is called when the guest asks for a CPU reset."""
        self._irq = irq
        self._on_reset = on_reset
        self._status = STATUS_KEYBOARD_ENABLED
        self._control = CONTROL_SELF_TEST_PASSED | CONTROL_KEYBOARD_INTERRUPT
        self._output_port = 0
        self._command = 0
        self._buffer: deque[int] = deque()

    def read(self, offset: int, size: int) -> int:
        """Answer a guest's read; only single bytes are served."""
        if size != 1 or offset not in (DATA, STATUS):
            _COUNTERS.missed_read_count += 1
            return 0
        _COUNTERS.read_count += 1
        return self._status if offset == STATUS else self._pop()

    def write(self, offset: int, size: int, value: int) -> None:
        """Take a guest's write: a command, its parameter, or a byte for the keyboard."""
        if size == 1 and offset == STATUS:
            understood = self._execute(value)
        elif size == 1 and offset == DATA:
            understood = True
            self._take_data(value)
        else:
            understood = False
        if understood:
            _COUNTERS.write_count += 1
        else:
            _COUNTERS.missed_write_count += 1

    def send_ctrl_alt_del(self) -> None:
        """Press Ctrl, Alt and Del, which makes Linux reboot. Raises I8042BufferFull.

        A guest that has disabled the keyboard interrupt does not hear of it; that is not an error.
        """
        if BUFFER_SIZE - len(self._buffer) < sum(map(len, CTRL_ALT_DEL)):
            raise I8042BufferFull
        for key in CTRL_ALT_DEL:
            self._push(*key)
            self._interrupt()

    def _execute(self, command: int) -> bool:
        if command == RESET_CPU:
            _COUNTERS.reset_count += 1
            self._on_reset()
        elif command == READ_CONTROL:
            self._flush()
            self._push(self._control)
        elif command == READ_OUTPUT_PORT:
            self._flush()
            self._push(self._output_port)
        elif command == WRITE_CONTROL:
            self._flush()
            self._expect_parameter(command)
        elif command == WRITE_OUTPUT_PORT:
            self._expect_parameter(command)
        else:
            return False
        return True

    def _expect_parameter(self, command: int) -> None:
        self._status |= STATUS_EXPECTS_PARAMETER
        self._command = command

    def _take_data(self, value: int) -> None:
        if not self._status & STATUS_EXPECTS_PARAMETER:
            self._flush()
            self._push(ACK)
            self._interrupt()
            return
        self._status &= ~STATUS_EXPECTS_PARAMETER
        if self._command == WRITE_CONTROL:
            self._control = value
        else:
            self._output_port = value

    def _push(self, *content: int) -> None:
        self._buffer.extend(content)
        self._status |= STATUS_DATA_AVAILABLE

    def _pop(self) -> int:
        if not self._buffer:
            return 0
        byte = self._buffer.popleft()
        if self._buffer:
            self._interrupt()
        else:
            self._status &= ~STATUS_DATA_AVAILABLE
        return byte

    def _flush(self) -> None:
        self._buffer.clear()
        self._status &= ~STATUS_DATA_AVAILABLE

    def _interrupt(self) -> None:
        if self._control & CONTROL_KEYBOARD_INTERRUPT:
            self._irq.pulse()
        else:
            log.warn_limited("Failed to trigger i8042 kbd interrupt (disabled by guest OS)")
