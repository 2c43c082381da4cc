"""Compiled filters do what their policies say: random ones, the reference's, and libseccomp's idea of both."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.errors import SyscallRuleError, UnknownSyscall
from hibana.seccomp import bpf
from hibana.seccomp.bpf import Instruction
from hibana.seccomp.compiler import ARCHITECTURES, compile_filter
from hibana.seccomp.policy import Condition, Filter, SyscallRule
from hibana.seccomp.syscalls import NUMBERS
from tests.unit.seccomp import libseccomp
from tests.unit.seccomp.kernel import AARCH64, COLUMNS, KILL, X86_64, Call, meaning, run, trace
from tests.unit.seccomp.policies import BOTH, calls_near, filters, needs_reference, reference_policies

TARGETS = {X86_64: ARCHITECTURES["x86_64"], AARCH64: ARCHITECTURES["aarch64"]}
CALLS_PER_FILTER = 500

architectures = st.sampled_from(list(TARGETS))


def only(*conditions: Condition, action: str = "allow") -> Filter:
    return Filter("trap", action, [SyscallRule("read", list(conditions))])


@given(filters(), architectures, st.booleans(), st.integers())
def test_a_program_answers_as_its_rules_read(wanted: Filter, architecture: int, basic: bool, seed: int) -> None:
    program = compile_filter(wanted, TARGETS[architecture], basic=basic)
    for call in calls_near(wanted, architecture, seed, CALLS_PER_FILTER):
        assert run(program, call) == meaning(wanted, call, basic=basic)


@needs_reference
def test_the_references_policies_mean_what_they_say() -> None:
    for _, architecture, policy in reference_policies():
        for wanted in policy.values():
            program = compile_filter(wanted, TARGETS[architecture])
            for call in every_call_near(wanted, architecture):
                assert run(program, call) == meaning(wanted, call)


def every_call_near(wanted: Filter, architecture: int) -> list[Call]:
    """Make every system call, plainly; and for each rule, calls that match it and calls that miss it by one value."""
    calls = [Call(number, architecture=architecture) for number in range(520)]
    for rule in wanted.rules:
        number = NUMBERS[rule.syscall][COLUMNS[architecture]] or 0
        matching = [0] * 6
        for condition in rule.args or ():
            matching[condition.index] = condition.val
        for changed in range(6):
            for change in (0, 1, 4, 1 << 32, (1 << 64) - 1):
                arguments = [*matching]
                arguments[changed] ^= change
                calls.append(Call(number, tuple(arguments), architecture))  # type: ignore[arg-type]  # there are six
    return calls


# --- the same as libseccomp -------------------------------------------------------------------------------------------


@libseccomp.needed
@given(filters(), architectures, st.integers())
def test_libseccomp_understands_a_filter_in_the_same_way(wanted: Filter, architecture: int, seed: int) -> None:
    program, reference = compile_filter(wanted, TARGETS[architecture]), libseccomp.compile_filter(wanted, architecture)
    for call in calls_near(wanted, architecture, seed, CALLS_PER_FILTER):
        assert run(program, call) == run(reference, call)


@libseccomp.needed
@needs_reference
def test_programs_take_less_than_half_as_many_steps_as_libseccomps() -> None:
    for _, architecture, policy in reference_policies():
        for wanted in policy.values():
            calls = every_call_near(wanted, architecture)
            ours = steps(compile_filter(wanted, TARGETS[architecture]), calls)
            assert ours < steps(libseccomp.compile_filter(wanted, architecture), calls) / 2


def steps(program: list[Instruction], calls: list[Call]) -> int:
    return sum(trace(program, call)[1] for call in calls)


@libseccomp.needed
@pytest.mark.parametrize("architecture", TARGETS)
def test_system_calls_have_libseccomps_numbers(architecture: int) -> None:
    for name, numbers in NUMBERS.items():
        known = libseccomp.number(name, architecture)
        if known >= 0:
            assert numbers[COLUMNS[architecture]] == known, name


# --- what the compiler promises ---------------------------------------------------------------------------------------


def test_a_foreign_architecture_is_killed_whatever_the_policy() -> None:
    program = compile_filter(Filter("allow", "trap", []), TARGETS[X86_64])
    assert run(program, Call(0, architecture=X86_64)) == bpf.ALLOW
    assert run(program, Call(0, architecture=0x40000003)) == KILL  # i386, by int 0x80
    assert run(program, Call(0, architecture=AARCH64)) == KILL


def test_the_x32_way_to_a_system_call_is_killed() -> None:
    program = compile_filter(Filter("allow", "trap", []), TARGETS[X86_64])
    assert run(program, Call(0x3FFFFFFF)) == bpf.ALLOW
    assert run(program, Call(0x40000000)) == KILL
    assert run(program, Call(0xFFFFFFFF)) == KILL


def test_a_rule_without_conditions_makes_the_others_of_its_system_call_idle() -> None:
    condition = Condition(0, "eq", 7, "dword")
    wanted = Filter("trap", "allow", [SyscallRule("read", [condition]), SyscallRule("read"), SyscallRule("read", [])])
    program = compile_filter(wanted, TARGETS[X86_64])
    assert run(program, Call(0, (8, 0, 0, 0, 0, 0))) == bpf.ALLOW


def test_where_arguments_do_not_matter_the_answer_hangs_on_the_number_alone() -> None:
    """The kernel then answers from a bitmap, without running the program."""
    wanted = Filter("trap", "allow", [SyscallRule(name) for name in BOTH])
    program = compile_filter(wanted, TARGETS[X86_64])
    assert {k for code, _, _, k in program if code == bpf.LOAD} == {bpf.NUMBER, bpf.ARCHITECTURE}


def test_the_depth_grows_with_the_logarithm_of_the_list() -> None:
    every_second = sorted(number for numbers in NUMBERS.values() if (number := numbers[0]) is not None)[::2]
    names = {numbers[0]: name for name, numbers in NUMBERS.items()}
    wanted = Filter("trap", "allow", [SyscallRule(names[number]) for number in every_second])
    program = compile_filter(wanted, TARGETS[X86_64])
    assert max(trace(program, Call(number))[1] for number in range(500)) <= 4 + 10 + 3


def test_a_policy_too_large_for_short_jumps_compiles() -> None:
    conditions = [Condition(index, "gt", index << 32 | 5, "qword") for index in range(6)]
    wanted = Filter("trap", "allow", [SyscallRule(name, conditions) for name in BOTH])
    program = compile_filter(wanted, TARGETS[AARCH64])
    assert len(program) > 6000
    for name in BOTH:
        for call in (
            Call(NUMBERS[name][1] or 0, (1 << 63,) * 6, AARCH64),
            Call(NUMBERS[name][1] or 0, (6, 6 + (1 << 32), 0, 0, 0, 0), AARCH64),
        ):
            assert run(program, call) == meaning(wanted, call)


def test_a_long_list_of_requests_is_tried_in_its_order() -> None:
    requests = [1000 + 3 * index for index in range(700)]
    wanted = Filter("trap", "allow", [SyscallRule("ioctl", [Condition(1, "eq", each, "dword")]) for each in requests])
    program = compile_filter(wanted, TARGETS[X86_64])
    for index, request in enumerate(requests):
        answer, count = trace(program, Call(16, (0, request, 0, 0, 0, 0)))
        assert answer == bpf.ALLOW
        assert count <= 20 + index + index // 100
        assert run(program, Call(16, (0, request + 1, 0, 0, 0, 0))) == bpf.TRAP


@pytest.mark.parametrize("basic", [True, False])
def test_basic_ignores_arguments_even_impossible_ones(basic: bool) -> None:
    wanted = only(Condition(6, "eq", 0, "dword"))
    if basic:
        program = compile_filter(wanted, TARGETS[X86_64], basic=True)
        assert run(program, Call(0, (9,) * 6)) == bpf.ALLOW
    else:
        with pytest.raises(SyscallRuleError):
            compile_filter(wanted, TARGETS[X86_64])


@pytest.mark.parametrize(
    "wanted",
    [
        only(Condition(6, "eq", 0, "dword")),
        only(Condition(1, "ge", 3, "qword"), Condition(1, "le", 5, "qword")),
        only(action="trap"),
        Filter("trap", ("errno", 4095), [SyscallRule("read")]),
    ],
    ids=["seventh argument", "two conditions on one argument", "rules that change nothing", "errno beyond 4094"],
)
def test_rules_that_libseccomp_refuses_are_refused(wanted: Filter) -> None:
    with pytest.raises(SyscallRuleError):
        compile_filter(wanted, TARGETS[X86_64])
    if libseccomp.library is not None:
        with pytest.raises(OSError):
            libseccomp.compile_filter(wanted, X86_64)


@pytest.mark.parametrize(("name", "architecture"), [("frobnicate", X86_64), ("open", AARCH64), ("", X86_64)])
def test_a_system_call_that_the_target_lacks_is_refused(name: str, architecture: int) -> None:
    with pytest.raises(UnknownSyscall):
        compile_filter(Filter("trap", "allow", [SyscallRule(name)]), TARGETS[architecture])
