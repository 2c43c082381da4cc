"""Which programs the threads get, and what two categories on one thread amount to."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana import whole_file
from hibana.errors import SeccompError
from hibana.seccomp import bpf, container, filters
from hibana.seccomp.compiler import ARCHITECTURES, answer, compile_filter
from hibana.seccomp.container import Program
from hibana.seccomp.policy import Filter, SyscallRule
from tests.unit.seccomp import policies
from tests.unit.seccomp.kernel import X86_64, Call, meaning, run
from tests.unit.seccomp.own import number

ME = 4711


def program(wanted: Filter) -> Program:
    return Program(bpf.pack(compile_filter(wanted, ARCHITECTURES["x86_64"])), answer(wanted.default_action))


@given(policies.filters(), policies.filters(), st.integers())
def test_the_second_program_answers_where_no_rule_of_the_first_matches(first: Filter, then: Filter, seed: int) -> None:
    both = bpf.unpack(filters.chained(program(first), program(then).code))
    for call in policies.calls_near(Filter("trap", "allow", first.rules + then.rules), X86_64, seed, 200):
        decided = meaning(first, call)
        assert run(both, call) == (decided if decided != answer(first.default_action) else meaning(then, call))


def test_no_program_beside_another_is_no_filter() -> None:
    some = program(Filter("trap", "allow", []))
    assert filters.chained(Program(b"", 0), some.code) == filters.chained(some, b"") == b""


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_signals_go_to_this_process_only(machine: str) -> None:
    own, tgkill = bpf.unpack(filters.own_signals(ME, machine)), number("tgkill", machine)
    assert run(own, Call(tgkill, (ME, 1, 35, 0, 0, 0))) == bpf.ALLOW
    assert run(own, Call(tgkill, (ME + 1, 1, 35, 0, 0, 0))) == bpf.TRAP
    assert run(own, Call(tgkill - 1, (ME + 1, 1, 35, 0, 0, 0))) == bpf.ALLOW


def file_of(folder: Path, **programs: Program) -> str:
    (folder / "filters").write_bytes(container.write(programs))
    return str(folder / "filters")


def test_the_loops_thread_gets_both_of_its_categories_and_a_vcpu_its_own(tmp_path: Path) -> None:
    vmm = program(Filter("trap", "allow", [SyscallRule("read")]))
    api = program(Filter("trap", "allow", [SyscallRule("write")]))
    vcpu = program(Filter("trap", "allow", [SyscallRule("close")]))
    path = file_of(tmp_path, vmm=vmm, API=api, vCpu=vcpu)
    (loop,), (own,) = filters.from_file(path, api=True)("soft")
    assert [run(bpf.unpack(loop), Call(number)) == bpf.ALLOW for number in range(4)] == [True, True, False, False]
    assert own == vcpu.code
    assert filters.from_file(path, api=False)("kvm") == ((vmm.code,), (vcpu.code,))


@pytest.mark.parametrize(
    ("categories", "sentence"),
    [
        ("vmm api", "Seccomp error: Missing thread category: vcpu"),
        ("", "Seccomp error: Missing thread category: vmm"),
        ("vmm api vcpu gpu Disk", "Seccomp error: Invalid thread categories: disk,gpu"),
    ],
)
def test_there_are_three_categories(categories: str, sentence: str, tmp_path: Path) -> None:
    some = program(Filter("trap", "allow", []))
    path = file_of(tmp_path, **dict.fromkeys(categories.split(), some))
    with pytest.raises(SeccompError) as refused:
        filters.from_file(path, api=False)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        (None, "Filter file open error: No such file or directory (os error 2)"),
        (123456, "Filter deserialization failed: Input size 123456 exceeds limit of 100000 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole_is_refused(size: int | None, sentence: str, tmp_path: Path) -> None:
    if size is not None:
        (tmp_path / "filters").write_bytes(bytes(size))
    with pytest.raises(SeccompError) as refused:
        filters.from_file(str(tmp_path / "filters"), api=False)
    assert str(refused.value) == f"Seccomp error: {sentence}"


def test_a_fifo_that_nobody_writes_into_is_no_filter_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_file, "_PATIENCE_S", 0.05)
    os.mkfifo(tmp_path / "filters")
    with pytest.raises(SeccompError, match=r"Failed to read input: Operation timed out \(os error 110\)"):
        filters.from_file(str(tmp_path / "filters"), api=False)


def test_none_are_none() -> None:
    assert filters.unfiltered("soft") == ((), ())


def test_ours_are_for_an_engine_and_stricter_without_an_api() -> None:
    machine = os.uname().machine
    with_api, without = (filters.built_in(api=api)("soft") for api in (True, False))
    assert with_api.vcpu == without.vcpu
    accept = Call(number("accept4", machine), architecture=ARCHITECTURES[machine].audit)
    assert [run(bpf.unpack(each.loop[-1]), accept) for each in (with_api, without)] == [bpf.ALLOW, bpf.TRAP]
