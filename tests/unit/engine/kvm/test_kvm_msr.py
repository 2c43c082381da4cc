"""Which MSRs are saved, and in which order they are loaded."""

from hibana.engine.kvm.msr import TSC, TSC_DEADLINE, in_loading_order, saved_msrs


def test_what_the_host_lists_is_saved_if_it_is_state_of_the_guest() -> None:
    listed = [0x174, 0x10, 0xC0000081, 0x4B564D01, 0x10A, 0x3F1, 0xC0011029]
    assert saved_msrs(listed)[:4] == [0x174, 0x10, 0xC0000081, 0x4B564D01]
    assert not {0x10A, 0x3F1, 0xC0011029} & set(saved_msrs(listed))


def test_memory_types_are_saved_though_the_host_does_not_list_them() -> None:
    assert {0x200, 0x20F, 0x250, 0x26F, 0x277, 0x2FF} <= set(saved_msrs([]))


def test_nothing_is_saved_twice_or_with_the_system_registers() -> None:
    chosen = saved_msrs([0x277, 0x277, 0x1B, 0xC0000080, 0xC0000100, 0xC0000101, 0xC0000102])
    assert len(chosen) == len(set(chosen))
    assert not {0x1B, 0xC0000080, 0xC0000100, 0xC0000101} & set(chosen)
    assert 0xC0000102 in chosen


def test_a_machine_check_control_that_may_not_exist_is_left_out() -> None:
    assert 0x17B not in saved_msrs([0x179, 0x17A, 0x17B])


def test_the_timers_deadline_is_loaded_after_the_counter_it_is_compared_with() -> None:
    assert in_loading_order({TSC_DEADLINE: 9, 0x174: 1, TSC: 5})[-1] == (TSC_DEADLINE, 9)
    assert [msr for msr, _ in in_loading_order({TSC_DEADLINE: 9, 0x174: 1, TSC: 5})] == [0x174, TSC, TSC_DEADLINE]
