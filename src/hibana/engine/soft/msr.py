"""Model-specific registers that the library lacks, and what may not be written to those it has (SDM vol. 4).

A register that this CPU does not have is a #GP, for that is how guests find out. As on KVM, a few that any kernel
touches without asking read as zero and keep nothing. FS, GS and kernel GS base never come here: they change at every
task switch, and the thunks deal with them.
"""

import ctypes
from typing import Final

from hibana.engine.soft import clock
from hibana.engine.soft.offsets import ENV
from hibana.engine.soft.processor import Processor
from hibana.engine.soft.runner import SoftRunner

DONE: Final = 0
LIBRARY: Final = 1
FAULT: Final = 2

_TSC: Final = 0x10
_APIC_BASE: Final = 0x1B
_TSC_ADJUST: Final = 0x3B
_PAT: Final = 0x277
_EFER: Final = 0xC0000080
_TSC_AUX: Final = 0xC0000103

_KEPT_BY_LIBRARY: Final = frozenset(
    (
        *(0x174, 0x175, 0x176),  # SYSENTER
        0x1A0,  # IA32_MISC_ENABLE
        *range(0x200, 0x210),  # IA32_MTRR_PHYSBASE, PHYSMASK
        *(0x250, 0x258, 0x259, *range(0x268, 0x270)),  # IA32_MTRR_FIX
        0x277,  # IA32_PAT
        0x2FF,  # IA32_MTRR_DEF_TYPE
        *(0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084),  # EFER, STAR, LSTAR, CSTAR, FMASK
        *(0xC0000100, 0xC0000101, 0xC0000102, 0xC0000103),  # FS, GS, kernel GS base, TSC_AUX
    )
)
_READ_ONLY: Final = frozenset(
    (
        0xFE,  # IA32_MTRRCAP
        0x198,  # IA32_PERF_STATUS
    )
)
_EMPTY: Final = frozenset(
    (
        0x17,  # IA32_PLATFORM_ID
        0x2A,  # EBL_CR_POWERON
        0x3A,  # IA32_FEATURE_CONTROL
        0x79,  # IA32_BIOS_UPDT_TRIG
        0x8B,  # IA32_BIOS_SIGN_ID
        0xCD,  # FSB_FREQ
        0xCE,  # PLATFORM_INFO
        *(0x179, 0x17A, 0x17B),  # IA32_MCG_CAP, STATUS, CTL
        0x199,  # IA32_PERF_CTL
        0x19A,  # IA32_CLOCK_MODULATION
        0x19C,  # IA32_THERM_STATUS
        0x1D9,  # IA32_DEBUGCTL
        *(0x1DB, 0x1DC, 0x1DD, 0x1DE),  # last branch and last interrupt
        0x345,  # IA32_PERF_CAPABILITIES
    )
)
_ADDRESSES: Final = frozenset((0x175, 0x176, 0xC0000082, 0xC0000083))
_MEMORY_TYPES: Final = frozenset((0, 1, 4, 5, 6, 7))

_EFER_DEFINED: Final = 0xD01  # SCE LME LMA NXE
_EFER_LME: Final = 1 << 8
_CR0_PAGING: Final = 1 << 31
_APIC_BASE_VALUE: Final = 0xFEE00800
_BOOTSTRAP_PROCESSOR: Final = 1 << 8
_U32: Final = 0xFFFFFFFF
_U64: Final = 0xFFFFFFFFFFFFFFFF


class Msrs:
    """RDMSR and WRMSR of the running vCPU: the index is in ECX, the value in EDX:EAX."""

    def __init__(self, processor: Processor, runner: SoftRunner) -> None:
        place = ctypes.c_uint64.from_address
        self._runner = runner
        self._regs = processor.regs
        self._cr0 = place(processor.env + ENV.cr)
        self._efer = place(processor.env + ENV.efer)
        self._tsc_offset = place(processor.env + ENV.tsc_offset)
        self._tsc_adjust = place(processor.env + ENV.tsc_adjust)

    def read(self) -> int:
        """Execute RDMSR."""
        msr = self._regs[1] & _U32
        if msr in _KEPT_BY_LIBRARY or msr in _READ_ONLY:
            return LIBRARY
        if msr == _TSC:
            value = clock.tsc() + self._tsc_offset.value
        elif msr == _TSC_ADJUST:
            value = self._tsc_adjust.value
        elif msr == _APIC_BASE:
            value = _APIC_BASE_VALUE | (0 if self._runner.current.index else _BOOTSTRAP_PROCESSOR)
        elif msr in _EMPTY:
            value = 0
        else:
            return FAULT
        self._regs[0], self._regs[2] = value & _U32, value >> 32 & _U32
        return DONE

    def write(self) -> int:
        """Execute WRMSR."""
        regs = self._regs
        msr, value = regs[1] & _U32, regs[2] << 32 & _U64 | regs[0] & _U32
        if msr in _KEPT_BY_LIBRARY:
            return LIBRARY if self._acceptable(msr, value) else FAULT
        if msr == _TSC:
            self._move_tsc(value - clock.tsc() - self._tsc_offset.value)
        elif msr == _TSC_ADJUST:
            self._move_tsc(value - self._tsc_adjust.value)
        elif msr not in _EMPTY and msr != _APIC_BASE:  # the local APIC stays where it is, and on
            return FAULT
        return DONE

    def _acceptable(self, msr: int, value: int) -> bool:
        """Check reserved bits, canonical addresses and forbidden changes."""
        if msr in _ADDRESSES:
            return value >> 47 in (0, 0x1FFFF)
        if msr == _EFER:
            switched = (value ^ self._efer.value) & _EFER_LME and self._cr0.value & _CR0_PAGING
            return not value & ~_EFER_DEFINED and not switched
        if msr == _PAT:
            return all(byte in _MEMORY_TYPES for byte in value.to_bytes(8, "little"))
        return msr != _TSC_AUX or value <= _U32

    def _move_tsc(self, distance: int) -> None:
        """Move the counter of this vCPU, and note it as the specification wants (SDM vol. 3, "IA32_TSC_ADJUST")."""
        self._tsc_offset.value += distance
        self._tsc_adjust.value += distance
