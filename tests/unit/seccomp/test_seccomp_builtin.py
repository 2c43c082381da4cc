"""Our own filters for every architecture, as its kernel would read them: also for those that this machine is not."""

import os
from collections.abc import Sequence
from typing import Final

import pytest

from hibana.seccomp import bpf, filters
from hibana.seccomp.bpf import Instruction
from hibana.seccomp.compiler import ARCHITECTURES, compile_filter
from hibana.seccomp.policy import Filter
from tests.unit.seccomp import libseccomp
from tests.unit.seccomp.kernel import KILL, Call, run
from tests.unit.seccomp.own import ALL_ONES, POLICIES, matching, next_to, number, threads, unnamed

Programs = list[Sequence[Instruction]]


def built_in(machine: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Programs]:
    """Give what the threads of a VMM would install on an architecture."""
    own = os.uname()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "uname", lambda: os.uname_result((*own[:4], machine)))
        chosen = filters.built_in(api=True)(engine)
    return {"loop": [bpf.unpack(code) for code in chosen.loop], "vcpu": [bpf.unpack(code) for code in chosen.vcpu]}


def answer(programs: Programs, call: Call, machine: str) -> int:
    """Say what the kernel does: what the strictest of the programs wants; signals go to this process."""
    if call.number == number("tgkill", machine):
        call = call._replace(arguments=(os.getpid(), *call.arguments[1:]))
    # Strictest first: killing the process, which is a negative number, then killing the thread, then trapping, …
    return min((run(program, call) for program in programs), key=lambda said: said - (said >> 31 << 32))


@pytest.mark.parametrize(("machine", "engine"), POLICIES)
def test_what_each_rule_allows_is_let_through_and_its_neighbour_is_trapped(
    machine: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = built_in(machine, engine, monkeypatch)
    for thread, wanted in threads(machine, engine).items():
        for rule in wanted.rules:
            assert answer(programs[thread], matching(rule, machine), machine) == bpf.ALLOW, rule
            for call in next_to(rule, wanted, machine):
                assert answer(programs[thread], call, machine) == bpf.TRAP, (rule, call)


@pytest.mark.parametrize(("machine", "engine"), POLICIES)
def test_every_system_call_that_is_not_named_is_trapped(
    machine: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = built_in(machine, engine, monkeypatch)
    for thread, wanted in threads(machine, engine).items():
        calls = unnamed(wanted, machine)
        assert len(calls) > 400
        for call in calls:
            assert answer(programs[thread], call, machine) == bpf.TRAP, call


@pytest.mark.parametrize(("machine", "engine"), POLICIES)
def test_a_signal_to_another_process_is_trapped(machine: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for programs in built_in(machine, engine, monkeypatch).values():
        abort = Call(number("tgkill", machine), (os.getpid(), 1, 6, 0, 0, 0), ARCHITECTURES[machine].audit)
        elsewhere = abort._replace(arguments=(os.getpid() + 1, 1, 6, 0, 0, 0))
        assert [run(programs[0], call) for call in (abort, elsewhere)] == [bpf.ALLOW, bpf.TRAP]


@pytest.mark.parametrize(("machine", "engine"), POLICIES)
def test_the_system_calls_of_another_architecture_kill(
    machine: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for programs in built_in(machine, engine, monkeypatch).values():
        for foreign in {each.audit for each in ARCHITECTURES.values()} - {ARCHITECTURES[machine].audit}:
            for each in range(480):
                assert answer(programs, Call(each, (ALL_ONES,) * 6, foreign), machine) == KILL


@libseccomp.needed
@pytest.mark.parametrize(("machine", "engine"), POLICIES)
def test_libseccomp_understands_our_policies_in_the_same_way(machine: str, engine: str) -> None:
    architecture = ARCHITECTURES[machine]
    for wanted in POLICIES[machine, engine].values():
        ours = compile_filter(wanted, architecture)
        reference = libseccomp.compile_filter(wanted, architecture.audit)
        calls = [call for rule in wanted.rules for call in (matching(rule, machine), *next_to(rule, wanted, machine))]
        for call in calls + unnamed(wanted, machine):
            assert run(ours, call) == run(reference, call), call


# --- one architecture beside the other --------------------------------------------------------------------------------

ONLY_ON: Final = {
    "x86_64": {
        "kvm": {"vmm epoll_wait", "vmm getpgrp", "vmm ioctl 1=44717"},  # the last one is KVM_KVMCLOCK_CTRL
        "soft": {"vmm epoll_wait", "vmm getpgrp"},
    },
    # It has neither epoll_wait nor getpgrp; the C library makes them of these.
    "aarch64": {
        "kvm": {"vmm epoll_pwait 4=0", "vmm getpgid 0=0"},
        "soft": {"vmm epoll_pwait 4=0", "vmm getpgid 0=0"},
    },
}


@pytest.mark.parametrize("engine", ["kvm", "soft"])
def test_architectures_differ_in_nothing_but_what_they_call_it(engine: str) -> None:
    x86_64, aarch64 = (described(POLICIES[machine, engine]) for machine in ("x86_64", "aarch64"))
    assert x86_64 - aarch64 == ONLY_ON["x86_64"][engine]
    assert aarch64 - x86_64 == ONLY_ON["aarch64"][engine]


def described(policy: dict[str, Filter]) -> set[str]:
    """Write each rule as a line."""
    return {
        " ".join([category, rule.syscall, *(f"{each.index}={each.val}" for each in rule.args or ())])
        for category, wanted in policy.items()
        for rule in wanted.rules
    }
