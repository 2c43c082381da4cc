"""Our own policies, rule by rule, against the kernel: what each allows runs, what is next to it is killed."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from hibana import seccomp
from hibana.engine.kvm import abi, kick
from hibana.engine.soft import alarm
from hibana.host import tap
from hibana.seccomp.policy import Condition, Filter, SyscallRule, parse
from hibana.seccomp.syscalls import NUMBERS
from tests.unit.seccomp.kernel import ANSWERS, Call, meaning
from tools import compile_policies

ROOT: Final = Path(__file__).resolve().parents[3]
POLICIES: Final = {
    path.stem: parse(path.read_bytes()) for path in (Path(seccomp.__path__[0]) / "policies").glob("*.json")
}
ALL_ONES: Final = (1 << 64) - 1
"""As an argument: no file descriptor, no address, no size, no operation."""

PAST_ALL_FILTERS: Final = {335, 336}
"""uretprobe and uprobe: the kernel asks no filter about them (6.14), and kills who calls them from ordinary code."""

TGKILL: Final = NUMBERS["tgkill"][0] or 0


class Probe(NamedTuple):
    """A system call to be made on a kind of thread."""

    thread: str
    number: int
    arguments: tuple[int, ...]

    def line(self) -> str:
        values: list[object] = list(self.arguments)
        if self.number == TGKILL:
            values[0] = "me"  # the built-in filter wants that, and a policy cannot say it
        return json.dumps([self.thread, self.number, values])


def loop_filter(policy: dict[str, Filter], api: bool = True) -> Filter:
    """Give what the thread of the loop may do: all of `vmm`, and all of `api`."""
    vmm = policy["vmm"]
    return Filter(vmm.default_action, vmm.filter_action, vmm.rules + (policy["api"].rules if api else []))


def threads(engine: str) -> dict[str, Filter]:
    return {"loop": loop_filter(POLICIES[engine]), "vcpu": POLICIES[engine]["vcpu"]}


def probe(engine: str, probes: list[Probe], api: bool = True) -> dict[Probe, str]:
    """Make system calls under a filter and tell what became of each."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.seccomp.prober", engine, "api" if api else "no-api"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        input="".join(f"{probe.line()}\n" for probe in probes),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return dict(zip(probes, done.stdout.split(), strict=True))


def number(rule: SyscallRule) -> int:
    found = NUMBERS[rule.syscall][0]
    assert found is not None
    return found


def matching(rule: SyscallRule) -> tuple[int, ...]:
    """Give arguments that a rule allows."""
    arguments = [ALL_ONES] * 6
    for condition in rule.args or ():
        arguments[condition.index] = condition.val
    return tuple(arguments)


def next_to(rule: SyscallRule, wanted: Filter) -> Iterator[Call]:
    """Give the nearest calls that no rule allows: one for each condition, or another system call."""
    for condition in rule.args or ():
        yield next(call for call in _other_values(rule, condition) if is_forbidden(call, wanted))
    if not rule.args:
        near = (
            Call(abs(number(rule) + distance), (ALL_ONES,) * 6) for size in range(500) for distance in (size, -size)
        )
        yield next(call for call in near if is_forbidden(call, wanted))


def _other_values(rule: SyscallRule, condition: Condition) -> Iterator[Call]:
    masked = condition.masked()
    assert masked, "our own policies compare for equality only"
    for bit in range(64):
        if masked[0] >> bit & 1:
            arguments = list(matching(rule))
            arguments[condition.index] ^= 1 << bit
            yield Call(number(rule), tuple(arguments))  # type: ignore[arg-type]  # there are six


def is_forbidden(call: Call, wanted: Filter) -> bool:
    return meaning(wanted, call) != ANSWERS["allow"]


@pytest.mark.parametrize("engine", POLICIES)
def test_what_each_rule_allows_runs_and_its_neighbour_is_killed(engine: str) -> None:
    expected: dict[Probe, str] = {}
    for thread, wanted in threads(engine).items():
        for rule in wanted.rules:
            expected[Probe(thread, number(rule), matching(rule))] = "runs"
            for call in next_to(rule, wanted):
                expected[Probe(thread, call.number, call.arguments)] = "killed"
    assert len(expected) > 2 * len(threads(engine)["vcpu"].rules)
    assert probe(engine, list(expected)) == expected


@pytest.mark.parametrize("engine", POLICIES)
def test_every_system_call_that_is_not_named_is_killed(engine: str) -> None:
    expected = {
        Probe(thread, each, (ALL_ONES,) * 6): "killed"
        for thread, wanted in threads(engine).items()
        for each in set(range(480)) - PAST_ALL_FILTERS - {number(rule) for rule in wanted.rules}
    }
    assert probe(engine, list(expected)) == expected


@pytest.mark.parametrize("engine", POLICIES)
def test_without_an_api_nobody_can_be_let_in(engine: str) -> None:
    vmm = loop_filter(POLICIES[engine], api=False)
    calls = {
        Probe("loop", number(rule), matching(rule)): "killed" if is_forbidden(_call(rule), vmm) else "runs"
        for rule in POLICIES[engine]["api"].rules
    }
    assert calls[Probe("loop", 288, (ALL_ONES,) * 6)] == "killed"  # accept4
    assert probe(engine, list(calls), api=False) == calls


def _call(rule: SyscallRule) -> Call:
    return Call(number(rule), matching(rule))  # type: ignore[arg-type]  # there are six


@pytest.mark.parametrize("engine", POLICIES)
def test_no_rule_says_what_another_has_said(engine: str) -> None:
    for category, wanted in POLICIES[engine].items():
        for rule in wanted.rules:
            others = [other for other in wanted.rules if other is not rule]
            rest = Filter(wanted.default_action, wanted.filter_action, others)
            assert is_forbidden(_call(rule), rest), f"{engine}, {category}: {rule}"


@pytest.mark.parametrize("engine", POLICIES)
def test_every_rule_says_what_it_is_for(engine: str) -> None:
    policy = json.loads((Path(seccomp.__path__[0]) / "policies" / f"{engine}.json").read_bytes())
    for category in policy.values():
        for rule in category["filter"]:
            assert rule.get("comment"), rule


OPEN_AS_PATCH_DOES: Final = os.O_NONBLOCK | os.O_CLOEXEC
NUMBERS_OF_THE_CODE: Final = [
    *(("soft", "vcpu", "tgkill", 2, number) for number in (alarm.SIGNAL, signal.SIGABRT)),
    *(("kvm", "vcpu", "tgkill", 2, number) for number in (kick.SIGNAL, signal.SIGABRT)),
    ("kvm", "vcpu", "ioctl", 1, abi.KVM_RUN),
    ("kvm", "vmm", "ioctl", 1, abi.KVM_KVMCLOCK_CTRL),
    *((engine, "vcpu", "ioctl", 1, tap.TUNSETOFFLOAD) for engine in POLICIES),
    *(
        (engine, "vmm", "ioctl", 1, number)
        for engine in POLICIES
        for number in (termios.FIONBIO, termios.TCGETS, termios.TCSETS, termios.TIOCGPGRP)
    ),
    *(
        (engine, "vmm", "openat", 2, OPEN_AS_PATCH_DOES | access)
        for engine in POLICIES
        for access in (os.O_RDONLY, os.O_RDWR)
    ),
    *((engine, "vmm", "fcntl", 1, fcntl.F_SETFL) for engine in POLICIES),
]


@pytest.mark.parametrize(("engine", "category", "syscall", "index", "value"), NUMBERS_OF_THE_CODE)
def test_numbers_in_policies_are_those_of_the_code(
    engine: str, category: str, syscall: str, index: int, value: int
) -> None:
    conditions = [rule.args for rule in POLICIES[engine][category].rules if rule.syscall == syscall]
    assert [Condition(index, "eq", value, "dword")] in conditions


def test_the_compiled_filters_are_those_of_the_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["compile_policies.py", "--check"])
    assert compile_policies.main() == 0, "run tools/compile_policies.py"
