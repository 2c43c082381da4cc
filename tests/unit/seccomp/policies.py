"""Policies and system calls for property tests: random ones, and those that shipped with the reference."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import pytest
from hypothesis import strategies as st

from hibana.seccomp.policy import Action, Condition, Filter, SyscallRule, parse
from hibana.seccomp.syscalls import NUMBERS
from tests.unit.seccomp.kernel import AARCH64, COLUMNS, X86_64, Call

SHARED: Final = Path(__file__).resolve().parents[4] / "shared/data/seccomp"

BOTH: Final = sorted(name for name, numbers in NUMBERS.items() if None not in numbers)
_FEW: Final = ["read", "write", "close", "ioctl", "mmap", "openat"]  # so that rules meet
_INTERESTING: Final = [0, 1, 2, 0x7F, (1 << 32) - 2, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 7 << 32, (1 << 64) - 1]

_NUDGES: Final = [0, 0, 0, 0, 1, -1, 1 << 32, -(1 << 32)]

values = st.sampled_from(_INTERESTING) | st.integers(0, (1 << 64) - 1)
operators = st.sampled_from(["eq", "ge", "gt", "le", "lt", "ne"]) | st.tuples(st.just("masked_eq"), values)
conditions = st.builds(
    Condition, index=st.integers(0, 5), op=operators, val=values, type=st.sampled_from(["dword", "qword"])
)
argument_lists = st.none() | st.lists(conditions, max_size=6, unique_by=lambda condition: condition.index)
rules = st.builds(SyscallRule, syscall=st.sampled_from(_FEW) | st.sampled_from(BOTH), args=argument_lists)
actions: st.SearchStrategy[Action] = st.sampled_from(
    ["allow", "kill_process", "log", "trap", ("errno", 1), ("errno", 4094), ("trace", 7)]
)


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    default, match = draw(st.lists(actions, min_size=2, max_size=2, unique=True))
    return Filter(default, match, draw(st.lists(rules, max_size=30)))


def calls_near(wanted: Filter, architecture: int, seed: int, count: int) -> Iterator[Call]:
    """Make system calls near the rules: those that they name and their neighbours, values that they name or nearly."""
    column = COLUMNS[architecture]
    random = Random(seed)
    numbers = [NUMBERS[rule.syscall][column] or 0 for rule in wanted.rules] or [0]
    mentioned = [condition.val for rule in wanted.rules for condition in rule.args or ()] + _INTERESTING
    for _ in range(count):
        number = (
            random.choice(numbers) if random.random() < 0.9 else max(0, random.choice(numbers) + random.choice((-1, 1)))
        )
        arguments = [(random.choice(mentioned) + random.choice(_NUDGES)) % (1 << 64) for _ in range(6)]
        yield Call(number, tuple(arguments), architecture)  # type: ignore[arg-type]  # there are six


def reference_policies() -> list[tuple[str, int, dict[str, Filter]]]:
    """Read the reference's own policies, if they are beside this checkout."""
    return [
        (name, architecture, parse((SHARED / f"{name}-unknown-linux-musl.json").read_bytes()))
        for name, architecture in (("x86_64", X86_64), ("aarch64", AARCH64))
        if SHARED.exists()
    ]


needs_reference = pytest.mark.skipif(
    not SHARED.exists(), reason="the reference's policies are not beside this checkout (shared/data/seccomp)"
)
