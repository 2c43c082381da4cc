"""The CPUs that may be behind an engine, and what programs for them must do without.

Between two settings of the soft engine everything must be alike, and programs may do anything. Against kvm there is
another CPU, and some of those cannot do everything. What is left out has its reason here; so has, in `comparable.py`,
what is not compared.
"""

import functools
from collections.abc import Mapping
from typing import Final

import msgspec

TRANSLATOR: Final = "the translator of the soft engine"
REAL: Final = "a CPU behind kvm"
EMULATING: Final = "a KVM that emulates ring 0"
BOX: Final = "the CPU of the box"


class Kind(msgspec.Struct, frozen=True):
    """A kind of programs."""

    ring: int
    """Where they begin. In ring 3 they stay there: then a KVM that emulates ring 0 runs them on the CPU itself."""
    cpu: str
    """What else they are to run on, beside the translator."""


CMPXCHG_32: Final = "CMPXCHG of 32-bit registers"
LOCKED_NEG: Final = "LOCK NEG"
TWO_NANS: Final = "SSE arithmetic of two NaNs"
DENORMALS_ARE_ZERO: Final = "denormals that are zero for SSE"
SSE_EXCEPTIONS: Final = "exceptions in MXCSR"

CODE_BY_STRINGS: Final = "code that is executed as soon as a string instruction has written it"

_FAST_STRINGS: Final = "fast strings store in any order (SDM vol. 3, 9.2.4), and a CPU was seen to execute a mixture"
READ_MODIFY_FAULT: Final = "page faults by instructions that read and write"
JUMP_NOWHERE: Final = "jumps to non-canonical addresses"
FETCH_FAULT_LATER: Final = "page faults by a fetch behind other instructions"
PARAVIRTUAL_MSRS: Final = "MSRs of KVM"
RESERVED_CONTROL_BITS: Final = "reserved bits in control registers"
LTR_OF_LDT: Final = "LTR with a selector of the LDT"
SSE: Final = "SSE beside other instructions"
PAIRS: Final = "CMPXCHG8B and CMPXCHG16B"
PAIR_16: Final = "CMPXCHG16B"
PRECISION: Final = "x87 with another precision"
DEVICES_DIRTY: Final = "pages of devices that become dirty"
POPCNT: Final = "POPCNT"
INT_N: Final = "INT n"
CLOSED_GATES: Final = "INT n of a gate that is not there, or not for ring 3"
UD0: Final = "UD0"

_OF_TRANSLATOR: Final = {
    READ_MODIFY_FAULT: "the translator says that the access was a read",
    JUMP_NOWHERE: "the translator calls it an exception of the target, not of the jump",
    FETCH_FAULT_LATER: "the translator raises it before the instructions, which are executed afterwards",
    CMPXCHG_32: "the translator clears the upper half of the register also when it changes nothing",
    LOCKED_NEG: "the translator computes the flags from what was there before",
}
"""What the translator of the soft engine does wrong: no other CPU can agree."""

_OF_ANY: Final = {**_OF_TRANSLATOR, PARAVIRTUAL_MSRS: "with KVM they exist"}

_NOT_DIRTY: Final = "with nested paging KVM carries out the write without a look at the page tables"

_LEFT_OUT: Final[Mapping[str, Mapping[str, str]]] = {
    TRANSLATOR: {},
    REAL: {**_OF_ANY, CODE_BY_STRINGS: _FAST_STRINGS, DEVICES_DIRTY: _NOT_DIRTY},
    EMULATING: {**_OF_ANY, CODE_BY_STRINGS: _FAST_STRINGS, CLOSED_GATES: "this KVM calls it #UD"},
    BOX: {
        **_OF_ANY,
        RESERVED_CONTROL_BITS: "its CPU does not check them",
        CLOSED_GATES: "its CPU counts a gate as twice its size in error codes",
        TWO_NANS: "its CPU takes the one with the larger fraction, which is the rule of x87; of SSE it is the first",
        DENORMALS_ARE_ZERO: "MIN and MAX of its CPU give the denormal itself",
        SSE_EXCEPTIONS: "its CPU does not notice denormal operands",
        PAIRS: "its CPU computes the flags afterwards from operands that are long gone",
        PRECISION: "its CPU rounds also what it only loads",
        DEVICES_DIRTY: _NOT_DIRTY,
    },
}

_UNKNOWN: Final = "the emulator does not know it"
_RING_3: Final = "ring 3 runs on the CPU itself, where only a kernel made for this KVM can be called back"
_EMULATED: Final = {
    LTR_OF_LDT: "the emulator gives no selector as error code",
    RESERVED_CONTROL_BITS: "the emulator does not check them",
    **dict.fromkeys(("sse", "x87", "mixed loop", SSE, PAIR_16, POPCNT, INT_N, UD0), _UNKNOWN),
    **dict.fromkeys(("user", "user code", "user pages", "user spaces", "user faults", "system calls"), _RING_3),
}
"""What the emulator of a KVM that emulates ring 0 does not do there."""


@functools.cache
def left_out(kind: Kind) -> Mapping[str, str]:
    """Tell which blocks, and which instructions in them, are left out, and why."""
    if kind.cpu == EMULATING and not kind.ring:
        return {**_LEFT_OUT[EMULATING], **_EMULATED}
    return _LEFT_OUT[kind.cpu]
