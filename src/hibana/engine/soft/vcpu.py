"""A virtual CPU: its registers while another one runs, and what the scheduler knows about it."""

from struct import pack_into, unpack_from
from typing import Final, Protocol

from hibana.engine.soft import clock, cpu_state
from hibana.engine.soft.lapic import Lapic
from hibana.engine.soft.offsets import ENV, SEGMENT
from hibana.engine.soft.processor import Image
from hibana.engine.state import RUNNABLE, UNINITIALIZED, VcpuState

INTERRUPT_FLAG: Final = 1 << 9  # RFLAGS

_APIC_BASE: Final = 0xFEE00800  # IA32_APIC_BASE: enabled, at its usual place
_BOOTSTRAP_PROCESSOR: Final = 1 << 8
_BUSY: Final = 2
"""Descriptor type: the current task's segment is busy. The library forgets that, and takes a busy one for none."""
_REAL_MODE_CODE: Final = 0x9B00  # segment flags: present, code, readable, accessed


class Registers(Protocol):
    """Who knows where a vCPU's registers are at the moment."""

    def registers(self, vcpu: "SoftVcpu") -> bytes: ...

    def set_registers(self, vcpu: "SoftVcpu", content: bytes | bytearray) -> None: ...

    def nmi_pending(self, vcpu: "SoftVcpu") -> bool: ...

    def set_nmi_pending(self, vcpu: "SoftVcpu", pending: bool) -> None: ...

    def agree_on_tsc(self, offset: int) -> int: ...


class SoftVcpu:
    """One of the vCPUs that take turns on the library's CPU."""

    runner: Registers
    lapic: Lapic

    def __init__(self, index: int, image: Image) -> None:
        self.index = index
        self.image = image
        """The registers; out of date while this is the current vCPU."""
        self.mp_state = RUNNABLE if index == 0 else UNINITIALIZED
        self.listens = True
        """While halted: an interrupt ends HLT, because IF is set."""
        self.nmi = False
        """An NMI waits; a cell of the thunks instead while this is the current vCPU."""
        self.restarted = False
        """This is the current vCPU, and yet `image` is newer than the registers."""

    def restart(self, reset_image: Image, vector: int, tsc_offset: int) -> None:
        """Begin in real mode at `vector` << 12, the rest as after a reset (SDM vol. 3, MP initialization)."""
        self.image.raw = reset_image.raw
        pack_into("<I4xQII", self.image, ENV.segs + SEGMENT.SIZE, vector << 8, vector << 12, 0xFFFF, _REAL_MODE_CODE)
        pack_into("<Q", self.image, ENV.eip, 0)
        pack_into("<Q", self.image, ENV.tsc_offset, tsc_offset)
        self.mp_state = RUNNABLE

    def save(self) -> VcpuState:
        """Export the complete state, in KVM's terms."""
        runner = self.runner
        apic_base = _APIC_BASE | (_BOOTSTRAP_PROCESSOR if self.index == 0 else 0)
        image, lapic = runner.registers(self), self.lapic.save()
        state = cpu_state.export_state(image, lapic, self.mp_state, apic_base, clock.tsc())
        state.events.nmi_pending = int(runner.nmi_pending(self))
        state.sregs.tr.type |= _BUSY
        return state

    def load(self, state: VcpuState) -> None:
        """Replace the complete state."""
        runner = self.runner
        image = bytearray(runner.registers(self))
        cpu_state.import_state(image, state, clock.tsc())
        image[ENV.tr + SEGMENT.flags + 1] &= ~_BUSY
        (tsc_offset,) = unpack_from("<Q", image, ENV.tsc_offset)
        pack_into("<Q", image, ENV.tsc_offset, runner.agree_on_tsc(tsc_offset))
        runner.set_registers(self, image)
        runner.set_nmi_pending(self, state.events.nmi_pending != 0)
        self.lapic.load(state.lapic)
        self.mp_state = state.mp_state
        self.listens = state.regs.rflags & INTERRUPT_FLAG != 0
