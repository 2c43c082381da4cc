"""The I/O APIC: 24 pins, one redirection entry each (Intel 82093AA datasheet).

Every interrupt line of this machine is a pulse, so a pin keeps no level. A pulse is remembered in IRR until it can be
sent: past the mask bit and, on a pin the guest declared level-triggered, past the previous interrupt's EOI. Nothing a
device raises is ever lost.
"""

from collections.abc import Callable
from typing import Final

from hibana.engine.state import IoapicState

PINS: Final = 24

_SELECT: Final = 0x00
_WINDOW: Final = 0x10

_INDEX_ID: Final = 0
_INDEX_VERSION: Final = 1
_INDEX_ARBITRATION: Final = 2
_INDEX_TABLE: Final = 0x10

_VERSION: Final = 0x170011  # 24 entries, no EOI register

# Redirection entry.
_VECTOR: Final = 0xFF
_LOGICAL: Final = 1 << 11
_REMOTE_IRR: Final = 1 << 14
_LEVEL: Final = 1 << 15
_MASKED: Final = 1 << 16
_WRITABLE_LOW: Final = 0x1AFFF  # all but delivery status and remote IRR
_WRITABLE_HIGH: Final = 0xFF000000

Send = Callable[[int, int, int, bool, bool], None]
"""(delivery mode, vector, destination, logical, level): put a message on the APIC bus."""


class Ioapic:
    """The registers behind the select/window pair, and the pins."""

    __slots__ = ("_entries", "_id", "_irr", "_select", "_send")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._id = 0
        self._select = 0
        self._irr = 0
        self._entries = [_MASKED] * PINS

    def pulse(self, pin: int) -> None:
        """Raise and lower a pin."""
        self._irr |= 1 << pin
        self._service(pin)

    def end_of_interrupt(self, vector: int) -> None:
        """Allow the level-triggered pins of a vector their next interrupt."""
        for pin, entry in enumerate(self._entries):
            if entry & _REMOTE_IRR and entry & _VECTOR == vector:
                self._entries[pin] = entry & ~_REMOTE_IRR
                self._service(pin)

    def read(self, offset: int) -> int:
        """Read the index register or the register it selects; everything else is zero."""
        register = offset & ~3
        if register == _SELECT:
            value = self._select
        elif register == _WINDOW:
            value = self._read_selected()
        else:
            return 0
        return value >> 8 * (offset & 3)

    def write(self, offset: int, value: int) -> None:
        """Write the index register or the register it selects."""
        if offset == _SELECT:
            self._select = value & 0xFF
        elif offset == _WINDOW:
            self._write_selected(value & 0xFFFFFFFF)

    def save(self) -> IoapicState:
        """Export the registers."""
        return IoapicState(id=self._id, ioregsel=self._select, irr=self._irr, redirtbl=list(self._entries))

    def load(self, state: IoapicState) -> None:
        """Replace the registers, and send what was waiting."""
        self._id = state.id
        self._select = state.ioregsel
        self._irr = state.irr
        self._entries = list(state.redirtbl)
        for pin in range(PINS):
            self._service(pin)

    def _read_selected(self) -> int:
        if self._select in (_INDEX_ID, _INDEX_ARBITRATION):
            return self._id << 24
        if self._select == _INDEX_VERSION:
            return _VERSION
        pin, high = divmod(self._select - _INDEX_TABLE, 2)
        return self._entries[pin] >> 32 * high & 0xFFFFFFFF if 0 <= pin < PINS else 0

    def _write_selected(self, value: int) -> None:
        if self._select == _INDEX_ID:
            self._id = value >> 24 & 0xF
            return
        pin, high = divmod(self._select - _INDEX_TABLE, 2)
        if not 0 <= pin < PINS:
            return
        entry = self._entries[pin]
        if high:
            entry = entry & 0xFFFFFFFF | (value & _WRITABLE_HIGH) << 32
        else:
            entry = entry & ~_WRITABLE_LOW | value & _WRITABLE_LOW
            if not value & _LEVEL:
                entry &= ~_REMOTE_IRR  # how Linux clears a stuck remote IRR: level → edge → level
        self._entries[pin] = entry
        self._service(pin)

    def _service(self, pin: int) -> None:
        """Send the interrupt of a pin if one is waiting and nothing holds it back."""
        bit = 1 << pin
        entry = self._entries[pin]
        if not self._irr & bit or entry & (_MASKED | _REMOTE_IRR):
            return
        self._irr ^= bit
        level = entry & _LEVEL != 0
        if level:
            self._entries[pin] = entry | _REMOTE_IRR
        self._send(entry >> 8 & 7, entry & _VECTOR, entry >> 56, entry & _LOGICAL != 0, level)
