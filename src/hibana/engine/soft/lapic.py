"""The local APIC of one vCPU (Intel SDM vol. 3, "Advanced Programmable Interrupt Controller").

The three 256-bit registers are plain integers, bit v for vector v, so the highest vector is `bit_length() - 1`. What
may interrupt the CPU is decided by one number, `_floor`: an interrupt is deliverable when its priority class (vector
>> 4) is above it. Floor changes only with TPR, ISR and the software enable bit, so the question asked most often,
`pending`, costs one shift and one comparison.

The timer has a file of its own. There is no x2APIC.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final, Protocol

from hibana.engine.soft.lapic_timer import LapicTimer

# Registers (offsets in the page).
ID: Final = 0x020
VERSION: Final = 0x030
TPR: Final = 0x080
PPR: Final = 0x0A0
EOI: Final = 0x0B0
LDR: Final = 0x0D0
DFR: Final = 0x0E0
SVR: Final = 0x0F0
ISR: Final = 0x100
TMR: Final = 0x180
IRR: Final = 0x200
ESR: Final = 0x280
ICR_LOW: Final = 0x300
ICR_HIGH: Final = 0x310
LVT_TIMER: Final = 0x320
LVT_THERMAL: Final = 0x330
LVT_PERFORMANCE: Final = 0x340
LVT_LINT0: Final = 0x350
LVT_LINT1: Final = 0x360
LVT_ERROR: Final = 0x370
INITIAL_COUNT: Final = 0x380
CURRENT_COUNT: Final = 0x390
DIVIDE: Final = 0x3E0

PAGE_SIZE: Final = 1024
"""What a saved register page holds (struct kvm_lapic_state)."""

# Bits a guest can set; the rest of each register is reserved or read-only.
_LVT_WRITABLE: Final = {
    LVT_TIMER: 0x300FF,  # vector, mask, periodic
    LVT_THERMAL: 0x107FF,  # vector, delivery mode, mask
    LVT_PERFORMANCE: 0x107FF,
    LVT_LINT0: 0x1A7FF,  # ... and polarity, trigger mode
    LVT_LINT1: 0x1A7FF,
    LVT_ERROR: 0x100FF,
}
_ICR_WRITABLE: Final = 0xCCFFF

_VERSION: Final = 0x50014  # integrated APIC, six LVT entries
_ENABLED: Final = 1 << 8  # SVR: software enable
_MASKED: Final = 1 << 16  # LVT
_PERIODIC: Final = 1 << 17  # LVT timer
_MODE: Final = 7 << 8  # LVT, ICR: delivery mode
_EXTINT: Final = 7 << 8
_FLAT: Final = 0xF
_CLUSTER: Final = 0x0
_BROADCAST: Final = 0xFF
_LOWEST_LEGAL_VECTOR: Final = 16

# ESR.
_SEND_ILLEGAL_VECTOR: Final = 1 << 5
_RECEIVE_ILLEGAL_VECTOR: Final = 1 << 6

_U32: Final = Struct("<I")


class Fabric(Protocol):
    """What a local APIC needs from the machine around it."""

    def wake(self, index: int) -> None:
        """Make vCPU `index` look at its pending interrupts."""

    def send(self, sender: int, command: int, destination: int) -> None:
        """Carry out the low half of an ICR, addressed to an 8-bit destination."""

    def end_of_interrupt(self, vector: int) -> None:
        """Tell the I/O APIC that a level-triggered interrupt was handled."""

    def timer_changed(self) -> None:
        """Note that the timer's `due` moved."""


class Lapic:
    """One local APIC: registers at 16-byte stride, and the interrupts waiting for one vCPU."""

    __slots__ = (
        *("_dfr", "_errors", "_esr", "_icr_high", "_icr_low", "_irr", "_isr", "_ldr", "_lvt", "_svr", "_tmr", "_tpr"),
        *("_fabric", "_floor", "_now", "_reads", "_writes", "id", "index", "timer"),
    )

    _irr: int
    _isr: int
    _tmr: int
    _tpr: int
    _floor: int
    _ldr: int
    _dfr: int
    _svr: int
    _esr: int
    _errors: int
    _icr_low: int
    _icr_high: int
    _lvt: dict[int, int]

    def __init__(self, index: int, fabric: Fabric, now: Callable[[], int]) -> None:
        self.index = index
        self.id = index
        self.timer = LapicTimer(fabric.timer_changed, now)
        self._fabric = fabric
        self._now = now
        self._reads: dict[int, Callable[[], int]] = {
            ID: lambda: self.id << 24,
            VERSION: lambda: _VERSION,
            TPR: lambda: self._tpr,
            PPR: self.priority,
            LDR: lambda: self._ldr,
            DFR: lambda: self._dfr,
            SVR: lambda: self._svr,
            ESR: lambda: self._esr,
            ICR_LOW: lambda: self._icr_low,
            ICR_HIGH: lambda: self._icr_high,
            INITIAL_COUNT: lambda: self.timer.initial_count,
            CURRENT_COUNT: self.timer.current_count,
            DIVIDE: lambda: self.timer.divide,
        }
        self._writes: dict[int, Callable[[int], None]] = {
            ID: self._write_id,
            TPR: self._write_tpr,
            EOI: self._write_eoi,
            LDR: self._write_ldr,
            DFR: self._write_dfr,
            SVR: self._write_svr,
            ESR: self._write_esr,
            ICR_LOW: self._write_icr_low,
            ICR_HIGH: self._write_icr_high,
            INITIAL_COUNT: self.timer.write_initial_count,
            DIVIDE: self.timer.write_divide,
        }
        self._clear()

    # --- the CPU's side -----------------------------------------------------------------------------------------------

    def pending(self) -> int:
        """Give the vector the CPU should take now, -1 when there is none."""
        vector = self._irr.bit_length() - 1
        return vector if vector >> 4 > self._floor else -1

    def acknowledge(self) -> int:
        """Move the pending vector from IRR to ISR and give it; -1 when there is none."""
        vector = self._irr.bit_length() - 1
        if vector >> 4 <= self._floor:
            return -1
        bit = 1 << vector
        self._irr ^= bit
        self._isr |= bit
        self._floor = vector >> 4
        return vector

    def reset(self) -> None:
        """Return to the state after INIT: everything but the APIC ID."""
        self._clear()
        self.timer.reset()

    def read(self, offset: int) -> int:
        """Read a register; reserved ones, and the 12 bytes after each register, are zero."""
        if offset & 0xC:
            return 0
        register = offset & 0xFF0
        handler = self._reads.get(register)
        if handler:
            value = handler()
        elif register in self._lvt:
            value = self._lvt[register]
        else:
            value = self._vector_word(register)
        return value >> 8 * (offset & 3)

    def write(self, offset: int, value: int) -> None:
        """Write a register; only its own 16-byte aligned address is decoded."""
        handler = self._writes.get(offset)
        if handler:
            handler(value & 0xFFFFFFFF)
        elif offset in self._lvt:
            self._write_lvt(offset, value)

    # --- the fabric's side --------------------------------------------------------------------------------------------

    def accept(self, vector: int, level: bool = False) -> None:
        """Take a fixed interrupt into IRR, unless the APIC is disabled or the vector illegal."""
        if not self._svr & _ENABLED:
            return
        if vector < _LOWEST_LEGAL_VECTOR:
            self._error(_RECEIVE_ILLEGAL_VECTOR)
            return
        bit = 1 << vector
        self._irr |= bit
        if level:
            self._tmr |= bit
        elif self._tmr & bit:
            self._tmr ^= bit
        if vector >> 4 > self._floor:
            self._fabric.wake(self.index)

    def matches(self, destination: int, logical: bool) -> bool:
        """Tell whether an 8-bit destination addresses this APIC."""
        if destination == _BROADCAST:
            return True
        if not logical:
            return destination == self.id
        own = self._ldr >> 24
        model = self._dfr >> 28
        if model == _FLAT:
            return own & destination != 0
        return model == _CLUSTER and own >> 4 == destination >> 4 and own & destination & 0xF != 0

    @property
    def enabled(self) -> bool:
        """Tell whether software has enabled the APIC (SVR bit 8)."""
        return self._svr & _ENABLED != 0

    @property
    def takes_extint(self) -> bool:
        """Tell whether the PIC, wired to LINT0, may interrupt the CPU past the APIC."""
        return self._lvt[LVT_LINT0] & (_MASKED | _MODE) == _EXTINT

    def priority(self) -> int:
        """Compute PPR: the higher of TPR and the class of the interrupt in service."""
        serving = (self._isr.bit_length() - 1) & 0xF0 if self._isr else 0
        return self._tpr if self._tpr >> 4 >= serving >> 4 else serving

    def expire(self, now: int) -> None:
        """Deliver the timer interrupt if it is due."""
        if self.timer.expire(now):
            self.accept(self._lvt[LVT_TIMER] & 0xFF)

    # --- state --------------------------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """Export the register page as a guest would read it (struct kvm_lapic_state)."""
        now = self._now()
        self.expire(now)
        page = bytearray(PAGE_SIZE)
        for offset in range(0, PAGE_SIZE, 16):
            _U32.pack_into(page, offset, self.read(offset))
        # As of the moment above: a timer that ran out since would look like one whose interrupt was delivered.
        _U32.pack_into(page, CURRENT_COUNT, self.timer.count_at(now))
        return bytes(page)

    def load(self, page: bytes) -> None:
        """Replace everything by a saved page; the timer goes on from its current count."""

        def word(offset: int) -> int:
            return int(_U32.unpack_from(page, offset)[0])

        def vectors(offset: int) -> int:
            return sum(word(offset + 16 * i) << 32 * i for i in range(8))

        self._clear()
        self.id = word(ID) >> 24
        self._tpr = word(TPR) & 0xFF
        self._ldr = word(LDR)
        self._dfr = word(DFR)
        self._svr = word(SVR)
        self._isr, self._tmr, self._irr = vectors(ISR), vectors(TMR), vectors(IRR)
        self._esr = word(ESR)
        self._icr_low, self._icr_high = word(ICR_LOW), word(ICR_HIGH)
        for offset, writable in _LVT_WRITABLE.items():
            self._lvt[offset] = word(offset) & writable
        self._follow_lvt_timer()
        self.timer.load(word(INITIAL_COUNT), word(CURRENT_COUNT), word(DIVIDE))
        self._settle()

    def _clear(self) -> None:
        self._irr = self._isr = self._tmr = 0
        self._tpr = 0
        self._floor = 0xF  # disabled: no class is above it
        self._ldr = 0
        self._dfr = 0xFFFFFFFF
        self._svr = 0xFF
        self._esr = self._errors = 0
        self._icr_low = self._icr_high = 0
        self._lvt = dict.fromkeys(_LVT_WRITABLE, _MASKED)
        if self.index == 0:
            self._lvt[LVT_LINT0] = _EXTINT  # virtual wire: the boot CPU gets the PIC's interrupts, as on KVM

    # --- registers ----------------------------------------------------------------------------------------------------

    def _vector_word(self, register: int) -> int:
        """Read 32 bits of ISR, TMR or IRR."""
        if not ISR <= register < ESR:
            return 0
        bits = (self._isr, self._tmr, self._irr)[(register - ISR) >> 7]
        return bits >> ((register & 0x70) << 1) & 0xFFFFFFFF

    def _write_id(self, value: int) -> None:
        self.id = value >> 24

    def _write_tpr(self, value: int) -> None:
        self._tpr = value & 0xFF
        self._settle()

    def _write_eoi(self, value: int) -> None:
        serving = self._isr
        if not serving:
            return
        vector = serving.bit_length() - 1
        bit = 1 << vector
        self._isr = serving ^ bit
        self._settle()
        if self._tmr & bit:
            self._fabric.end_of_interrupt(vector)

    def _write_ldr(self, value: int) -> None:
        self._ldr = value & 0xFF000000

    def _write_dfr(self, value: int) -> None:
        self._dfr = value | 0x0FFFFFFF

    def _write_svr(self, value: int) -> None:
        self._svr = value & 0x1FF
        if not value & _ENABLED:
            for offset in self._lvt:
                self._write_lvt(offset, self._lvt[offset])
        self._settle()

    def _write_esr(self, value: int) -> None:
        """Show the errors since the last write and start collecting anew."""
        self._esr, self._errors = self._errors, 0

    def _write_icr_low(self, value: int) -> None:
        self._icr_low = value & _ICR_WRITABLE
        vector_mode = value >> 8 & 7 <= 1  # fixed or lowest priority
        if vector_mode and value & 0xFF < _LOWEST_LEGAL_VECTOR:
            self._error(_SEND_ILLEGAL_VECTOR)
            return
        self._fabric.send(self.index, self._icr_low, self._icr_high >> 24)

    def _write_icr_high(self, value: int) -> None:
        self._icr_high = value & 0xFF000000

    def _write_lvt(self, offset: int, value: int) -> None:
        value &= _LVT_WRITABLE[offset]
        if not self._svr & _ENABLED:
            value |= _MASKED
        self._lvt[offset] = value
        if offset == LVT_TIMER:
            self._follow_lvt_timer()
        elif offset == LVT_LINT0:
            self._fabric.wake(self.index)  # the PIC may have been waiting for this

    def _follow_lvt_timer(self) -> None:
        entry = self._lvt[LVT_TIMER]
        self.timer.configure(entry & _MASKED != 0, entry & _PERIODIC != 0)

    def _settle(self) -> None:
        """Recompute the floor after TPR, ISR or SVR changed, and wake the CPU if something rises above it."""
        if not self._svr & _ENABLED:
            self._floor = 0xF
            return
        self._floor = self.priority() >> 4
        if self.pending() >= 0:
            self._fabric.wake(self.index)

    def _error(self, bit: int) -> None:
        if self._errors & bit:
            return  # also ends the recursion when the error vector is itself illegal
        self._errors |= bit
        if not self._lvt[LVT_ERROR] & _MASKED:
            self.accept(self._lvt[LVT_ERROR] & 0xFF)
