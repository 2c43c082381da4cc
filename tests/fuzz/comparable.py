"""What a program leaves behind, without that in which two CPUs may differ."""

from typing import Final

from hibana.engine.state import Segment, Sregs, VcpuEvents, VcpuState
from tests.fuzz.cpus import SSE_EXCEPTIONS, TRANSLATOR, Kind, left_out
from tests.fuzz.machine import Outcome

_MSRS: Final = (0xC0000081, 0xC0000082, 0xC0000084, 0xC0000102)
_X87_TOP: Final = 0x3800
_MXCSR_CONTROL: Final = 0xFFC0


def comparable(outcome: Outcome, kind: Kind) -> Outcome:
    """Leave out what need not be alike."""
    if kind.cpu != TRANSLATOR:
        _forget(outcome.state)
    if SSE_EXCEPTIONS in left_out(kind):
        outcome.state.fpu.mxcsr &= _MXCSR_CONTROL
    return outcome


def _forget(state: VcpuState) -> None:
    state.msrs = {msr: state.msrs[msr] for msr in _MSRS}
    state.events = VcpuEvents()
    state.xsave = b""
    state.tsc_khz = 0
    fpu = state.fpu
    fpu.fsw &= _X87_TOP
    fpu.last_opcode = fpu.last_ip = fpu.last_dp = 0
