"""Pipes play the outside world, and time passes when the test says so."""

import os
import threading
from collections.abc import Callable, Iterator
from select import EPOLLIN, EPOLLOUT

import pytest

from hibana.bus.loop import Loop
from hibana.testing.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def loop(clock: FakeClock) -> Iterator[Loop]:
    loop = Loop(clock)
    yield loop
    loop.close()


Pipe = tuple[int, int]


@pytest.fixture
def make_pipe() -> Iterator[Callable[[], Pipe]]:
    """Make pipes that are non-blocking and gone after the test, even if the test has closed an end."""
    ends: list[int] = []

    def make() -> Pipe:
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        ends.extend(pipe)
        return pipe

    yield make
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


def test_a_descriptor_is_reported_until_nothing_is_left_in_it(loop: Loop, make_pipe: Callable[[], Pipe]) -> None:
    reader, writer = make_pipe()
    os.write(writer, b"abc")
    heard: list[bytes] = []

    def read_one() -> None:
        heard.append(os.read(reader, 1))
        if len(heard) == 3:
            loop.stop()

    loop.watch(reader, read_one)
    loop.run()
    assert heard == [b"a", b"b", b"c"]


def test_a_hang_up_is_reported_although_nobody_asked(loop: Loop, make_pipe: Callable[[], Pipe]) -> None:
    reader, writer = make_pipe()
    os.close(writer)
    loop.watch(reader, loop.stop, events=0)
    loop.run()


def test_a_handler_hears_only_what_it_asked_for(loop: Loop, make_pipe: Callable[[], Pipe]) -> None:
    reader, writer = make_pipe()
    heard: list[str] = []

    def writable() -> None:
        heard.append("writable")
        loop.modify(writer, 0)
        os.write(writer, b"x")

    def readable() -> None:
        heard.append("readable")
        loop.stop()

    loop.watch(writer, writable, EPOLLOUT)
    loop.watch(reader, readable, EPOLLIN)
    loop.run()
    assert heard == ["writable", "readable"]


def test_a_handler_may_forget_itself(loop: Loop, make_pipe: Callable[[], Pipe]) -> None:
    reader, writer = make_pipe()
    os.write(writer, b"never read")
    heard: list[str] = []

    def readable() -> None:
        heard.append("readable")
        loop.forget(reader)
        loop.call(loop.stop)

    loop.watch(reader, readable)
    loop.run()
    assert heard == ["readable"]


def test_whom_an_earlier_handler_of_the_batch_forgot_hears_nothing(loop: Loop, make_pipe: Callable[[], Pipe]) -> None:
    pipes = [make_pipe(), make_pipe()]
    readers = [reader for reader, _ in pipes]
    heard: list[int] = []

    def first_come(me: int, other: int) -> None:
        heard.append(me)
        loop.forget(me)
        loop.forget(other)
        os.close(other)
        loop.call(loop.stop)

    loop.watch(readers[0], lambda: first_come(readers[0], readers[1]))
    loop.watch(readers[1], lambda: first_come(readers[1], readers[0]))
    for _, writer in pipes:
        os.write(writer, b"x")
    loop.run()
    assert len(heard) == 1


def test_a_new_descriptor_does_not_inherit_the_report_of_an_old_one_with_its_number(
    loop: Loop, make_pipe: Callable[[], Pipe]
) -> None:
    pipes = [make_pipe(), make_pipe()]
    heard: list[str] = []
    empty_reader, _writer = make_pipe()

    def replace(me: int, other: int) -> None:
        heard.append("old")
        loop.forget(me)
        loop.forget(other)
        os.dup2(empty_reader, other)
        loop.watch(other, lambda: heard.append("new"))
        loop.call(loop.stop)

    (a, write_a), (b, write_b) = pipes
    loop.watch(a, lambda: replace(a, b))
    loop.watch(b, lambda: replace(b, a))
    os.write(write_a, b"x")
    os.write(write_b, b"x")
    loop.run()
    assert heard == ["old"]


def test_who_lost_interest_during_the_batch_hears_nothing_of_it(loop: Loop, make_pipe: Callable[[], Pipe]) -> None:
    pipes = [make_pipe(), make_pipe()]
    heard: list[int] = []

    def silence(me: int, other: int) -> None:
        heard.append(me)
        loop.modify(me, 0)
        loop.modify(other, 0)
        loop.call(loop.stop)

    (a, write_a), (b, write_b) = pipes
    loop.watch(a, lambda: silence(a, b))
    loop.watch(b, lambda: silence(b, a))
    os.write(write_a, b"x")
    os.write(write_b, b"x")
    loop.run()
    assert len(heard) == 1


def test_timers_fire_by_deadline_and_then_by_age(loop: Loop, clock: FakeClock) -> None:
    fired: list[str] = []
    loop.after(3, lambda: fired.append("three"))
    loop.after(1, lambda: fired.append("one"))
    loop.after(2, lambda: fired.append("two, older"))
    loop.after(2, lambda: fired.append("two, younger"))
    loop.after(3, loop.stop)
    clock.advance(3)
    loop.run()
    assert fired == ["one", "two, older", "two, younger", "three"]


def test_a_timer_does_not_fire_before_its_time(loop: Loop, clock: FakeClock) -> None:
    fired: list[str] = []
    loop.after(5, lambda: fired.append("late"))
    loop.after(1, loop.stop)
    clock.advance(4.999)
    loop.run()
    assert fired == []


def test_a_cancelled_timer_never_fires(loop: Loop, clock: FakeClock) -> None:
    fired: list[str] = []
    before = loop.after(1, lambda: fired.append("before"))
    canceller = loop.after(2, loop.stop)
    by_other = loop.after(2, lambda: fired.append("by other"))
    canceller.handler = by_other.cancel
    loop.after(3, loop.stop)
    before.cancel()
    clock.advance(3)
    loop.run()
    assert fired == []


def test_a_timer_that_renews_itself_at_once_does_not_starve_descriptors(
    loop: Loop, make_pipe: Callable[[], Pipe]
) -> None:
    reader, writer = make_pipe()
    fired: list[str] = []

    def again() -> None:
        assert len(fired) < 100, "the descriptor is never looked at"
        fired.append("again")
        loop.after(0, again)
        os.write(writer, b"x")

    loop.after(0, again)
    loop.watch(reader, loop.stop)
    loop.run()
    assert fired == ["again"]


def test_the_loop_sleeps_until_the_next_timer() -> None:
    loop = Loop()
    loop.after(0.002, loop.stop)
    loop.run()
    loop.close()


@pytest.mark.parametrize("seconds", [3e6, 1e9, 1e300])
def test_a_timer_may_be_further_away_than_the_kernel_can_wait(loop: Loop, seconds: float) -> None:
    loop.after(seconds, lambda: pytest.fail("not in this life"))
    loop.call(loop.stop)
    loop.run()


def test_calls_are_made_in_their_order_on_the_thread_of_the_loop(loop: Loop) -> None:
    made: list[tuple[int, int]] = []

    def other_thread() -> None:
        for number in range(100):
            loop.call(lambda number=number: made.append((number, threading.get_ident())))  # type: ignore[misc]
        loop.call(loop.stop)

    thread = threading.Thread(target=other_thread)
    thread.start()
    loop.run()
    thread.join()
    assert made == [(number, threading.get_ident()) for number in range(100)]


def test_a_call_that_calls_again_does_not_starve_descriptors(loop: Loop, make_pipe: Callable[[], Pipe]) -> None:
    reader, writer = make_pipe()

    def again() -> None:
        loop.call(again)

    again()
    loop.watch(reader, loop.stop)
    os.write(writer, b"x")
    loop.run()


def test_what_is_left_when_the_loop_stops_happens_when_it_runs_again(loop: Loop) -> None:
    made: list[str] = []
    loop.call(loop.stop)
    loop.call(lambda: made.append("left over"))
    loop.call(loop.stop)
    loop.run()
    assert made == []
    loop.run()
    assert made == ["left over"]


def test_stop_before_run_is_not_lost(loop: Loop) -> None:
    loop.stop()
    loop.run()


def test_stop_keeps_the_rest_of_the_batch_and_the_timers_from_running(
    loop: Loop, clock: FakeClock, make_pipe: Callable[[], Pipe]
) -> None:
    heard: list[str] = []
    for _ in range(3):
        reader, writer = make_pipe()
        os.write(writer, b"x")

        def readable() -> None:
            heard.append("readable")
            loop.stop()

        loop.watch(reader, readable)
    loop.after(0, lambda: heard.append("timer"))
    loop.run()
    assert heard == ["readable"]


def test_an_exception_in_a_handler_comes_out_and_costs_no_other_event(loop: Loop) -> None:
    made: list[str] = []

    def broken() -> None:
        raise ZeroDivisionError

    loop.call(broken)
    loop.call(lambda: made.append("after"))
    loop.call(loop.stop)
    with pytest.raises(ZeroDivisionError):
        loop.run()
    loop.run()
    assert made == ["after"]
