"""The two 8259A interrupt controllers, master and slave on the master's input 2 (Intel 8259A datasheet).

Kernels of today mask them, probe them, or use them for the first timer ticks. As in the I/O APIC, a pulse on an input
is remembered until it is acknowledged, whatever the edge/level register says; only the cascade input is a real level,
the slave's output. The chips keep their registers in the record that snapshots store.
"""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from hibana.engine.state import PicState

MASTER_COMMAND: Final = 0x20
MASTER_MASK: Final = 0x21
SLAVE_COMMAND: Final = 0xA0
SLAVE_MASK: Final = 0xA1
MASTER_ELCR: Final = 0x4D0
SLAVE_ELCR: Final = 0x4D1
PORTS: Final = (MASTER_COMMAND, MASTER_MASK, SLAVE_COMMAND, SLAVE_MASK, MASTER_ELCR, SLAVE_ELCR)

_CASCADE: Final = 2
_SPURIOUS: Final = 7

# Command words.
_ICW1: Final = 0x10
_ICW4_FOLLOWS: Final = 0x01
_OCW3: Final = 0x08
_POLL: Final = 0x04
_READ_SELECT: Final = 0x02
_SET_SPECIAL_MASK: Final = 0x40

# OCW2, bits 7-5.
_ROTATE_ON_AUTO_EOI: Final = (0, 4)  # off, on
_EOI: Final = 1
_SPECIFIC_EOI: Final = 3
_ROTATE_ON_EOI: Final = 5
_SET_PRIORITY: Final = 6
_ROTATE_ON_SPECIFIC_EOI: Final = 7

# The next initialisation word expected at the mask port.
_READY: Final = 0
_ICW2: Final = 1
_ICW3: Final = 2
_ICW4: Final = 3


class _Chip:
    """One 8259A, except for its output pin."""

    __slots__ = ("_cascade", "regs")

    def __init__(self, elcr_mask: int, cascade: int) -> None:
        self.regs = PicState(elcr_mask=elcr_mask)
        self._cascade = cascade
        """The input that is another chip's output, as a mask."""

    def request(self) -> int:
        """Give the input that asks for service past masks and priorities, -1 when there is none."""
        regs = self.regs
        wanted = self._first(regs.irr & ~regs.imr)
        if wanted == 8:
            return -1
        serving = regs.isr
        if regs.special_mask:
            serving &= ~regs.imr
        if regs.special_fully_nested_mode:
            serving &= ~self._cascade
        if wanted >= self._first(serving):
            return -1
        return (wanted + regs.priority_add) & 7

    def take(self, irq: int) -> None:
        """Move an input from requested to in service."""
        regs = self.regs
        regs.irr &= ~(1 << irq)
        if not regs.auto_eoi:
            regs.isr |= 1 << irq
        elif regs.rotate_on_auto_eoi:
            regs.priority_add = (irq + 1) & 7

    def command(self, value: int) -> None:
        """Write the command port."""
        if value & _ICW1:
            self._initialise(value)
        elif value & _OCW3:
            self._select(value)
        else:
            self._end_of_interrupt(value >> 5, value & 7)

    def write_mask(self, value: int) -> None:
        """Write the mask port: the next initialisation word, or else the mask."""
        regs = self.regs
        if regs.init_state == _ICW2:
            regs.irq_base = value & 0xF8
            regs.init_state = _ICW3
        elif regs.init_state == _ICW3:
            regs.init_state = _ICW4 if regs.init4 else _READY
        elif regs.init_state == _ICW4:
            regs.special_fully_nested_mode = value >> 4 & 1
            regs.auto_eoi = value >> 1 & 1
            regs.init_state = _READY
        else:
            regs.imr = value

    def read_command(self) -> int:
        """Read the command port: IRR or ISR, or the answer to a poll, which acknowledges the interrupt."""
        regs = self.regs
        if not regs.poll:
            return regs.isr if regs.read_reg_select else regs.irr
        regs.poll = 0
        irq = self.request()
        if irq < 0:
            return 0
        self.take(irq)
        return 0x80 | irq

    def _first(self, inputs: int) -> int:
        """Find the highest priority among inputs: 0 … 7 counted from the one that priority_add makes highest, or 8."""
        add = self.regs.priority_add
        rotated = (inputs >> add | inputs << 8 - add) & 0xFF | 0x100
        return (rotated & -rotated).bit_length() - 1

    def _initialise(self, icw1: int) -> None:
        elcr, elcr_mask = self.regs.elcr, self.regs.elcr_mask
        self.regs = PicState(elcr=elcr, elcr_mask=elcr_mask, init4=icw1 & _ICW4_FOLLOWS, init_state=_ICW2)

    def _select(self, ocw3: int) -> None:
        regs = self.regs
        if ocw3 & _POLL:
            regs.poll = 1
        if ocw3 & _READ_SELECT:
            regs.read_reg_select = ocw3 & 1
        if ocw3 & _SET_SPECIAL_MASK:
            regs.special_mask = ocw3 >> 5 & 1

    def _end_of_interrupt(self, operation: int, irq: int) -> None:
        regs = self.regs
        if operation in _ROTATE_ON_AUTO_EOI:
            regs.rotate_on_auto_eoi = operation >> 2
        elif operation == _SET_PRIORITY:
            regs.priority_add = (irq + 1) & 7
        elif operation in (_EOI, _ROTATE_ON_EOI):
            first = self._first(regs.isr)
            if first < 8:
                self._finish((first + regs.priority_add) & 7, operation == _ROTATE_ON_EOI)
        elif operation in (_SPECIFIC_EOI, _ROTATE_ON_SPECIFIC_EOI):
            self._finish(irq, operation == _ROTATE_ON_SPECIFIC_EOI)

    def _finish(self, irq: int, rotate: bool) -> None:
        self.regs.isr &= ~(1 << irq)
        if rotate:
            self.regs.priority_add = (irq + 1) & 7


class Pic:
    """Both chips, their ports, and the one output that goes to LINT0 of the boot CPU."""

    __slots__ = ("_master", "_raised", "_slave", "output")

    def __init__(self, raised: Callable[[], None]) -> None:
        self._raised = raised
        self._master = _Chip(elcr_mask=0xF8, cascade=1 << _CASCADE)
        self._slave = _Chip(elcr_mask=0xDE, cascade=0)
        self.output = False
        """Whether an interrupt is waiting to be acknowledged."""

    def pulse(self, irq: int) -> None:
        """Raise and lower input 0 … 15."""
        if irq < 8:
            self._master.regs.irr |= 1 << irq
        else:
            self._slave.regs.irr |= 1 << irq - 8
        if not self.output:  # a guest that never acknowledges, as most do, pays no more than this
            self._settle()

    def acknowledge(self) -> int:
        """Answer the CPU's interrupt acknowledge cycle with a vector; without a request it is the spurious one."""
        self._carry_cascade()
        chip = self._master
        irq = chip.request()
        if irq == _CASCADE:
            chip.take(irq)
            chip = self._slave
            irq = chip.request()
        if irq >= 0:
            chip.take(irq)
        vector = chip.regs.irq_base + (irq if irq >= 0 else _SPURIOUS)
        self._settle()
        return vector

    def read(self, port: int) -> int:
        """Read one of the six ports."""
        chip = self._chip(port)
        if port in (MASTER_ELCR, SLAVE_ELCR):
            return chip.regs.elcr
        if port in (MASTER_MASK, SLAVE_MASK):
            return chip.regs.imr
        self._carry_cascade()
        value = chip.read_command()
        self._settle()  # a poll acknowledges
        return value

    def write(self, port: int, value: int) -> None:
        """Write one of the six ports."""
        chip = self._chip(port)
        if port in (MASTER_ELCR, SLAVE_ELCR):
            chip.regs.elcr = value & chip.regs.elcr_mask
            return
        if port in (MASTER_MASK, SLAVE_MASK):
            chip.write_mask(value)
        else:
            chip.command(value)
        self._settle()

    def save(self) -> tuple[PicState, PicState]:
        """Export master and slave."""
        self._carry_cascade()
        return replace(self._master.regs), replace(self._slave.regs)

    def load(self, master: PicState, slave: PicState) -> None:
        """Replace master and slave."""
        self._master.regs = replace(master)
        self._slave.regs = replace(slave)
        self._settle()

    def _chip(self, port: int) -> _Chip:
        return self._master if port in (MASTER_COMMAND, MASTER_MASK, MASTER_ELCR) else self._slave

    def _carry_cascade(self) -> None:
        """Let the master's input 2 follow the slave's output."""
        regs = self._master.regs
        if self._slave.request() >= 0:
            regs.irr |= 1 << _CASCADE
        else:
            regs.irr &= ~(1 << _CASCADE)

    def _settle(self) -> None:
        """Let both outputs follow the registers, and tell the CPU."""
        self._carry_cascade()
        self.output = self._master.request() >= 0
        if self.output:
            self._raised()
