"""Two threads in one test: the loop's runs in `settle`, the devices' is a queue of tasks."""

import os
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from hibana.bus.home import Home
from hibana.bus.loop import Loop
from hibana.testing.fakes import FakeClock


class Town:
    """A loop, a home, and the tasks that are on their way to it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.loop = Loop(self.clock)
        self.posted: deque[Callable[[], None]] = deque()
        self.home = Home(self.loop, self.posted.append)

    def run_loop(self) -> None:
        """Let the loop do what it can do now: calls first, then the descriptors they were about."""
        for _ in range(5):
            self.loop.after(0, self.loop.stop)
            self.loop.run()

    def run_devices(self) -> int:
        """Do what was posted so far; give how much it was."""
        count = len(self.posted)
        for _ in range(count):
            self.posted.popleft()()
        return count

    def settle(self) -> None:
        self.run_loop()
        while self.run_devices():
            self.run_loop()


@pytest.fixture
def town() -> Iterator[Town]:
    town = Town()
    yield town
    town.loop.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            pass


def test_a_readable_descriptor_is_handled_where_devices_live(town: Town, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    heard: list[bytes] = []
    town.home.watch(reader, lambda: heard.append(os.read(reader, 100)))
    os.write(writer, b"frame")
    town.run_loop()
    assert heard == []
    town.run_devices()
    assert heard == [b"frame"]


def test_the_loop_reports_once_until_the_handler_has_run(town: Town, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.write(writer, b"abc")
    town.home.watch(reader, lambda: None)
    for _ in range(10):
        town.run_loop()
    assert len(town.posted) == 1


def test_what_a_handler_leaves_is_reported_again(town: Town, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    heard: list[bytes] = []

    def read_one() -> None:
        try:
            heard.append(os.read(reader, 1))
        except BlockingIOError:
            town.home.forget(reader)

    town.home.watch(reader, read_one)
    os.write(writer, b"abc")
    town.settle()
    assert heard == [b"a", b"b", b"c"]


def test_who_cannot_use_what_is_there_is_not_asked_until_it_can(town: Town, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    heard: list[str] = []

    def no_room() -> None:
        heard.append("no room")
        town.home.forget(reader)

    town.home.watch(reader, no_room)
    os.write(writer, b"frame")
    town.settle()
    town.settle()
    assert heard == ["no room"]
    town.home.watch(reader, lambda: heard.append(os.read(reader, 100).decode()))
    town.settle()
    assert heard == ["no room", "frame"]


def test_a_report_on_its_way_does_not_reach_who_has_lost_interest(town: Town, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    heard: list[bytes] = []
    town.home.watch(reader, lambda: heard.append(os.read(reader, 100)))
    os.write(writer, b"frame")
    town.run_loop()
    town.home.forget(reader)
    town.settle()
    assert heard == []
    assert os.read(reader, 100) == b"frame"


def test_losing_interest_while_the_loop_is_about_to_listen_again(town: Town, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    heard: list[bytes] = []
    town.home.watch(reader, lambda: heard.append(os.read(reader, 100)))
    os.write(writer, b"frame")
    town.run_loop()
    town.run_devices()
    town.home.forget(reader)
    os.write(writer, b"more")
    town.settle()
    assert heard == [b"frame"]


def test_a_forgotten_descriptor_may_be_watched_again_at_once(town: Town, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    heard: list[str] = []
    town.home.watch(reader, lambda: heard.append("first"))
    town.home.forget(reader)
    town.home.watch(reader, lambda: heard.append(os.read(reader, 100).decode()))
    os.write(writer, b"second")
    town.settle()
    assert heard == ["second"]


def test_a_hang_up_is_reported_like_data(town: Town, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    heard: list[bytes] = []

    def read() -> None:
        heard.append(os.read(reader, 100))
        town.home.forget(reader)

    town.home.watch(reader, read)
    os.close(writer)
    town.settle()
    assert heard == [b""]


def test_an_appointment_is_kept_where_devices_live_when_its_time_has_come(town: Town) -> None:
    kept: list[str] = []
    town.home.after(0.1, lambda: kept.append("now"))
    town.settle()
    town.clock.advance(0.099)
    town.settle()
    assert kept == []
    town.clock.advance(0.001)
    town.run_loop()
    assert kept == []
    town.run_devices()
    assert kept == ["now"]
    town.clock.advance(1)
    town.settle()
    assert kept == ["now"]


def test_a_cancelled_appointment_is_not_kept_even_if_it_is_on_its_way(town: Town) -> None:
    kept: list[str] = []
    early = town.home.after(0.1, lambda: kept.append("early"))
    late = town.home.after(0.1, lambda: kept.append("late"))
    town.settle()
    early.cancel()
    town.clock.advance(0.1)
    town.run_loop()
    late.cancel()
    town.settle()
    assert kept == []


def test_a_task_is_posted(town: Town) -> None:
    done: list[str] = []
    town.home.post(lambda: done.append("done"))
    assert done == []
    town.settle()
    assert done == ["done"]


# --- devices on the loop's own thread ---------------------------------------------------------------------------------


def at_home(town: Town) -> Home:
    """Make a home whose tasks are done at once, on the loop's thread."""
    return Home(town.loop, town.posted.append, visit=lambda task: task())


def test_on_the_loops_own_thread_a_report_needs_no_way(town: Town, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    heard: list[bytes] = []
    at_home(town).watch(reader, lambda: heard.append(os.read(reader, 1)))
    os.write(writer, b"abc")
    town.run_loop()
    assert heard == [b"a", b"b", b"c"]
    assert not town.posted


def test_on_the_loops_own_thread_an_appointment_needs_no_way(town: Town) -> None:
    kept: list[str] = []
    at_home(town).after(0.1, lambda: kept.append("now"))
    town.run_loop()
    town.clock.advance(0.1)
    town.run_loop()
    assert kept == ["now"]


def test_a_report_that_is_kept_back_is_not_repeated(town: Town, pipe: tuple[int, int]) -> None:
    """As while a microVM is paused."""
    reader, writer = pipe
    kept: list[Callable[[], None]] = []
    heard: list[bytes] = []
    Home(town.loop, town.posted.append, visit=kept.append).watch(reader, lambda: heard.append(os.read(reader, 9)))
    os.write(writer, b"abc")
    town.run_loop()
    town.run_loop()
    assert len(kept) == 1
    kept.pop()()
    assert heard == [b"abc"]
    os.write(writer, b"d")
    town.run_loop()
    assert len(kept) == 1
