"""What a program leaves behind, without that in which two CPUs may differ."""

from typing import Final

from hibana.engine.state import VcpuEvents, VcpuState
from tests.fuzz.cpus import SSE_EXCEPTIONS, TRANSLATOR, Kind, left_out
from tests.fuzz.machine import Outcome

_STAR, _LSTAR, _FMASK, _KERNEL_GS_BASE = 0xC0000081, 0xC0000082, 0xC0000084, 0xC0000102
_OF_ALL: Final = (_STAR, _LSTAR, _FMASK, _KERNEL_GS_BASE)
"""MSRs that programs use; which others there are, and what they hold, is a matter of the model."""
_TOP_OF_STACK: Final = 0x3800
_SSE_CONTROL: Final = 0xFFC0


def comparable(outcome: Outcome, kind: Kind) -> Outcome:
    """Leave out what need not be alike."""
    if kind.cpu != TRANSLATOR:
        _forget(outcome.state)
    if SSE_EXCEPTIONS in left_out(kind):
        outcome.state.fpu.mxcsr &= _SSE_CONTROL
    return outcome


def _forget(state: VcpuState) -> None:
    state.msrs = {msr: state.msrs[msr] for msr in _OF_ALL}
    state.events = VcpuEvents()  # the number of an interrupt stays behind when it has been delivered
    state.xsave, state.tsc_khz = b"", 0  # the soft engine has neither; x87 and SSE are in `fpu` too
    fpu = state.fpu
    # The condition bits are undefined after most instructions, and the translator records hardly any exception.
    fpu.fsw &= _TOP_OF_STACK
    # The soft engine does not keep them, and AMD's CPUs only when there is an exception.
    fpu.last_opcode = fpu.last_ip = fpu.last_dp = 0
