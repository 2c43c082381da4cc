"""Our own policies, rule by rule, against the kernel: what each allows runs, what is next to it is killed."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from hibana.engine.kvm import abi, kick
from hibana.engine.soft import alarm
from hibana.host import tap
from hibana.seccomp.policy import Condition, Filter
from tests.unit.seccomp.kernel import Call
from tests.unit.seccomp.own import (
    ENGINES_HERE,
    FILES,
    HERE,
    POLICIES,
    is_forbidden,
    loop_filter,
    matching,
    next_to,
    number,
    threads,
    unnamed,
)
from tools import compile_policies

ROOT: Final = Path(__file__).resolve().parents[3]

PAST_ALL_FILTERS: Final = {"x86_64": {335, 336}}
"""uretprobe and uprobe: the kernel asks no filter about them (6.14), and kills who calls them from ordinary code."""

TGKILL: Final = number("tgkill", HERE)


class Probe(NamedTuple):
    """A system call to be made on a kind of thread."""

    thread: str
    call: Call

    def line(self) -> str:
        values: list[object] = list(self.call.arguments)
        if self.call.number == TGKILL:
            values[0] = "me"  # the built-in filter wants that, and a policy cannot say it
        return json.dumps([self.thread, self.call.number, values])


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


@pytest.mark.parametrize("engine", ENGINES_HERE)
def test_what_each_rule_allows_runs_and_its_neighbour_is_killed(engine: str) -> None:
    expected: dict[Probe, str] = {}
    for thread, wanted in threads(HERE, engine).items():
        for rule in wanted.rules:
            expected[Probe(thread, matching(rule, HERE))] = "runs"
            for call in next_to(rule, wanted, HERE):
                expected[Probe(thread, call)] = "killed"
    assert len(expected) > 2 * len(threads(HERE, engine)["vcpu"].rules)
    assert probe(engine, list(expected)) == expected


@pytest.mark.parametrize("engine", ENGINES_HERE)
def test_every_system_call_that_is_not_named_is_killed(engine: str) -> None:
    expected = {
        Probe(thread, call): "killed"
        for thread, wanted in threads(HERE, engine).items()
        for call in unnamed(wanted, HERE)
        if call.number not in PAST_ALL_FILTERS.get(HERE, ())
    }
    assert probe(engine, list(expected)) == expected


@pytest.mark.parametrize("engine", ENGINES_HERE)
def test_without_an_api_nobody_can_be_let_in(engine: str) -> None:
    policy = POLICIES[HERE, engine]
    vmm = loop_filter(policy, api=False)
    rules = [matching(rule, HERE) for rule in policy["api"].rules]
    calls = {Probe("loop", call): "killed" if is_forbidden(call, vmm) else "runs" for call in rules}
    accept = next(probe for probe in calls if probe.call.number == number("accept4", HERE))
    assert calls[accept] == "killed"
    assert probe(engine, list(calls), api=False) == calls


@pytest.mark.parametrize(("machine", "engine"), POLICIES)
def test_no_rule_says_what_another_has_said(machine: str, engine: str) -> None:
    for category, wanted in POLICIES[machine, engine].items():
        for rule in wanted.rules:
            others = [other for other in wanted.rules if other is not rule]
            rest = Filter(wanted.default_action, wanted.filter_action, others)
            assert is_forbidden(matching(rule, machine), rest), f"{machine}, {engine}, {category}: {rule}"


@pytest.mark.parametrize(("machine", "engine"), FILES)
def test_every_rule_says_what_it_is_for(machine: str, engine: str) -> None:
    for category in json.loads(FILES[machine, engine].read_bytes()).values():
        for rule in category["filter"]:
            assert rule.get("comment"), rule


OPEN_AS_PATCH_DOES: Final = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
NUMBERS_OF_THE_CODE: Final = [
    *(("soft", "vcpu", "tgkill", 2, number) for number in (alarm.SIGNAL, signal.SIGABRT)),
    *(("kvm", "vcpu", "tgkill", 2, number) for number in (kick.SIGNAL, signal.SIGABRT)),
    ("kvm", "vcpu", "ioctl", 1, abi.KVM_RUN),
    *((engine, "vcpu", "ioctl", 1, tap.TUNSETOFFLOAD) for engine in ("kvm", "soft")),
    *(
        (engine, "vmm", "ioctl", 1, number)
        for engine in ("kvm", "soft")
        for number in (termios.FIONBIO, termios.TCGETS, termios.TCSETS, termios.TIOCGPGRP)
    ),
    *(
        (engine, "vmm", "openat", 2, OPEN_AS_PATCH_DOES | access)
        for engine in ("kvm", "soft")
        for access in (os.O_RDONLY, os.O_RDWR)
    ),
    *((engine, "vmm", "fcntl", 1, fcntl.F_SETFL) for engine in ("kvm", "soft")),
]
OF_X86: Final = ("kvm", "vmm", "ioctl", 1, abi.KVM_KVMCLOCK_CTRL)


@pytest.mark.parametrize(
    ("machine", "engine", "category", "syscall", "index", "value"),
    [("x86_64", *OF_X86), *((machine, *each) for machine in ("aarch64", "x86_64") for each in NUMBERS_OF_THE_CODE)],
)
def test_numbers_in_policies_are_those_of_the_code(
    machine: str, engine: str, category: str, syscall: str, index: int, value: int
) -> None:
    conditions = [rule.args for rule in POLICIES[machine, engine][category].rules if rule.syscall == syscall]
    assert [Condition(index, "eq", value, "dword")] in conditions


def test_the_compiled_filters_are_those_of_the_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["compile_policies.py", "--check"])
    assert compile_policies.main() == 0, "run tools/compile_policies.py"
