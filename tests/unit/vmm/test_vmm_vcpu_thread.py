"""The thread that runs a guest: who may talk to it, what it reports, and that no kick is ever lost."""

import itertools
import os
import random
import threading
from collections.abc import Iterator

import pytest

from hibana.engine.interface import SHUTDOWN, Bus, Reason, Stop
from hibana.errors import FilterTooLong, I8042BufferFull, VcpuFilterError, VcpusDoNotAnswer, VcpuThreadError
from hibana.testing.engine import FakeRunner, Step
from hibana.testing.fakes import RecordingBus
from hibana.vmm import vcpu_thread
from hibana.vmm.vcpu_thread import VcpuThread, name_thread

PATIENCE_S = 30.0


class Guest:
    """A guest of fake steps on its thread, and what the thread reported."""

    def __init__(self, *steps: Step, forever: Step | None = None) -> None:
        self.bus = RecordingBus()
        endless: Iterator[Step] = itertools.repeat(forever) if forever else iter(())
        self.runner = FakeRunner(itertools.chain(steps, endless), self.bus)
        self.stops: list[Stop] = []
        self.reported = threading.Event()
        self.thread = VcpuThread(0, self.runner, self._stopped, lambda: None)
        self.thread.start()

    @property
    def said(self) -> list[int]:
        return [value for *_, value in self.bus.writes]

    def settle(self) -> None:
        """Wait until the thread has done all it was told to do."""
        self.thread.ask(lambda: None)

    def wait_for_report(self) -> Stop:
        assert self.reported.wait(PATIENCE_S)
        return self.stops[-1]

    def _stopped(self, stop: Stop) -> None:
        self.stops.append(stop)
        self.reported.set()


def say(byte: int) -> Step:
    return lambda bus: bus.port_write(0x3F8, 1, byte)


def wait_for(gate: threading.Event) -> None:
    assert gate.wait(PATIENCE_S)


def broken() -> None:
    raise ZeroDivisionError("a bug")


@pytest.fixture
def guests() -> Iterator[list[Guest]]:
    """Collect the guests of a test; each must let itself be finished."""
    guests: list[Guest] = []
    yield guests
    for guest in guests:
        guest.thread.finish()
    assert "fc_vcpu 0" not in [thread.name for thread in threading.enumerate()]


def test_a_thread_is_called_like_its_vcpu_where_clients_look(guests: list[Guest]) -> None:
    guests.append(Guest())
    task = guests[0].thread.ask(threading.get_native_id)
    with open(f"/proc/self/task/{task}/comm") as comm:
        assert comm.read() == "fc_vcpu 0\n"


def test_naming_a_thread_leaves_the_others_alone() -> None:
    before = open_comm(os.getpid())
    names: list[str] = []

    def named() -> None:
        name_thread("fc_test")
        names.append(open_comm(threading.get_native_id()))

    thread = threading.Thread(target=named)
    thread.start()
    thread.join()
    assert names == ["fc_test\n"]
    assert open_comm(os.getpid()) == before


def open_comm(task: int) -> str:
    with open(f"/proc/self/task/{task}/comm") as comm:
        return comm.read()


def test_a_guest_stands_still_until_it_is_resumed(guests: list[Guest]) -> None:
    guest = Guest(say(1))
    guests.append(guest)
    guest.settle()
    assert (guest.runner.runs, guest.said) == (0, [])
    guest.thread.resume()
    guest.settle()  # which kicks: the guest has run by now, or runs next
    guest.thread.resume()
    guest.thread.pause()
    assert guest.runner.runs > 0


def test_a_paused_guest_says_nothing_and_then_goes_on(guests: list[Guest]) -> None:
    guest = Guest(forever=say(7))
    guests.append(guest)
    guest.thread.resume()
    while not guest.said:
        guest.settle()
    guest.thread.pause()
    said = len(guest.said)
    guest.settle()
    assert len(guest.said) == said
    guest.thread.resume()
    while len(guest.said) == said:
        guest.settle()


def test_pausing_and_resuming_twice_is_pausing_and_resuming_once(guests: list[Guest]) -> None:
    guest = Guest(forever=say(7))
    guests.append(guest)
    for _ in range(2):
        guest.thread.resume()
    for _ in range(2):
        guest.thread.pause()
    runs = guest.runner.runs
    guest.settle()
    assert guest.runner.runs == runs


@pytest.mark.parametrize("running", [False, True])
def test_tasks_are_done_in_the_order_in_which_they_were_posted(guests: list[Guest], running: bool) -> None:
    guest = Guest(forever=say(7))
    guests.append(guest)
    if running:
        guest.thread.resume()
    done: list[int] = []
    for number in range(1000):
        guest.thread.post(lambda number=number: done.append(number))  # type: ignore[misc]
    guest.settle()
    assert done == list(range(1000))


def test_a_task_is_done_on_the_guests_thread_and_may_post_another(guests: list[Guest]) -> None:
    guest = Guest()
    guests.append(guest)
    names: list[str] = []

    def again() -> None:
        names.append(threading.current_thread().name)
        if len(names) < 3:
            guest.thread.post(again)

    guest.thread.post(again)
    while len(names) < 3:
        guest.settle()
    assert names == ["fc_vcpu 0"] * 3


@pytest.mark.parametrize("running", [False, True])
def test_a_question_has_an_answer_or_the_error_of_whoever_was_asked(guests: list[Guest], running: bool) -> None:
    guest = Guest()
    guests.append(guest)
    if running:
        guest.thread.resume()
    assert guest.thread.ask(lambda: 42) == 42
    assert guest.thread.ask(lambda: None) is None

    def refuse() -> None:
        raise I8042BufferFull

    with pytest.raises(I8042BufferFull):
        guest.thread.ask(refuse)
    with pytest.raises(ZeroDivisionError):
        guest.thread.ask(broken)
    assert guest.thread.ask(lambda: 43) == 43
    assert guest.stops == []


def test_a_thread_that_does_not_answer_is_not_waited_for_for_ever(
    guests: list[Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = Guest()
    guests.append(guest)
    gate = threading.Event()
    guest.thread.post(lambda: wait_for(gate))
    late: list[int] = []
    with monkeypatch.context() as impatient:
        impatient.setattr(vcpu_thread, "ANSWER_TIMEOUT_S", 0.01)
        with pytest.raises(VcpusDoNotAnswer, match=r"^Failed to message the vCPUs\.$"):
            guest.thread.ask(lambda: late.append(1))
    gate.set()
    assert guest.thread.ask(lambda: 2) == 2
    assert late == [1]


def test_a_thread_is_confined_before_it_does_anything_and_its_maker_waits_for_that() -> None:
    story: list[str] = []

    def confine() -> None:
        story.append(f"confine {threading.current_thread().name}")

    thread = VcpuThread(3, FakeRunner((), RecordingBus()), lambda stop: None, confine)
    thread.post(lambda: story.append("task"))
    thread.start()
    assert story[0] == "confine fc_vcpu 3"
    thread.ask(lambda: None)
    thread.finish()
    assert story == ["confine fc_vcpu 3", "task"]


@pytest.mark.parametrize("failure", [FilterTooLong(), RuntimeError("a bug")])
def test_a_thread_that_cannot_be_confined_does_nothing(failure: Exception) -> None:
    def confine() -> None:
        raise failure

    done: list[str] = []
    thread = VcpuThread(0, FakeRunner((), RecordingBus()), lambda stop: None, confine)
    thread.post(lambda: done.append("task"))
    with pytest.raises(VcpuFilterError) as refused:
        thread.start()
    assert str(refused.value) == f"Failed to set the requested seccomp filters on vCPU 0: Error: {failure}"
    thread.finish()
    assert done == []


@pytest.mark.parametrize("running", [False, True])
def test_an_exception_in_a_task_is_a_failure_and_is_reported_once(guests: list[Guest], running: bool) -> None:
    guest = Guest(forever=say(7))
    guests.append(guest)
    if running:
        guest.thread.resume()
    guest.thread.post(broken)
    guest.settle()
    assert [stop.reason for stop in guest.stops] == [Reason.FAILED]
    assert guest.stops[0].detail.endswith("ZeroDivisionError: a bug")


def test_an_engine_that_raises_has_failed(guests: list[Guest], monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest()
    guests.append(guest)
    monkeypatch.setattr(guest.runner, "run", broken)
    guest.thread.resume()
    stop = guest.wait_for_report()
    assert stop.reason is Reason.FAILED
    assert "ZeroDivisionError: a bug" in stop.detail


def test_the_end_of_a_guest_is_reported_on_its_own_thread(guests: list[Guest]) -> None:
    guest = Guest(say(1), SHUTDOWN, say(2))
    guests.append(guest)
    guest.thread.resume()
    assert guest.wait_for_report() is SHUTDOWN
    guest.settle()
    assert guest.said == [1]


def test_a_guest_that_has_ended_cannot_be_resumed(guests: list[Guest]) -> None:
    guest = Guest(SHUTDOWN, say(2))
    guests.append(guest)
    guest.thread.resume()
    guest.wait_for_report()
    runs = guest.runner.runs
    guest.thread.resume()
    guest.thread.pause()
    guest.thread.resume()
    guest.settle()
    assert (guest.runner.runs, guest.said, len(guest.stops)) == (runs, [], 1)


def test_a_failure_ends_a_guest_that_was_paused(guests: list[Guest]) -> None:
    guest = Guest(say(2))
    guests.append(guest)
    guest.thread.post(broken)
    guest.thread.resume()
    guest.settle()
    assert guest.said == []


def test_a_device_can_halt_the_guest_that_is_calling_it(guests: list[Guest]) -> None:
    def reset(bus: Bus) -> None:
        guest.thread.halt()

    guest = Guest(say(1), reset, forever=say(2))
    guests.append(guest)
    guest.thread.resume()
    while 1 not in guest.said:
        guest.settle()
    guest.settle()
    guest.thread.resume()
    guest.settle()
    assert guest.said == [1]
    assert guest.stops == []


@pytest.mark.parametrize("running", [False, True])
def test_finishing_does_what_was_posted_before(running: bool) -> None:
    guest = Guest(forever=say(7))
    if running:
        guest.thread.resume()
    done: list[int] = []
    guest.thread.post(lambda: done.append(1))
    guest.thread.finish()
    assert done == [1]
    assert "fc_vcpu 0" not in [thread.name for thread in threading.enumerate()]
    guest.thread.finish()  # nobody is left, and that is no error


def test_finishing_a_thread_that_was_never_started_is_nothing() -> None:
    VcpuThread(0, FakeRunner((), RecordingBus()), lambda stop: None, lambda: None).finish()


def test_a_thread_that_will_not_finish_is_reported(guests: list[Guest], monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest()
    guests.append(guest)
    gate = threading.Event()
    guest.thread.post(lambda: wait_for(gate))
    with monkeypatch.context() as impatient:
        impatient.setattr(vcpu_thread, "ANSWER_TIMEOUT_S", 0.01)
        with pytest.raises(VcpusDoNotAnswer):
            guest.thread.finish()
    gate.set()


def test_a_host_without_room_for_a_thread_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "_start_new_thread", refuse)
    thread = VcpuThread(0, FakeRunner((), RecordingBus()), lambda stop: None, lambda: None)
    with pytest.raises(VcpuThreadError, match="Resource temporarily unavailable"):
        thread.start()
    thread.finish()


def test_no_task_is_lost_whoever_posts_whenever(guests: list[Guest]) -> None:
    """Four threads post and ask at random while the guest runs, halts, is paused and resumed."""
    guest = Guest(forever=lambda bus: None)
    guests.append(guest)
    done: list[int] = []
    wrong: list[object] = []

    def poster(seed: int) -> None:
        dice = random.Random(seed)
        for number in range(200):
            what = dice.randrange(4)
            if what == 0:
                guest.thread.resume()
            elif what == 1:
                guest.thread.pause()
            elif what == 2 and guest.thread.ask(lambda number=number: number) != number:  # type: ignore[misc]
                wrong.append(number)
            guest.thread.post(lambda: done.append(seed))

    threads = [threading.Thread(target=poster, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    guest.settle()
    assert not wrong
    assert sorted(done) == sorted([0, 1, 2, 3] * 200)


def test_no_kick_is_lost_between_the_last_look_at_the_tasks_and_the_guest(guests: list[Guest]) -> None:
    guest = Guest()  # halted: only a kick brings it back
    guests.append(guest)
    guest.thread.resume()
    for number in range(2000):
        assert guest.thread.ask(lambda number=number: number) == number  # type: ignore[misc]
