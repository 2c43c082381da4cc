"""From a filter to a program: the numbers of its system calls become a search tree, each leaf one call's rules.

    architecture? → x32? → number < n? → number < m? → … → RETURN
                                                        … → argument = 1? → argument = 2? → RETURN

Neighbours with the same answer share a leaf, so the depth is the logarithm of what the policy really distinguishes.
Where arguments are not looked at the answer depends on the number alone; the kernel notices that when the program is
installed, and answers such calls from a bitmap without running it (kernel/seccomp.c, Linux 5.11).

A foreign architecture and, on x86-64, the x32 numbers would be a second way to each system call: they kill.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from hibana.errors import SyscallRuleError, UnknownSyscall
from hibana.seccomp import bpf
from hibana.seccomp.bpf import Instruction, Label, Line, Step
from hibana.seccomp.container import Program
from hibana.seccomp.policy import Action, Condition, Filter, SyscallRule
from hibana.seccomp.syscalls import NUMBERS

_X32: Final = 0x40000000
_LAST_ARGUMENT: Final = 5
_LARGEST_ERRNO: Final = 4094  # libseccomp's limit
_WORD: Final = 0xFFFFFFFF
_SET_SIZE: Final = 200  # so that a jump over all of a set is short enough

_ANSWERS: Final = {
    "allow": bpf.ALLOW,
    "errno": bpf.ERRNO,
    "kill_process": bpf.KILL_PROCESS,
    "kill_thread": bpf.KILL_THREAD,
    "log": bpf.LOG,
    "trace": bpf.TRACE,
    "trap": bpf.TRAP,
}


class Architecture(NamedTuple):
    """A target: its number in audit records, its column in the table of system calls, whether it has x32 calls."""

    audit: int
    column: int
    has_x32: bool


ARCHITECTURES: Final = {
    "x86_64": Architecture(0xC000003E, 0, True),
    "aarch64": Architecture(0xC00000B7, 1, False),
}


def answer(action: Action) -> int:
    """Translate an action into what a program returns. Raises SyscallRuleError."""
    word, value = action if isinstance(action, tuple) else (action, 0)
    if word == "errno" and value > _LARGEST_ERRNO:
        raise SyscallRuleError
    return _ANSWERS[word] | value


def compile_policy(
    policy: Mapping[str, Filter], architecture: Architecture, *, basic: bool = False
) -> dict[str, Program]:
    """Make a program of each filter. Raises UnknownSyscall, SyscallRuleError."""
    return {
        category: Program(
            bpf.pack(compile_filter(wanted, architecture, basic=basic)), default=answer(wanted.default_action)
        )
        for category, wanted in policy.items()
    }


def compile_filter(wanted: Filter, architecture: Architecture, *, basic: bool = False) -> list[Instruction]:
    """Make a program of a filter; `basic` ignores arguments. Raises UnknownSyscall, SyscallRuleError."""
    default, match = answer(wanted.default_action), answer(wanted.filter_action)
    rules: dict[int, list[Sequence[Condition]]] = {}
    for rule in wanted.rules:
        if default == match:
            raise SyscallRuleError
        rules.setdefault(_number(rule, architecture), []).append(() if basic else _conditions(rule))
    leaves = {number: _leaf(rules[number], match, default) for number in rules}
    return bpf.assemble([*_guard(architecture), *_tree(list(_cases(leaves, default)))])


def _number(rule: SyscallRule, architecture: Architecture) -> int:
    number = NUMBERS.get(rule.syscall, (None, None))[architecture.column]
    if number is None:
        raise UnknownSyscall
    return number


def _conditions(rule: SyscallRule) -> Sequence[Condition]:
    """Give a rule's conditions; as in libseccomp each argument can have one. Raises SyscallRuleError."""
    conditions = rule.args or ()
    indices = [condition.index for condition in conditions]
    if len(set(indices)) < len(indices) or any(index > _LAST_ARGUMENT for index in indices):
        raise SyscallRuleError
    return conditions


# --- the number -------------------------------------------------------------------------------------------------------


def _guard(architecture: Architecture) -> Iterator[Line]:
    ours, native = Label(), Label()
    yield Step(bpf.LOAD, bpf.ARCHITECTURE)
    yield Step(bpf.JUMP_EQUAL, architecture.audit, ours)
    yield Step(bpf.RETURN, bpf.KILL_PROCESS)
    yield ours
    yield Step(bpf.LOAD, bpf.NUMBER)
    if architecture.has_x32:
        yield Step(bpf.JUMP_AT_LEAST, _X32, otherwise=native)
        yield Step(bpf.RETURN, bpf.KILL_PROCESS)
        yield native


def _cases(leaves: dict[int, list[Line]], default: int) -> Iterator[tuple[int, list[Line]]]:
    """Cut the numbers into ranges with one answer each: (first number, what to do)."""
    otherwise: list[Line] = [Step(bpf.RETURN, default)]
    present = None
    for number in sorted({0, *leaves, *(number + 1 for number in leaves)}):
        leaf = leaves.get(number, otherwise)
        if leaf != present:
            yield number, leaf
        present = leaf


def _tree(cases: Sequence[tuple[int, list[Line]]]) -> list[Line]:
    """Search the range that the number, which is in the register, belongs to."""
    if len(cases) == 1:
        return cases[0][1]
    middle = len(cases) // 2
    first = cases[middle][0]
    low, high = _tree(cases[:middle]), _tree(cases[middle:])
    above, below = Label(), Label()
    if len(low) <= bpf.REACH:
        return [Step(bpf.JUMP_AT_LEAST, first, above), *low, above, *high]
    return [Step(bpf.JUMP_AT_LEAST, first, otherwise=below), Step(bpf.JUMP, then=above), below, *low, above, *high]


# --- the arguments ----------------------------------------------------------------------------------------------------


def _leaf(rules: Sequence[Sequence[Condition]], match: int, default: int) -> list[Line]:
    """Try the rules of one system call in their order, which is only a matter of speed."""
    if not all(rules):
        return [Step(bpf.RETURN, match)]
    lines: list[Line] = []
    for index, group in groupby(rules, _listed_argument):
        if index is None:
            for conditions in group:
                lines += _rule(conditions, match)
        else:
            lines += _sets([conditions[0].val & _WORD for conditions in group], index, match)
    return [*lines, Step(bpf.RETURN, default)]


def _listed_argument(conditions: Sequence[Condition]) -> int | None:
    """Give the argument, if its low half is all that is looked at: requests of ioctl come in long lists."""
    mask = conditions[0].masked() if len(conditions) == 1 else None
    return conditions[0].index if mask and mask[0] == _WORD else None


def _sets(values: Sequence[int], index: int, match: int) -> Iterator[Line]:
    """Compare the low half of an argument with one value after the other."""
    for start in range(0, len(values), _SET_SIZE):
        found, missed = Label(), Label()
        yield Step(bpf.LOAD, _low(index))
        for value in values[start : start + _SET_SIZE]:
            yield Step(bpf.JUMP_EQUAL, value, found)
        yield Step(bpf.JUMP, then=missed)
        yield found
        yield Step(bpf.RETURN, match)
        yield missed


def _rule(conditions: Iterable[Condition], match: int) -> Iterator[Line]:
    missed = Label()
    for condition in conditions:
        if masked := condition.masked():
            yield from _equals(condition.index, *masked, missed)
        elif condition.op == "ne":
            yield from _differs(condition, missed)
        else:
            yield from _compares(condition, missed)
    yield Step(bpf.RETURN, match)
    yield missed


def _equals(index: int, mask: int, value: int, missed: Label) -> Iterator[Line]:
    """Go on if the masked argument is the value; a half that does not matter is not looked at."""
    for offset, bits, wanted in (
        (_high(index), mask >> 32, value >> 32),
        (_low(index), mask & _WORD, value & _WORD),
    ):
        if bits:
            yield Step(bpf.LOAD, offset)
            if bits != _WORD:
                yield Step(bpf.AND, bits)
            yield Step(bpf.JUMP_EQUAL, wanted, otherwise=missed)


def _differs(condition: Condition, missed: Label) -> Iterator[Line]:
    met = Label()
    yield Step(bpf.LOAD, _high(condition.index))
    yield Step(bpf.JUMP_EQUAL, condition.val >> 32, otherwise=met)
    yield Step(bpf.LOAD, _low(condition.index))
    yield Step(bpf.JUMP_EQUAL, condition.val & _WORD, then=missed)
    yield met


def _compares(condition: Condition, missed: Label) -> Iterator[Line]:
    """Go on if the argument is larger or smaller: `lt` is what `ge` is not, `le` what `gt` is not."""
    met = Label()
    larger, smaller = (met, missed) if condition.op in ("ge", "gt") else (missed, met)
    yield Step(bpf.LOAD, _high(condition.index))
    yield Step(bpf.JUMP_GREATER, condition.val >> 32, then=larger)
    yield Step(bpf.JUMP_EQUAL, condition.val >> 32, otherwise=smaller)
    yield Step(bpf.LOAD, _low(condition.index))
    comparison = bpf.JUMP_AT_LEAST if condition.op in ("ge", "lt") else bpf.JUMP_GREATER
    yield Step(comparison, condition.val & _WORD, larger, smaller)
    yield met


def _low(index: int) -> int:
    return bpf.ARGUMENTS + 8 * index


def _high(index: int) -> int:
    return _low(index) + 4
