"""Reading a boot's milestones off its console."""

import os
import time
from collections.abc import Iterator
from typing import IO

import pytest

from tools.bench.timeline import KERNEL_MILESTONES, Hung, phases, processor_clock, record


@pytest.fixture
def console() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as out, open(write, "wb", buffering=0) as into:
        yield out, into


def test_milestones_and_results_are_kept_apart(console: tuple[IO[bytes], IO[bytes]]) -> None:
    out, into = console
    into.write(
        b"[ 0.0] Linux version 6.1\r\n[ 0.9] Run /init as init process\r\n\036ab begin\nMARK mounts\n42\n[ 1.0] x\n"
    )
    into.close()
    timeline = record(out, time.monotonic(), 60, lambda: 1.5)
    assert list(timeline.at) == ["Linux version", "Run /init", "MARK mounts"]
    assert timeline.worked == dict.fromkeys(timeline.at, 1.5)
    assert timeline.printed == ("42",)


def test_a_guest_that_lost_its_clock_is_given_up_at_once(console: tuple[IO[bytes], IO[bytes]]) -> None:
    out, into = console
    into.write(b"[ 0.0] tsc: Unable to calibrate against PIT\r\n")
    with pytest.raises(Hung):
        record(out, time.monotonic(), 60, time.process_time)


def test_silence_is_given_up_when_time_is_up(console: tuple[IO[bytes], IO[bytes]]) -> None:
    with pytest.raises(Hung):
        record(console[0], time.monotonic() - 60, 60, time.process_time)


def test_a_phase_lasts_from_one_milestone_to_the_next() -> None:
    at = {milestone: float(number) for number, milestone in enumerate(KERNEL_MILESTONES)} | {"MARK forks": 9.0}
    durations = phases(at)
    assert durations["forks"] == 9.0 - (len(KERNEL_MILESTONES) - 1)
    assert sum(durations.values()) == 9.0


def test_the_processor_clock_of_a_process_goes_on_while_it_works() -> None:
    clock = processor_clock(os.getpid())
    before = clock()
    while clock() == before:
        pass
    assert before > 0
