"""The engine without instructions behaves as the interface promises, so that what is tested with it is tested."""

import itertools
import threading

import pytest

from hibana.engine.interface import KICKED, SHUTDOWN, Bus, Engine, Reason, Runner
from hibana.memory.guest import GuestMemory
from hibana.testing.engine import FakeEngine, Step
from hibana.testing.fakes import RecordingBus
from hibana.units import MIB


def runner_of(*guest: Step) -> tuple[Runner, RecordingBus]:
    engine: Engine = FakeEngine(guest)
    bus = RecordingBus()
    return engine.create_vm(GuestMemory(MIB), 1, bus).runners[0], bus


def say(byte: int) -> Step:
    return lambda bus: bus.port_write(0x3F8, 1, byte)


def broken(bus: Bus) -> None:
    raise ZeroDivisionError


def test_a_guest_takes_its_steps_on_the_bus() -> None:
    runner, bus = runner_of(say(1), say(2), SHUTDOWN)
    assert runner.run() is SHUTDOWN
    assert [value for *_, value in bus.writes] == [1, 2]


def test_a_guest_without_steps_left_is_halted_until_it_is_kicked() -> None:
    runner, _ = runner_of()
    threading.Timer(0.01, runner.kick).start()
    assert runner.run() is KICKED


def test_a_kick_before_a_run_is_not_lost_and_two_are_one() -> None:
    runner, bus = runner_of(say(1), SHUTDOWN)
    runner.kick()
    runner.kick()
    assert runner.run() is KICKED
    assert bus.writes == []
    assert runner.run() is SHUTDOWN
    assert len(bus.writes) == 1


def test_a_kick_out_of_a_step_comes_before_the_next() -> None:
    runner, bus = runner_of(lambda _: runner.kick(), say(1))
    assert runner.run() is KICKED
    assert bus.writes == []


def test_a_busy_guest_can_be_kicked() -> None:
    memory = GuestMemory(MIB)
    vm = FakeEngine(itertools.repeat(say(1))).create_vm(memory, 1, RecordingBus())
    threading.Timer(0.01, vm.runners[0].kick).start()
    assert vm.runners[0].run() is KICKED


def test_an_exception_in_a_step_is_a_failure_with_its_traceback() -> None:
    runner, _ = runner_of(broken)
    stop = runner.run()
    assert stop.reason is Reason.FAILED
    assert "ZeroDivisionError" in stop.detail


def test_a_vm_has_a_runner_for_each_guest_and_notes_what_is_done_to_it() -> None:
    engine = FakeEngine([SHUTDOWN], [])
    memory = GuestMemory(MIB)
    vm = engine.create_vm(memory, 4, RecordingBus())
    assert (len(vm.vcpus), len(vm.runners)) == (4, 2)
    memory.write(0x1000, b"abc")
    vm.line(4)()
    vm.close()
    assert (vm.written, vm.pulses, vm.closed) == ([(0x1000, 3)], [4], True)
    assert engine.vms == [vm]


def test_states_are_kept() -> None:
    vm = FakeEngine().create_vm(GuestMemory(MIB), 2, RecordingBus())
    vm.vcpus[1].load(vm.vcpus[0].save())
    assert vm.vcpus[1].save() is vm.vcpus[0].save()
    other = FakeEngine().create_vm(GuestMemory(MIB), 1, RecordingBus())
    vm.load(other.save())
    assert vm.save() is other.save()


@pytest.mark.parametrize("guests", [(), ([],)])
def test_there_is_always_a_runner(guests: tuple[list[Step], ...]) -> None:
    engine = FakeEngine(*guests)
    assert engine.missing() is None
    assert len(engine.create_vm(GuestMemory(MIB), 1, RecordingBus()).runners) == 1
