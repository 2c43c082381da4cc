"""What an engine is known not to do, test by test, with the reason.

A test named here must fail on that engine: when an engine learns it, the run says so and the line goes away.
"""

from typing import Final

_CANONICAL: Final = "the translator finds a non-canonical address at the access itself and calls it #GP at its target"
_X87_FLAGS: Final = "the translator's x87 arithmetic records no exceptions but division by zero in the status word"
_UPPER_HALF: Final = "it writes the register all the same, which clears its upper half"
_SUCCEEDS: Final = "test_a_comparison_that_succeeds_does_not_touch_the_accumulator"
_READ_AND_WRITE: Final = "test_a_page_fault_of_an_instruction_that_reads_and_writes_is_one_of_a_write"
_READS_FIRST: Final = "the translator reads first, and says so"
_LATER: Final = "test_mxcsr_remembers_also_what_later_instructions_and_those_with_mmx_made_inexact"
_OWN_PLACE: Final = "the translator's SSE4.1 records exceptions in a place of its own, never in MXCSR"
_PRECISELY: Final = "test_an_exception_is_delivered_precisely"
_MXCSR: Final = "test_mxcsr_remembers_exceptions_that_are_masked"
_STATUS_WORD: Final = "test_the_x87_status_word_remembers_exceptions_that_are_masked"

# All of these are properties of unicorn 2.1.4, whose translator is QEMU 5.0.1's. Kernels can do without; some programs
# notice: numerical ones that ask x87 which exceptions have happened, and a debugger inside the guest that watches data.
_SOFT: Final = {
    f"{_PRECISELY}[#DB by INT1]": "the translator does not know INT1 and gives #UD",
    f"{_PRECISELY}[#SS by a non-canonical stack]": _CANONICAL,
    f"{_PRECISELY}[#SS by a non-canonical address through RBP]": _CANONICAL,
    f"{_PRECISELY}[#GP by a jump to a non-canonical address]": _CANONICAL,
    f"{_PRECISELY}[#GP by an unaligned MOVAPS]": "the translator does not check the alignment of SSE operands",
    "test_alignment_checks_catch_user_code_that_asks_for_them": "the translator has no #AC",
    "test_a_data_breakpoint_stops_after_the_write": "the translator has no watchpoints",
    "test_protected_mode_checks_segment_limits": "the translator does not check segment limits",
    "test_an_x87_push_onto_a_full_stack_is_a_stack_fault": "the translator does not check the x87 stack",
    "test_mmx_registers_are_the_x87_mantissas": "the translator leaves the exponent alone on MMX writes",
    f"{_STATUS_WORD}[invalid]": _X87_FLAGS,
    f"{_STATUS_WORD}[inexact]": _X87_FLAGS,
    f"{_STATUS_WORD}[overflow]": _X87_FLAGS,
    f"{_STATUS_WORD}[denormal operand and underflow]": _X87_FLAGS,
    "test_a_comparison_that_fails_does_not_touch_a_register": _UPPER_HALF,
    f"{_SUCCEEDS}[cmpxchg ebx, ecx]": _UPPER_HALF,
    f"{_SUCCEEDS}[cmpxchg [HEAP], ecx]": _UPPER_HALF,
    f"{_SUCCEEDS}[lock cmpxchg [HEAP], ecx]": _UPPER_HALF,
    "test_a_negation_in_memory_sets_the_flags_of_its_result[lock]": "the translator takes the operand for the result",
    f"{_LATER}[ROUNDSS]": _OWN_PLACE,
    f"{_LATER}[ROUNDPD]": _OWN_PLACE,
    f"{_LATER}[DPPS]": _OWN_PLACE,
    "test_an_sse_overflow_that_is_not_masked_may_be_exact": "the CPU below, told to mask it, calls it inexact",
    _READ_AND_WRITE: _READS_FIRST,
    "test_a_page_fault_of_a_fetch_comes_after_the_instructions_before_it": "the translator translates them together",
}

DEVIATIONS: Final[dict[str, dict[str, str]]] = {"soft": _SOFT}
"""Engine → test → reason, for every host."""

_LATE: Final = "interrupts wait until a run of emulated instructions is over"
_RING_3: Final = "ring 3 runs on the CPU itself, where only a kernel made for this KVM can be called back"
_STEPS: Final = "the emulator steps differently from a CPU"
_FAULTS: Final = "the emulator faults differently from a CPU"
_CLOCK: Final = "the time-stamp counter of the guest is the host's"
_TSC_AUX: Final = "the KVM of this host keeps no IA32_TSC_AUX"
_PAGING: Final = "this KVM knows no paging but that of 64-bit mode"

EMULATING_KVM: Final[dict[str, str]] = {
    "test_a_comparison_that_fails_does_not_touch_a_register": _UPPER_HALF,
    "test_an_advertised_instruction_set_executes[MOVBE]": "the emulator does not know MOVBE, and CPUID offers it",
    "test_the_time_stamp_counter_is_also_an_msr": _CLOCK,
    "test_a_loaded_time_stamp_counter_goes_on_from_there": _CLOCK,
    "test_a_data_breakpoint_stops_after_the_write": "the emulator has no data breakpoints",
    "test_a_single_step_waits_for_the_instruction_after_mov_ss": _STEPS,
    "test_a_single_step_sees_each_iteration_of_a_repeated_string": _STEPS,
    f"{_PRECISELY}[#GP by upper bits of CR0]": _FAULTS,
    f"{_PRECISELY}[#GP by an unaligned FXSAVE]": _FAULTS,
    f"{_PRECISELY}[#SS by a non-canonical stack]": _FAULTS,
    "test_a_benign_exception_without_a_gate_is_only_the_second_fault": _FAULTS,
    "test_a_page_fault_in_the_second_page_leaves_the_first_untouched": _FAULTS,
    "test_an_interrupt_after_sti_waits_one_instruction": _LATE,
    "test_sti_followed_by_cli_lets_no_interrupt_in": _LATE,
    "test_popf_and_iret_that_set_if_let_a_pending_interrupt_in_at_once": _LATE,
    "test_the_task_priority_holds_lower_interrupts_back": _LATE,
    "test_cr8_is_the_task_priority": _LATE,
    "test_pending_interrupts_come_highest_vector_first": _LATE,
    "test_an_interrupt_in_service_holds_its_class_back_until_eoi": _LATE,
    "test_the_local_apic_shows_what_is_pending_and_in_service": _LATE,
    "test_an_nmi_ignores_the_interrupt_flag_and_blocks_the_next_until_iret": _LATE,
    "test_a_software_disabled_apic_takes_no_interrupts": _LATE,
    "test_protected_mode_paging[two levels]": _PAGING,
    "test_protected_mode_paging[PAE]": _PAGING,
    "test_ring_3_runs_and_comes_back_by_an_interrupt": _RING_3,
    "test_ring_3_may_not_call_a_gate_of_ring_0": _RING_3,
    "test_ring_3_with_iopl_3_may_use_ports_and_cli": _RING_3,
    "test_the_io_bitmap_opens_single_ports_to_ring_3[al-True]": _RING_3,
    "test_syscall_saves_rip_and_flags_and_masks_flags": _RING_3,
    "test_syscall_and_sysret_bring_everything_back[514]": _RING_3,
    "test_syscall_and_sysret_bring_everything_back[582]": _RING_3,
    "test_syscall_and_sysret_bring_everything_back[2775]": _RING_3,
    "test_an_interrupt_flag_masked_by_syscall_holds_interrupts_until_sysret": _RING_3,
    "test_sysret_can_return_to_32_bit_code": _RING_3,
    "test_the_msrs_of_a_stopped_guest_are_those_it_wrote": _TSC_AUX,
    "test_what_was_loaded_is_what_save_gives": _TSC_AUX,
}
"""What a KVM that emulates guest code (`engines.emulates`) may not do: somebody else's emulator, in some version, so
these may fail and need not. An instruction that it does not know at all the harness recognises by itself.
"""

_UNCHECKED: Final = "the translator does not check this"
_GATE: Final = "the translator counts a gate as twice its size in error codes"
_BLOCK: Final = "the translator executes the rest of a block as it was"
_PAIR: Final = "the translator computes the flags of CMPXCHG8B and CMPXCHG16B from operands that are long gone"
_COUNTERS: Final = "its time-stamp counter may be found unstable, and then KVM moves each CPU's by itself"
_MASKED: Final = "the translator raises no SSE exceptions, masked or not"
_RESERVED: Final = "the translator says of a page with a reserved bit that it is not present"

BOX: Final[dict[str, str]] = {
    "test_an_sse_exception_that_is_not_masked_leaves_the_destination_alone": _MASKED,
    "test_an_sse_overflow_that_is_not_masked_may_be_exact": _MASKED,
    "test_an_sse_exception_that_is_not_masked_says_what_was_noticed_before": _MASKED,
    "test_sse_gives_the_first_of_two_nans": "the translator gives the one with the larger fraction, as x87 does",
    "test_denormals_are_zero_also_for_the_smaller_and_the_larger": "the translator gives the denormal itself",
    _READ_AND_WRITE: _READS_FIRST,
    "test_an_instruction_may_rewrite_the_one_that_follows": _BLOCK,
    "test_code_that_rewrites_itself_survives_kicks": _BLOCK,
    "test_a_page_fault_tells_what_was_tried[a read through a reserved bit]": _RESERVED,
    "test_a_page_fault_tells_what_was_tried[a write through a reserved bit]": _RESERVED,
    "test_no_execute_is_a_reserved_bit_while_efer_nxe_is_clear": _RESERVED,
    "test_protected_mode_checks_segment_limits": "the translator does not check segment limits",
    "test_ring_3_may_not_call_a_gate_of_ring_0": _GATE,
    "test_the_io_bitmap_opens_single_ports_to_ring_3[al-True]": "the translator takes a TSS that is in use for none",
    "test_syscall_saves_rip_and_flags_and_masks_flags": "the translator clears arithmetic flags at SYSCALL",
    "test_comparing_a_pair_changes_nothing_but_zf": _PAIR,
    "test_no_operand_of_a_program_becomes_its_privilege": _PAIR,
    "test_the_time_stamp_counters_of_two_cpus_agree": _COUNTERS,
    "test_the_time_stamp_counters_agree_in_a_new_vm": _COUNTERS,
    "test_alignment_checks_catch_user_code_that_asks_for_them": "the translator has no #AC",
    "test_a_benign_exception_without_a_gate_is_only_the_second_fault": _GATE,
    "test_an_x87_push_onto_a_full_stack_is_a_stack_fault": "the translator does not check the x87 stack",
    "test_mmx_registers_are_the_x87_mantissas": "the translator leaves the exponent alone on MMX writes",
    f"{_STATUS_WORD}[denormal operand and underflow]": _X87_FLAGS,
    f"{_MXCSR}[denormal operand]": "the translator does not notice denormal operands",
    f"{_PRECISELY}[#DB by INT1]": "the translator does not know INT1 and gives #UD",
    f"{_PRECISELY}[#NP by a gate]": _GATE,
    f"{_PRECISELY}[#SS by a non-canonical stack]": _CANONICAL,
    f"{_PRECISELY}[#SS by a non-canonical address through RBP]": _CANONICAL,
    f"{_PRECISELY}[#GP by a jump to a non-canonical address]": _CANONICAL,
    f"{_PRECISELY}[#GP by a vector beyond the IDT]": _GATE,
    f"{_PRECISELY}[#GP by upper bits of CR0]": _UNCHECKED,
    f"{_PRECISELY}[#GP by upper bits of CR8]": _UNCHECKED,
    f"{_PRECISELY}[#GP by a non-canonical LSTAR]": _UNCHECKED,
    f"{_PRECISELY}[#GP by a non-canonical FS base]": _UNCHECKED,
    f"{_PRECISELY}[#GP by reserved bits of MXCSR]": _UNCHECKED,
    f"{_PRECISELY}[#XM by a division by zero]": _MASKED,
}
"""What the CPU of the box (`tools/devtool kvmbox`) may not do: it is a translator too, that of QEMU 7.2.

A name without a case stands for all cases of the test.
"""
