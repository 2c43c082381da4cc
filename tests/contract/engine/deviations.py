"""What an engine is known not to do, test by test, with the reason.

A test named here must fail on that engine: when an engine learns it, the run says so and the line goes away.
"""

from typing import Final

_CANONICAL: Final = "the translator finds a non-canonical address at the access itself and calls it #GP at its target"
_SSE_FLAGS: Final = "the translator's SSE arithmetic records exceptions in a place of its own, never in MXCSR"
_X87_FLAGS: Final = "the translator's x87 arithmetic records no exceptions but division by zero in the status word"
_PRECISELY: Final = "test_an_exception_is_delivered_precisely"
_MXCSR: Final = "test_mxcsr_remembers_exceptions_that_are_masked"
_STATUS_WORD: Final = "test_the_x87_status_word_remembers_exceptions_that_are_masked"

# All of these are properties of unicorn 2.1.4, whose translator is QEMU 5.0.1's. Kernels can do without; some programs
# notice: numerical ones that ask which exceptions have happened, and a debugger inside the guest that watches data.
_SOFT: Final = {
    f"{_PRECISELY}[#DB by INT1]": "the translator does not know INT1 and gives #UD",
    f"{_PRECISELY}[#SS by a non-canonical stack]": _CANONICAL,
    f"{_PRECISELY}[#SS by a non-canonical address through RBP]": _CANONICAL,
    f"{_PRECISELY}[#GP by a jump to a non-canonical address]": _CANONICAL,
    f"{_PRECISELY}[#GP by an unaligned MOVAPS]": "the translator does not check the alignment of SSE operands",
    f"{_PRECISELY}[#XM by a division by zero]": "the translator raises no SSE exceptions, masked or not",
    "test_alignment_checks_catch_user_code_that_asks_for_them": "the translator has no #AC",
    "test_a_data_breakpoint_stops_after_the_write": "the translator has no watchpoints",
    "test_protected_mode_checks_segment_limits": "the translator does not check segment limits",
    "test_an_x87_push_onto_a_full_stack_is_a_stack_fault": "the translator does not check the x87 stack",
    "test_mmx_registers_are_the_x87_mantissas": "the translator leaves the exponent alone on MMX writes",
    f"{_STATUS_WORD}[invalid]": _X87_FLAGS,
    f"{_STATUS_WORD}[inexact]": _X87_FLAGS,
    f"{_STATUS_WORD}[overflow]": _X87_FLAGS,
    f"{_STATUS_WORD}[denormal operand and underflow]": _X87_FLAGS,
    f"{_MXCSR}[invalid]": _SSE_FLAGS,
    f"{_MXCSR}[denormal operand]": _SSE_FLAGS,
    f"{_MXCSR}[division by zero]": _SSE_FLAGS,
    f"{_MXCSR}[overflow]": _SSE_FLAGS,
    f"{_MXCSR}[underflow]": _SSE_FLAGS,
    f"{_MXCSR}[inexact]": _SSE_FLAGS,
}

DEVIATIONS: Final[dict[str, dict[str, str]]] = {"soft": _SOFT}
