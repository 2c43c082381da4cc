"""Devices on the loop's thread: who calls them, what waits while they rest, and how a bug in one ends."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock

import pytest

from hibana.bus.loop import Loop
from hibana.config.entropy import EntropyDeviceConfig
from hibana.devices.virtio import mmio
from hibana.observe.metrics_groups import METRICS
from hibana.vmm.device_loop import DeviceLoop
from hibana.vmm.machine import EXIT_GENERIC, Machine
from tests.unit.boot.images import close_files
from tests.unit.vmm.conftest import Workshop
from tests.unit.vmm.fake_engine import FakeEngineForLoop

FIRST = 0xC0001000
STATUS = FIRST + mmio.STATUS
NOTIFY = FIRST + mmio.QUEUE_NOTIFY
RINGS = 0x10000
BUFFER = 0x20000


class Vmm:
    """A running microVM with an entropy device; the test is its driver, and turns the loop."""

    def __init__(self, folder: Path) -> None:
        self.engine = FakeEngineForLoop()
        self.workshop = Workshop(folder, self.engine)
        self.workshop.resources.put_entropy(EntropyDeviceConfig())
        self.machine: Machine = self.workshop.run()
        self.settle()

    def settle(self) -> None:
        """Let the loop do what it can do now."""
        for _ in range(5):
            self.workshop.loop.after(0, self.workshop.loop.stop)
            self.workshop.loop.run()

    def start_driver(self) -> None:
        """Set up queue 0 with a buffer of 64 bytes, which is offered once."""
        memory = self.engine.vm.memory
        memory.write(RINGS, BUFFER.to_bytes(8, "little") + b"\x40\0\0\0\x02\0\0\0")
        write = self.engine.vm.bus.mmio_write
        for register, value in (
            *((mmio.STATUS, 1), (mmio.STATUS, 3), (mmio.DRIVER_FEATURES_SEL, 1), (mmio.DRIVER_FEATURES, 1)),
            *((mmio.STATUS, 11), (mmio.QUEUE_NUM, 8), (mmio.QUEUE_DESC_LOW, RINGS)),
            *((mmio.QUEUE_DRIVER_LOW, RINGS + 0x1000), (mmio.QUEUE_DEVICE_LOW, RINGS + 0x2000)),
            *((mmio.QUEUE_READY, 1), (mmio.STATUS, 15)),
        ):
            write(FIRST + register, 4, value)
        memory.write(RINGS + 0x1002, b"\1\0")

    def ring(self) -> None:
        """Notify the device as the kernel does."""
        self.engine.vm.ring(NOTIFY, 0)

    @property
    def answers(self) -> int:
        """How many chains have come back."""
        return int.from_bytes(self.engine.vm.memory.read(RINGS + 0x2002, 2), "little")


@pytest.fixture
def vmm(tmp_path: Path) -> Iterator[Vmm]:
    vmm = Vmm(tmp_path)
    yield vmm
    vmm.workshop.close()
    close_files()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def test_each_queue_has_a_doorbell_at_its_notification_register(vmm: Vmm) -> None:
    assert vmm.engine.vm.doorbells.keys() == {(NOTIFY, 0)}


def test_a_doorbell_brings_the_device_to_its_queue(vmm: Vmm) -> None:
    vmm.start_driver()
    vmm.ring()
    assert vmm.answers == 0
    vmm.settle()
    assert vmm.answers == 1
    assert vmm.engine.vm.pulses == [5]


def test_a_doorbell_that_rings_while_the_microvm_is_paused_is_answered_afterwards(vmm: Vmm) -> None:
    vmm.start_driver()
    vmm.machine.pause()
    vmm.ring()
    vmm.settle()
    vmm.settle()
    assert vmm.answers == 0
    vmm.machine.resume()
    assert vmm.answers == 1


def test_a_doorbell_rings_again_after_it_was_answered(vmm: Vmm) -> None:
    vmm.start_driver()
    for count in (1, 2, 3):
        vmm.engine.vm.memory.write(RINGS + 0x1002, bytes([count, 0]))
        vmm.ring()
        vmm.settle()
        assert vmm.answers == count


def test_an_access_waits_while_the_loop_is_with_a_device(vmm: Vmm) -> None:
    inside, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def work() -> None:
        inside.set()
        go_on.wait(60)
        order.append("the loop's work")

    def guest() -> None:
        inside.wait(60)
        threading.Timer(0.05, go_on.set).start()
        assert vmm.engine.vm.bus_lock
        with vmm.engine.vm.bus_lock:  # as a runner does
            vmm.engine.vm.bus.mmio_read(FIRST, 4)
        order.append("the guest's access")

    cpu = threading.Thread(target=guest)
    cpu.start()
    vmm.machine.visit_devices(work)
    cpu.join()
    assert order == ["the loop's work", "the guest's access"]


def test_what_is_posted_from_within_a_device_comes_later(vmm: Vmm) -> None:
    done: list[str] = []

    def work() -> None:
        vmm.machine.post_to_devices(lambda: done.append("posted"))
        done.append("work")

    vmm.machine.visit_devices(work)
    assert done == ["work"]
    vmm.settle()
    assert done == ["work", "posted"]


def test_the_api_reaches_resting_devices(vmm: Vmm) -> None:
    vmm.machine.pause()
    assert vmm.machine.ask_devices(threading.current_thread) is threading.main_thread()
    with pytest.raises(ZeroDivisionError):
        vmm.machine.ask_devices(lambda: 1 // 0)


@pytest.mark.parametrize("how", ["visited", "posted", "kept"])
def test_a_bug_in_a_device_that_the_loop_has_called_ends_the_microvm(
    how: str, vmm: Vmm, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(METRICS.vcpu, "failures", 0)

    def bug() -> None:
        raise ZeroDivisionError("in a device")

    if how == "kept":
        vmm.machine.pause()
    deliver: Callable[[Callable[[], None]], None] = (
        vmm.machine.visit_devices if how != "posted" else vmm.machine.post_to_devices
    )
    deliver(bug)
    if how == "kept":
        assert METRICS.vcpu.failures == 0
        vmm.machine.resume()
    vmm.settle()
    assert METRICS.vcpu.failures == 1
    assert vmm.machine.exit_code == EXIT_GENERIC
    assert "Failure during vcpu run: Traceback" in capfd.readouterr().out


def test_a_question_is_answered_at_once_and_under_the_lock(loop: Loop) -> None:
    lock = Lock()
    assert DeviceLoop(loop, lock).ask(lock.locked) is True
    assert not lock.locked()
