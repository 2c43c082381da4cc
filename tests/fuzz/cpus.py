"""The CPUs that may be behind an engine, and what programs for them must do without.

Between two settings of the soft engine everything must be alike, and programs may do anything. Against kvm there is
another CPU, and some of those cannot do everything. What is left out has its reason here; so has, in `comparable.py`,
what is not compared.
"""

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
LONG_TRUNCATIONS: Final = "FISTTP of 32 and 64 bits"
CONSTANTS_ROUNDED: Final = "x87 constants, rounded otherwise than to nearest"

_OF_TRANSLATOR: Final = {
    CMPXCHG_32: "the translator clears the upper half of the register also when it changes nothing",
    LOCKED_NEG: "the translator computes the flags from what was there before",
    TWO_NANS: "the translator takes the one with the larger fraction, which is the rule of x87; of SSE it is the first",
    DENORMALS_ARE_ZERO: "the translator's MIN and MAX give the denormal itself",
    LONG_TRUNCATIONS: "the translator gives the nearest number where it should give the indefinite one",
    CONSTANTS_ROUNDED: "the translator rounds them always to nearest",
}
"""What the translator of the soft engine does wrong: no other CPU can agree."""

_LEFT_OUT: Final[Mapping[str, Mapping[str, str]]] = {
    TRANSLATOR: {},
    REAL: _OF_TRANSLATOR,
    EMULATING: _OF_TRANSLATOR,
    BOX: _OF_TRANSLATOR,
}


def left_out(kind: Kind) -> Mapping[str, str]:
    """Tell which blocks are left out, and why."""
    return _LEFT_OUT[kind.cpu]
