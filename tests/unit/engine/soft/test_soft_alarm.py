"""The signal that reaches the thread that runs the guest."""

import threading
import time
from collections.abc import Iterator

import pytest

from hibana.engine.soft import alarm, library, machine_code
from hibana.engine.soft.alarm import Alarm


@pytest.fixture
def here() -> Iterator[Alarm]:
    """Give an alarm for the test's own thread."""
    if reason := library.missing():
        pytest.skip(reason)
    machine_code.load()
    here = Alarm(threading.get_native_id())
    yield here
    here.close()


def test_an_alarm_ends_a_wait_when_it_is_due(here: Alarm) -> None:
    _, code = machine_code.load()
    wanted = code.byte("wanted_exit")
    wanted.value = 0
    due = time.monotonic_ns() + 3_000_000
    here.set(due)
    alarm.wait(wanted)
    assert wanted.value == 1 and time.monotonic_ns() >= due


def test_an_alarm_in_the_past_rings_at_once(here: Alarm) -> None:
    _, code = machine_code.load()
    wanted = code.byte("wanted_exit")
    wanted.value = 0
    here.set(1)
    alarm.wait(wanted)
    assert wanted.value == 1


def test_waiting_is_over_before_it_begins_when_something_is_wanted_already(here: Alarm) -> None:
    _, code = machine_code.load()
    wanted = code.byte("wanted_exit")
    wanted.value = 1
    alarm.wait(wanted)  # would sleep for ever
    wanted.value = 0


def test_poking_a_thread_that_has_ended_does_nothing(here: Alarm) -> None:
    ids: list[int] = []
    thread = threading.Thread(target=lambda: ids.append(threading.get_native_id()))
    thread.start()
    thread.join()
    alarm.poke(ids[0])


def test_a_poke_interrupts_only_the_thread_it_is_meant_for(here: Alarm) -> None:
    _, code = machine_code.load()
    wanted = code.byte("wanted_exit")
    wanted.value = 0
    ready, ended, ids = threading.Event(), threading.Event(), []

    def sleeper() -> None:
        alarm.admit()
        ids.append(threading.get_native_id())
        ready.set()
        alarm.wait(wanted)
        ended.set()

    thread = threading.Thread(target=sleeper)
    thread.start()
    ready.wait()
    while not ended.wait(0.01):
        alarm.poke(ids[0])
    thread.join()
    assert wanted.value == 1
