"""The running microVM: the order in which its parts begin and end, and what its end means."""

import threading
from collections.abc import Iterable, Iterator

import pytest

from hibana.engine.interface import SHUTDOWN, Bus, Reason, Stop
from hibana.errors import I8042BufferFull, VcpusDoNotAnswer, VcpuThreadError
from hibana.memory.guest import GuestMemory
from hibana.observe.metrics_groups import METRICS
from hibana.testing.engine import FakeEngine, Step
from hibana.testing.fakes import RecordingBus
from hibana.units import MIB
from hibana.vmm import vcpu_thread
from hibana.vmm.machine import EXIT_GENERIC, EXIT_OK, Machine

PATIENCE_S = 30.0


class Keys:
    """A keyboard that notes where it is pressed."""

    def __init__(self, refuses: bool = False) -> None:
        self.pressed: list[str] = []
        self._refuses = refuses

    def send_ctrl_alt_del(self) -> None:
        self.pressed.append(threading.current_thread().name)
        if self._refuses:
            raise I8042BufferFull


class Rig:
    """A microVM with fake guests, one thread for each of them."""

    def __init__(self, *guests: Iterable[Step]) -> None:
        self.story: list[str] = []
        self.ended = threading.Event()
        self.memory = GuestMemory(MIB)
        self.vm = FakeEngine(*guests).create_vm(self.memory, max(1, len(guests)), RecordingBus())
        self.machine = Machine(self.vm, self.memory, self.ended.set, lambda: None)

    def wait_for_end(self) -> None:
        assert self.ended.wait(PATIENCE_S)


@pytest.fixture
def rigs() -> Iterator[list[Rig]]:
    rigs: list[Rig] = []
    yield rigs
    for rig in rigs:
        rig.machine.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fc_vcpu")]


@pytest.fixture(autouse=True)
def _fresh_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METRICS.vcpu, "failures", 0)


def names_of_vcpu_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("fc_vcpu")}


def messages(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [line.partition("] ")[2] for line in capfd.readouterr().out.splitlines()]


def test_a_new_microvm_stands_still_with_its_host_ends_connected(rigs: list[Rig]) -> None:
    rig = Rig(())
    rigs.append(rig)
    rig.machine.on_start(lambda: rig.story.append("terminal"))
    rig.machine.on_start(lambda: rig.story.append(f"keys, {len(names_of_vcpu_threads())} thread"))
    assert names_of_vcpu_threads() == set()
    rig.machine.start()
    assert rig.story == ["terminal", "keys, 1 thread"]
    assert rig.machine.paused
    assert rig.vm.runners[0].runs == 0


def test_every_runner_has_a_thread_and_all_are_paused_and_resumed_together(rigs: list[Rig]) -> None:
    rig = Rig((), ())
    rigs.append(rig)
    rig.machine.start()
    assert names_of_vcpu_threads() == {"fc_vcpu 0", "fc_vcpu 1"}
    rig.machine.resume()
    assert not rig.machine.paused
    rig.machine.pause()
    assert rig.machine.paused
    runs = [runner.runs for runner in rig.vm.runners]
    for thread in rig.machine.threads:
        thread.ask(lambda: None)
    assert [runner.runs for runner in rig.vm.runners] == runs


def test_closing_takes_threads_then_devices_backwards_then_engine_then_memory() -> None:
    rig = Rig((), ())
    machine, story = rig.machine, rig.story
    machine.on_close(lambda: story.append(f"first, {len(names_of_vcpu_threads())} threads"))
    machine.on_close(lambda: story.append(f"second, {len(names_of_vcpu_threads())} threads"))
    rig.vm.close = lambda: story.append(f"engine, ram {rig.memory.read(0, 1)!r}")  # type: ignore[method-assign]
    machine.start()
    machine.resume()
    machine.close()
    assert story == ["second, 0 threads", "first, 0 threads", "engine, ram b'\\x00'"]
    with pytest.raises(ValueError, match="released"):
        rig.memory.read(0, 1)


def test_a_microvm_that_never_started_can_be_closed() -> None:
    rig = Rig(())
    rig.machine.on_close(lambda: rig.story.append("closed"))
    rig.machine.close()
    assert rig.story == ["closed"]
    assert rig.vm.closed


def test_nothing_is_freed_under_a_thread_that_does_not_end(rigs: list[Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(())
    rigs.append(rig)
    rig.machine.on_close(lambda: rig.story.append("closed"))
    rig.machine.start()
    gate = threading.Event()
    rig.machine.threads[0].post(lambda: wait_for(gate))
    with monkeypatch.context() as impatient:
        impatient.setattr(vcpu_thread, "ANSWER_TIMEOUT_S", 0.01)
        with pytest.raises(VcpusDoNotAnswer):
            rig.machine.close()
    assert rig.story == []
    assert not rig.vm.closed
    gate.set()


def wait_for(gate: threading.Event) -> None:
    assert gate.wait(PATIENCE_S)


def test_a_thread_that_cannot_be_had_leaves_a_microvm_that_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig((), ())
    rig.machine.on_start(lambda: rig.story.append("host ends"))
    start = threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if thread.name == "fc_vcpu 1":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    with pytest.raises(VcpuThreadError):
        rig.machine.start()
    assert rig.story == []
    rig.machine.close()
    assert names_of_vcpu_threads() == set()
    assert rig.vm.closed


def test_tasks_for_devices_run_on_the_first_vcpus_thread_once_the_guest_runs(rigs: list[Rig]) -> None:
    rig = Rig((), ())
    rigs.append(rig)
    rig.machine.start()
    rig.machine.post_to_devices(lambda: rig.story.append(threading.current_thread().name))
    rig.machine.threads[0].ask(lambda: None)
    assert rig.story == []
    rig.machine.resume()
    rig.machine.threads[0].ask(lambda: None)
    assert rig.story == ["fc_vcpu 0"]


def test_keys_are_pressed_where_devices_live_even_while_the_guest_is_paused(rigs: list[Rig]) -> None:
    rig = Rig(())
    rigs.append(rig)
    keys = Keys()
    rig.machine.keyboard = keys
    rig.machine.start()
    rig.machine.send_ctrl_alt_del()
    assert keys.pressed == ["fc_vcpu 0"]
    rig.machine.keyboard = Keys(refuses=True)
    with pytest.raises(I8042BufferFull):
        rig.machine.send_ctrl_alt_del()


def test_the_guests_clock_hears_of_each_pause_once(rigs: list[Rig]) -> None:
    rig = Rig(())
    rigs.append(rig)
    rig.machine.start()
    rig.machine.pause()
    assert rig.vm.pauses == 0
    rig.machine.resume()
    rig.machine.pause()
    rig.machine.pause()
    assert rig.vm.pauses == 1


# --- the end of the guest ---------------------------------------------------------------------------------------------


def test_a_device_ends_the_guest_from_inside_and_the_end_is_told(rigs: list[Rig]) -> None:
    rig = Rig([lambda bus: rig.machine.end(EXIT_OK), lambda bus: rig.story.append("after the end")])
    rigs.append(rig)
    rig.machine.start()
    rig.machine.resume()
    rig.wait_for_end()
    rig.machine.resume()
    rig.machine.threads[0].ask(lambda: None)
    assert rig.story == []
    assert rig.machine.exit_code == EXIT_OK
    assert METRICS.vcpu.failures == 0


def test_the_end_of_one_vcpu_is_the_end_of_all(rigs: list[Rig]) -> None:
    rig = Rig([lambda bus: rig.machine.end(EXIT_OK)], ())
    rigs.append(rig)
    rig.machine.start()
    rig.machine.resume()
    rig.wait_for_end()
    for thread in rig.machine.threads:
        thread.ask(lambda: None)
    runs = rig.vm.runners[1].runs
    rig.machine.resume()
    rig.machine.threads[1].ask(lambda: None)
    assert rig.vm.runners[1].runs == runs


@pytest.mark.parametrize("codes", [(EXIT_OK, EXIT_GENERIC), (EXIT_GENERIC, EXIT_OK), (EXIT_GENERIC, EXIT_GENERIC)])
def test_of_two_ends_a_failure_is_not_lost(codes: tuple[int, int], rigs: list[Rig]) -> None:
    rig = Rig()
    rigs.append(rig)
    for code in codes:
        rig.machine.end(code)
    assert rig.machine.exit_code == EXIT_GENERIC


@pytest.mark.parametrize(
    ("stop", "sentence"),
    [
        (SHUTDOWN, "Unexpected exit reason on vcpu run: Shutdown"),
        (Stop(Reason.FAILED, "no such instruction"), "Failure during vcpu run: no such instruction"),
        (Stop(Reason.ABORTED, "Received KVM_EXIT_INTERNAL_ERROR signal"), "Received KVM_EXIT_INTERNAL_ERROR signal"),
    ],
)
def test_a_guest_that_cannot_go_on_is_a_failure(
    stop: Stop, sentence: str, rigs: list[Rig], capfd: pytest.CaptureFixture[str]
) -> None:
    rig = Rig([stop])
    rigs.append(rig)
    rig.machine.start()
    rig.machine.resume()
    rig.wait_for_end()
    assert rig.machine.exit_code == EXIT_GENERIC
    assert METRICS.vcpu.failures == 1
    assert messages(capfd) == [sentence]


def test_a_guest_may_ask_the_engine_for_its_end(rigs: list[Rig], capfd: pytest.CaptureFixture[str]) -> None:
    rig = Rig([Stop(Reason.POWERED_OFF)])
    rigs.append(rig)
    rig.machine.start()
    rig.machine.resume()
    rig.wait_for_end()
    assert rig.machine.exit_code == EXIT_OK
    assert METRICS.vcpu.failures == 0
    assert messages(capfd) == []


def test_a_broken_device_is_a_failure_with_a_traceback(rigs: list[Rig], capfd: pytest.CaptureFixture[str]) -> None:
    def broken(bus: Bus) -> None:
        raise ZeroDivisionError("in a device")

    rig = Rig([broken])
    rigs.append(rig)
    rig.machine.start()
    rig.machine.resume()
    rig.wait_for_end()
    assert rig.machine.exit_code == EXIT_GENERIC
    said = capfd.readouterr().out
    assert "Failure during vcpu run: Traceback" in said
    assert "ZeroDivisionError: in a device" in said
