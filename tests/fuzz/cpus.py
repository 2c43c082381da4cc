"""The CPUs that may be behind an engine, and what programs for them do without.

Between two settings of the soft engine everything must be alike, and programs do everything. Against kvm there is
another CPU, with faults of its own. What is left out then, and why, is in the tables below: blocks by their names, and
instructions inside them by names of ours. What is not compared is in `comparable.py`.

A KVM that emulates ring 0 emulates all of it, and runs ring 3 on the CPU itself. So programs that begin in ring 3, and
stay there, compare the translator with silicon on any host that has a /dev/kvm.
"""

import functools
from collections.abc import Mapping
from typing import Final

import msgspec

TRANSLATOR: Final = "the translator of the soft engine"
REAL: Final = "a CPU, by kvm"
EMULATING: Final = "a KVM that emulates ring 0"
BOX: Final = "the CPU of the box"


class Kind(msgspec.Struct, frozen=True):
    """A kind of programs."""

    ring: int
    """Where they begin. Those that begin in ring 3 stay there."""
    cpu: str
    """What they run on, beside the translator."""


CMPXCHG_32: Final = "CMPXCHG of 32 bits"
LOCKED_NEG: Final = "LOCK NEG"
EXPLICIT_LENGTHS: Final = "PCMPESTRI and PCMPESTRM"
READ_MODIFY_FAULT: Final = "page faults by instructions that read and write"
FETCH_FAULT_LATER: Final = "page faults by a fetch behind other instructions"
JUMP_NOWHERE: Final = "jumps to non-canonical addresses"
PARAVIRTUAL_MSRS: Final = "MSRs of KVM"
UNALIGNED_DEVICES: Final = "accesses to devices that are not aligned"
CODE_BY_STRINGS: Final = "code that is executed as soon as a string instruction has written it"
DEVICES_DIRTY: Final = "pages of devices that become dirty"
RESERVED_CONTROL_BITS: Final = "reserved bits in control registers"
CLOSED_GATES: Final = "INT n of a gate that is not there, or not for ring 3"
INT_N: Final = "INT n"
LTR_OF_LDT: Final = "LTR with a selector of the LDT"
UD0: Final = "UD0"
POPCNT: Final = "POPCNT"
PAIRS: Final = "CMPXCHG8B and CMPXCHG16B"
PAIR_16: Final = "CMPXCHG16B"
SSE: Final = "SSE beside other instructions"
TWO_NANS: Final = "SSE arithmetic with two NaNs"
DENORMALS_ARE_ZERO: Final = "denormals that are zero for SSE"
SSE_EXCEPTIONS: Final = "exceptions in MXCSR"
PRECISION: Final = "x87 with another precision"
HLT_AFTER_STI: Final = "HLT right after STI"

_AGAINST_ANY: Final = {
    CMPXCHG_32: "the translator clears upper halves also of registers that it is to leave alone",
    LOCKED_NEG: "the translator computes the flags from what was there before",
    READ_MODIFY_FAULT: "the translator says that the access was a read",
    FETCH_FAULT_LATER: "the translator raises it before those instructions, which are executed afterwards",
    JUMP_NOWHERE: "the translator raises the exception at the target, not at the jump",
    PARAVIRTUAL_MSRS: "with KVM they exist",
    UNALIGNED_DEVICES: "the translator makes two of one, and the manuals leave it to the bus",
}
"""What is different with any KVM. `tests/contract/engine/deviations.py` has the translator's faults too."""

_FAST_STRINGS: Final = "fast strings store in any order (SDM vol. 3, 9.2.4), and a CPU was seen to execute a mixture"
_NOT_DIRTY: Final = "with nested paging KVM carries out the write without a look at the page tables"
_UNCHECKED: Final = "it does not check them"

_AGAINST: Final[Mapping[str, Mapping[str, str]]] = {
    TRANSLATOR: {},
    REAL: {**_AGAINST_ANY, CODE_BY_STRINGS: _FAST_STRINGS, DEVICES_DIRTY: _NOT_DIRTY},
    EMULATING: {**_AGAINST_ANY, CODE_BY_STRINGS: _FAST_STRINGS, CLOSED_GATES: "it is #UD"},
    BOX: {
        **_AGAINST_ANY,
        DEVICES_DIRTY: _NOT_DIRTY,
        RESERVED_CONTROL_BITS: _UNCHECKED,
        CLOSED_GATES: "it counts a gate as twice its size in error codes",
        PAIRS: "it computes the flags afterwards, from operands that are long gone",
        TWO_NANS: "it takes the one with the larger fraction, which is the rule of x87; of SSE it is the first",
        DENORMALS_ARE_ZERO: "its MIN and MAX give the denormal itself",
        SSE_EXCEPTIONS: "it does not notice denormal operands",
        PRECISION: "it rounds also what it only loads",
        EXPLICIT_LENGTHS: "with some lengths such a CPU was seen to read outside its guest",
        HLT_AFTER_STI: "it forgets at an exit that STI has just been executed, and waits for what has been",
    },
}

_UNKNOWN: Final = "the emulator does not know it"
_BACK: Final = "from ring 3, only a kernel made for this KVM is called back by SYSCALL and INT n"
_BY_EMULATOR: Final[Mapping[str, str]] = {
    **dict.fromkeys(("sse", "extensions", "x87", "mixed loop", SSE, PAIR_16, POPCNT, INT_N, UD0), _UNKNOWN),
    **dict.fromkeys(("user", "user code", "user pages", "user spaces", "user faults", "system calls"), _BACK),
    RESERVED_CONTROL_BITS: _UNCHECKED,
    LTR_OF_LDT: "the emulator gives another error code",
}
"""What is left out, besides, of programs that begin in ring 0, where a KVM emulates it."""


@functools.cache
def left_out(kind: Kind) -> Mapping[str, str]:
    """Give all that is left out, with the reasons."""
    emulated = _BY_EMULATOR if kind.cpu == EMULATING and not kind.ring else {}
    return {**_AGAINST[kind.cpu], **emulated}
