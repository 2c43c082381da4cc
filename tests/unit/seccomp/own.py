"""Our own policies: what the rules allow, and the nearest calls that they do not."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hibana import seccomp
from hibana.seccomp.compiler import ARCHITECTURES
from hibana.seccomp.policy import Condition, Filter, SyscallRule, parse
from hibana.seccomp.syscalls import NUMBERS
from tests.unit.seccomp.kernel import ANSWERS, Call, meaning

FILES: Final = {
    (path.parent.name, path.stem): path for path in sorted(Path(seccomp.__path__[0]).glob("policies/*/*.json"))
}
"""By architecture and engine."""
POLICIES: Final = {key: parse(path.read_bytes()) for key, path in FILES.items()}
HERE: Final = os.uname().machine
ENGINES_HERE: Final = [engine for machine, engine in POLICIES if machine == HERE]

ALL_ONES: Final = (1 << 64) - 1
"""As an argument: no file descriptor, no address, no size, no operation."""


def loop_filter(policy: dict[str, Filter], api: bool = True) -> Filter:
    """Give what the thread of the loop may do: all of `vmm`, and all of `api`."""
    vmm = policy["vmm"]
    return Filter(vmm.default_action, vmm.filter_action, vmm.rules + (policy["api"].rules if api else []))


def threads(machine: str, engine: str) -> dict[str, Filter]:
    """Give what each kind of thread may do."""
    policy = POLICIES[machine, engine]
    return {"loop": loop_filter(policy), "vcpu": policy["vcpu"]}


def number(syscall: str, machine: str) -> int:
    """Look up the number of a system call."""
    found = NUMBERS[syscall][ARCHITECTURES[machine].column]
    assert found is not None, f"{machine} has no {syscall}"
    return found


def matching(rule: SyscallRule, machine: str) -> Call:
    """Give a call that a rule allows."""
    arguments = [ALL_ONES] * 6
    for condition in rule.args or ():
        arguments[condition.index] = condition.val
    return _call(number(rule.syscall, machine), arguments, machine)


def next_to(rule: SyscallRule, wanted: Filter, machine: str) -> Iterator[Call]:
    """Give the nearest calls that no rule allows: one for each condition, or another system call."""
    for condition in rule.args or ():
        yield next(call for call in _other_values(rule, condition, machine) if is_forbidden(call, wanted))
    if not rule.args:
        own = number(rule.syscall, machine)
        near = (abs(own + distance) for size in range(500) for distance in (size, -size))
        calls = (_call(each, [ALL_ONES] * 6, machine) for each in near)
        yield next(call for call in calls if is_forbidden(call, wanted))


def unnamed(wanted: Filter, machine: str) -> list[Call]:
    """Give a call for each system call that no rule names, and for numbers that are none yet."""
    named = {number(rule.syscall, machine) for rule in wanted.rules}
    return [_call(each, [ALL_ONES] * 6, machine) for each in range(480) if each not in named]


def is_forbidden(call: Call, wanted: Filter) -> bool:
    """Tell whether no rule allows a call."""
    return meaning(wanted, call) != ANSWERS["allow"]


def _other_values(rule: SyscallRule, condition: Condition, machine: str) -> Iterator[Call]:
    masked = condition.masked()
    assert masked, "our own policies compare for equality only"
    right = matching(rule, machine)
    for bit in range(64):
        if masked[0] >> bit & 1:
            arguments = [*right.arguments]
            arguments[condition.index] ^= 1 << bit
            yield _call(right.number, arguments, machine)


def _call(number: int, arguments: list[int], machine: str) -> Call:
    return Call(number, tuple(arguments), ARCHITECTURES[machine].audit)  # type: ignore[arg-type]  # there are six
