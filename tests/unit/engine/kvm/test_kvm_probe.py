"""The verdict about a host's KVM, with a clock and a kernel that the test plays."""

import mmap
import time

import pytest

from hibana.engine.kvm import abi, probe, registers
from hibana.engine.kvm.engine import KvmEngine
from hibana.engine.kvm.probe import LIMIT_NS, Verdict
from hibana.engine.state import Regs, Sregs
from hibana.errors import EngineError
from hibana.testing.engine import FakeVcpu


class Cpu:
    """A CPU that needs so many nanoseconds for an entry and for a round of the loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, entry_ns: list[int], round_ns: float) -> None:
        self.now = 0
        self.reason = abi.KVM_EXIT_HLT
        self._entries = entry_ns
        self._round_ns = round_ns
        self._rounds = 0
        self.page = mmap.mmap(-1, mmap.PAGESIZE)
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.now)
        monkeypatch.setattr(registers, "put_regs", self._put_regs)
        monkeypatch.setattr(registers, "get_sregs", self._get_sregs)
        monkeypatch.setattr(registers, "put_sregs", lambda fd, sregs: None)
        monkeypatch.setattr(abi, "call", self._run)

    def _get_sregs(self, fd: int) -> Sregs:
        return FakeVcpu().state.sregs

    def _put_regs(self, fd: int, regs: Regs) -> None:
        self._rounds = regs.rcx

    def _run(self, fd: int, request: int) -> int:
        assert request == abi.KVM_RUN
        self.now += self._entries.pop(0) + round(self._rounds * self._round_ns)
        self.page[abi.RUN_EXIT_REASON] = self.reason
        return 0


@pytest.mark.parametrize(("round_ns", "emulates"), [(0.4, False), (4, False), (299, False), (301, True), (1300, True)])
def test_a_round_is_timed_without_the_entry(round_ns: float, emulates: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Cpu(monkeypatch, [10_000] * 5, round_ns)
    verdict = probe._time(0, cpu.page)
    assert verdict.ns == pytest.approx(round_ns, rel=0.01)
    assert verdict.emulates is emulates


def test_one_slow_entry_does_not_change_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has to fetch everything, and a busy host disturbs any of them."""
    cpu = Cpu(monkeypatch, [9_000_000, 10_000, 70_000, 5_000_000, 12_000], 1)
    assert not probe._time(0, cpu.page).emulates


def test_a_guest_that_does_not_come_to_its_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Cpu(monkeypatch, [10_000] * 5, 1)
    cpu.reason = abi.KVM_EXIT_INTERNAL_ERROR
    with pytest.raises(EngineError, match=r"a test program ended with KVM exit reason 17$"):
        probe._time(0, cpu.page)


def test_the_engine_says_how_slow_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "measure", lambda: Verdict(LIMIT_NS + 1000.4))
    assert KvmEngine().emulates() == "/dev/kvm emulates guest code (1300 ns for a loop of two instructions)."


def test_the_engine_says_what_else_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Verdict:
        raise EngineError(cause="KVM_RUN: Invalid argument (os error 22)")

    monkeypatch.setattr(probe, "measure", fail)
    assert KvmEngine().emulates() == "/dev/kvm does not run guest code: KVM_RUN: Invalid argument (os error 22)."


def test_a_fast_host_has_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "measure", lambda: Verdict(-30.0))
    assert KvmEngine().emulates() is None


def test_a_host_is_measured_once() -> None:
    if reason := KvmEngine().missing():
        pytest.skip(reason)
    assert probe.measure() is probe.measure()
