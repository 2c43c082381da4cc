"""The registers in front of a virtio device, as a driver finds them."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.devices.virtio import mmio
from hibana.devices.virtio.device import EVENT_IDX, VERSION_1, Interrupt, VirtioDevice
from hibana.devices.virtio.mmio import MmioTransport
from hibana.devices.virtio.queue import Queue
from hibana.errors import GuestFault, VmmError
from hibana.memory.guest import GuestMemory
from hibana.observe.metrics_groups import METRICS
from hibana.testing.fakes import FakeIrq
from hibana.testing.virtio import Ring
from hibana.units import MIB, PAGE

U32: Final = 0xFFFFFFFF
READY_TO_SET_UP: Final = 11
RUNNING: Final = 15
CONFIG: Final = bytes(range(1, 13))


class HostRefuses(VmmError):
    text = "no such tap"


class Recorder(VirtioDevice):
    """A device with two queues that does nothing and remembers everything."""

    type_id: ClassVar[int] = 42
    queue_sizes: ClassVar[tuple[int, ...]] = (256, 64)

    def __init__(self) -> None:
        super().__init__("recorder", EVENT_IDX | 1 << 5, CONFIG)
        self.notified: list[int] = []
        self.config_writes: list[tuple[int, int, int]] = []
        self.failures: list[str] = []
        self.resets = 0
        self.can_reset = True
        self.host_refuses = False
        self.fault_on_notify = False

    def activate(self, memory: GuestMemory, queues: Sequence[Queue], irq: Interrupt, acked: int) -> None:
        super().activate(memory, queues, irq, acked)
        if self.host_refuses:
            raise HostRefuses

    def notify(self, index: int) -> None:
        self.notified.append(index)
        if self.fault_on_notify:
            raise GuestFault("the driver is mad")

    def reset(self) -> bool:
        self.resets += 1
        return super().reset() if self.can_reset else False

    def write_config(self, offset: int, size: int, value: int) -> None:
        self.config_writes.append((offset, size, value))

    def count_activation_failure(self) -> None:
        self.failures.append("activation")

    def count_event_failure(self) -> None:
        self.failures.append("event")


class Machine:
    """A recorder behind a transport, and the guest in front of it."""

    def __init__(self) -> None:
        self.memory = GuestMemory(1 * MIB)
        self.device = Recorder()
        self.irq = FakeIrq()
        self.transport = MmioTransport(self.device, self.memory, self.irq)

    def read(self, register: int) -> int:
        return self.transport.read(register, 4)

    def write(self, register: int, value: int) -> None:
        self.transport.write(register, 4, value)

    @property
    def status(self) -> int:
        return self.read(mmio.STATUS)

    def climb(self, *statuses: int) -> None:
        for status in statuses:
            self.write(mmio.STATUS, status)

    def set_up_queue(self, index: int, size: int = 8, ready: int = 1) -> Ring:
        ring = Ring(self.memory, 0x10000 + 0x4000 * index, size)
        self.write(mmio.QUEUE_SEL, index)
        self.write(mmio.QUEUE_NUM, size)
        for low, addr in (
            (mmio.QUEUE_DESC_LOW, ring.descriptors_addr),
            (mmio.QUEUE_DRIVER_LOW, ring.avail_addr),
            (mmio.QUEUE_DEVICE_LOW, ring.used_addr),
        ):
            self.write(low, addr & U32)
            self.write(low + 4, addr >> 32)
        self.write(mmio.QUEUE_READY, ready)
        return ring

    def start(self) -> None:
        self.climb(1, 3, READY_TO_SET_UP)
        self.set_up_queue(0)
        self.set_up_queue(1)
        self.climb(RUNNING)


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.transport.write(mmio.STATUS, 4, 0)
    machine.memory.close()


# --- identity ---------------------------------------------------------------------------------------------------------


def test_a_driver_recognises_the_device(machine: Machine) -> None:
    assert machine.read(mmio.MAGIC_VALUE).to_bytes(4, "little") == b"virt"
    assert machine.read(mmio.VERSION) == 2
    assert machine.read(mmio.DEVICE_ID) == 42
    assert machine.read(mmio.VENDOR_ID) == 0


@pytest.mark.parametrize("size", [1, 2, 8])
def test_registers_answer_to_four_bytes_only(machine: Machine, size: int) -> None:
    assert machine.transport.read(mmio.MAGIC_VALUE, size) == 0
    machine.transport.write(mmio.STATUS, size, 1)
    assert machine.status == 0


@given(offset=st.integers(0, PAGE - 1), size=st.sampled_from([1, 2, 4, 8]), value=st.integers(0, (1 << 64) - 1))
def test_every_access_to_the_page_is_survived(offset: int, size: int, value: int) -> None:
    machine = Machine()
    machine.climb(1, 3)
    machine.transport.write(offset, size, value & (1 << 8 * size) - 1)
    assert 0 <= machine.transport.read(offset, size) < 1 << 8 * size


# --- features ---------------------------------------------------------------------------------------------------------


def test_features_are_offered_in_pages_of_32_bits(machine: Machine) -> None:
    offered = {}
    for page in (0, 1, 2, U32):
        machine.write(mmio.DEVICE_FEATURES_SEL, page)
        offered[page] = machine.read(mmio.DEVICE_FEATURES)
    assert offered == {0: EVENT_IDX | 1 << 5, 1: VERSION_1 >> 32, 2: 0, U32: 0}


def accept(machine: Machine, page: int, bits: int) -> None:
    machine.write(mmio.DRIVER_FEATURES_SEL, page)
    machine.write(mmio.DRIVER_FEATURES, bits)


def test_the_device_learns_what_was_accepted_of_what_it_offered(machine: Machine) -> None:
    machine.climb(1, 3)
    accept(machine, 0, 1 << 5 | 1 << 6)  # bit 6 was not offered
    accept(machine, 1, U32)
    accept(machine, 2, U32)
    machine.climb(READY_TO_SET_UP)
    machine.set_up_queue(0)
    machine.set_up_queue(1)
    machine.climb(RUNNING)
    assert machine.device.acked == VERSION_1 | 1 << 5


def test_what_was_accepted_stays_accepted(machine: Machine) -> None:
    machine.climb(1, 3)
    accept(machine, 0, 1 << 5)
    accept(machine, 0, EVENT_IDX)
    machine.climb(READY_TO_SET_UP)
    machine.set_up_queue(0)
    machine.set_up_queue(1)
    machine.climb(RUNNING)
    assert machine.device.acked == EVENT_IDX | 1 << 5


@pytest.mark.parametrize("statuses", [(), (1,), (1, 3, 11), (1, 3, 128)])
def test_features_are_accepted_between_driver_and_features_ok(machine: Machine, statuses: tuple[int, ...]) -> None:
    machine.climb(*statuses)
    accept(machine, 0, 1 << 5)
    machine.climb(0)
    machine.start()
    assert machine.device.acked == 0


# --- queues -----------------------------------------------------------------------------------------------------------


def test_each_queue_has_its_maximum_and_there_is_no_third(machine: Machine) -> None:
    sizes = []
    for index in (0, 1, 2, U32):
        machine.write(mmio.QUEUE_SEL, index)
        sizes.append(machine.read(mmio.QUEUE_NUM_MAX))
    assert sizes == [256, 64, 0, 0]
    assert machine.read(mmio.QUEUE_READY) == 0


def test_a_queue_is_set_up_between_features_ok_and_driver_ok(machine: Machine) -> None:
    for statuses in ((), (1,), (3,)):
        machine.climb(*statuses)
        machine.set_up_queue(0)
        assert machine.read(mmio.QUEUE_READY) == 0
    machine.climb(READY_TO_SET_UP)
    machine.set_up_queue(0)
    assert machine.read(mmio.QUEUE_READY) == 1
    machine.set_up_queue(1)
    machine.climb(RUNNING)
    machine.write(mmio.QUEUE_READY, 0)
    assert machine.read(mmio.QUEUE_READY) == 1


def test_only_one_means_ready(machine: Machine) -> None:
    machine.climb(1, 3, READY_TO_SET_UP)
    for value in (1, 0, 2, U32):
        machine.write(mmio.QUEUE_READY, value)
        assert machine.read(mmio.QUEUE_READY) == (value == 1)


def test_addresses_come_in_two_halves_in_any_order(machine: Machine) -> None:
    machine.climb(1, 3, READY_TO_SET_UP)
    machine.set_up_queue(0)
    machine.set_up_queue(1)
    machine.write(mmio.QUEUE_DESC_HIGH, 1)
    machine.climb(RUNNING)
    assert machine.status == RUNNING | mmio.DEVICE_NEEDS_RESET, "4 GiB is outside of 1 MiB"
    machine.climb(0, 1, 3, READY_TO_SET_UP)
    machine.set_up_queue(0)
    machine.set_up_queue(1)
    machine.write(mmio.QUEUE_DESC_HIGH, 1)
    machine.write(mmio.QUEUE_DESC_HIGH, 0)
    machine.climb(RUNNING)
    assert machine.status == RUNNING


def test_the_device_gets_the_queues_the_driver_has_set_up(machine: Machine) -> None:
    machine.start()
    queue, other = machine.device.queues
    assert (queue.size, queue.max_size, other.size, other.max_size) == (8, 256, 8, 64)
    assert (queue.descriptors_addr, other.descriptors_addr) == (0x10000, 0x14000)


# --- status -----------------------------------------------------------------------------------------------------------


def test_the_status_climbs_one_step_at_a_time(machine: Machine) -> None:
    machine.climb(1, 3, READY_TO_SET_UP)
    assert machine.status == READY_TO_SET_UP
    machine.start()
    assert machine.status == RUNNING
    assert machine.device.active


@given(steps=st.lists(st.sampled_from([1, 2, 3, 4, 7, 8, 11, 15, 64, 79]), max_size=12))
def test_the_status_is_always_one_of_the_steps(steps: list[int]) -> None:
    machine = Machine()
    ladder = [0, 1, 3, READY_TO_SET_UP, RUNNING]
    expected = 0
    for step in steps:
        if expected < 4 and ladder[expected + 1] == step:
            expected += 1
        machine.climb(step)
        # Without queues DRIVER_OK cannot succeed; then only a reset helps.
        assert machine.status == (ladder[expected] if expected < 4 else RUNNING | mmio.DEVICE_NEEDS_RESET)


def test_a_driver_that_gave_up_is_believed(machine: Machine) -> None:
    machine.climb(1, 3, 3 | mmio.FAILED)
    assert machine.status == 3 | mmio.FAILED
    machine.climb(READY_TO_SET_UP)
    assert machine.status == 3 | mmio.FAILED
    machine.climb(0)
    assert machine.status == 0


def test_a_reset_starts_all_over(machine: Machine) -> None:
    machine.start()
    machine.write(mmio.DEVICE_FEATURES_SEL, 1)
    machine.device.irq.used(0)
    machine.climb(0)
    assert not machine.device.active
    assert machine.device.acked == 0
    assert (machine.status, machine.read(mmio.INTERRUPT_STATUS), machine.read(mmio.QUEUE_READY)) == (0, 0, 0)
    assert machine.read(mmio.QUEUE_NUM_MAX) == 256, "queue 0 is selected"
    assert machine.read(mmio.DEVICE_FEATURES) == EVENT_IDX | 1 << 5, "page 0 is selected"
    machine.start()
    assert machine.device.active


def test_a_reset_of_what_has_not_begun_asks_nobody(machine: Machine) -> None:
    machine.climb(0)
    assert machine.device.resets == 0
    machine.climb(1, 0)
    assert machine.device.resets == 1


def test_a_device_that_cannot_be_reset_has_failed(machine: Machine) -> None:
    machine.start()
    machine.device.can_reset = False
    machine.climb(0)
    assert machine.status == RUNNING | mmio.FAILED
    machine.device.can_reset = True


# --- activation -------------------------------------------------------------------------------------------------------


def test_activation_looks_into_every_queue(machine: Machine) -> None:
    """A driver may have filled them before DRIVER_OK, when it must not notify."""
    machine.start()
    assert machine.device.notified == [0, 1]


def test_a_queue_that_was_not_set_up_makes_activation_fail(machine: Machine) -> None:
    machine.climb(1, 3, READY_TO_SET_UP)
    machine.set_up_queue(0)
    machine.climb(RUNNING)
    assert machine.status == RUNNING | mmio.DEVICE_NEEDS_RESET
    assert not machine.device.active
    assert machine.device.failures == ["activation"]
    assert machine.read(mmio.INTERRUPT_STATUS) == mmio.CONFIGURATION_CHANGE
    assert machine.irq.count == 1


def test_a_host_that_refuses_makes_activation_fail(machine: Machine) -> None:
    machine.device.host_refuses = True
    machine.start()
    assert machine.status == RUNNING | mmio.DEVICE_NEEDS_RESET
    assert not machine.device.active
    machine.device.host_refuses = False
    machine.climb(0)
    machine.start()
    assert machine.status == RUNNING


# --- notification and faults ------------------------------------------------------------------------------------------


def test_a_notification_reaches_its_queue(machine: Machine) -> None:
    machine.start()
    machine.device.notified.clear()
    machine.write(mmio.QUEUE_NOTIFY, 1)
    machine.write(mmio.QUEUE_NOTIFY, 0)
    for nobody in (2, 0x10000, U32):
        machine.write(mmio.QUEUE_NOTIFY, nobody)
    assert machine.device.notified == [1, 0]


def test_a_notification_before_activation_is_ignored(machine: Machine) -> None:
    machine.climb(1, 3, READY_TO_SET_UP)
    machine.write(mmio.QUEUE_NOTIFY, 0)
    assert machine.device.notified == []


def test_a_fault_of_the_guest_ends_in_needs_reset(machine: Machine) -> None:
    machine.start()
    machine.device.fault_on_notify = True
    machine.write(mmio.QUEUE_NOTIFY, 0)
    assert machine.status == RUNNING | mmio.DEVICE_NEEDS_RESET
    assert machine.read(mmio.INTERRUPT_STATUS) == mmio.CONFIGURATION_CHANGE
    assert machine.device.failures == ["event"]
    machine.write(mmio.QUEUE_NOTIFY, 0)
    assert machine.device.notified == [0, 1, 0], "a broken device is left alone"


def test_a_fault_in_the_first_queue_spares_the_device_the_second(machine: Machine) -> None:
    machine.device.fault_on_notify = True
    machine.start()
    assert machine.device.notified == [0]
    assert machine.status == RUNNING | mmio.DEVICE_NEEDS_RESET


def test_a_fault_in_work_that_the_host_started_ends_there_too(machine: Machine) -> None:
    def work() -> None:
        raise GuestFault("the driver is mad")

    guarded = machine.device.guarded(work)
    guarded()
    assert machine.status == 0, "nobody is there yet"
    machine.start()
    guarded()
    assert machine.status == RUNNING | mmio.DEVICE_NEEDS_RESET


def test_after_a_reset_a_broken_device_works_again(machine: Machine) -> None:
    machine.start()
    machine.device.fault_on_notify = True
    machine.write(mmio.QUEUE_NOTIFY, 0)
    machine.device.fault_on_notify = False
    machine.climb(0)
    machine.start()
    assert machine.status == RUNNING
    assert machine.device.active


# --- interrupts -------------------------------------------------------------------------------------------------------


def test_interrupts_have_two_causes_and_are_acknowledged_one_by_one(machine: Machine) -> None:
    machine.start()
    METRICS.interrupts.emit()
    machine.device.irq.used(1)
    machine.device.irq.config()
    assert machine.irq.count == 2
    assert METRICS.interrupts.emit()["triggers"] == 2
    assert machine.read(mmio.INTERRUPT_STATUS) == 3
    machine.write(mmio.INTERRUPT_ACK, mmio.USED_BUFFER)
    assert machine.read(mmio.INTERRUPT_STATUS) == mmio.CONFIGURATION_CHANGE
    machine.write(mmio.INTERRUPT_ACK, U32)
    assert machine.read(mmio.INTERRUPT_STATUS) == 0


def test_only_a_running_driver_acknowledges(machine: Machine) -> None:
    machine.climb(1, 3, READY_TO_SET_UP)
    machine.transport.used(0)
    machine.write(mmio.INTERRUPT_ACK, mmio.USED_BUFFER)
    assert machine.read(mmio.INTERRUPT_STATUS) == mmio.USED_BUFFER


# --- configuration ----------------------------------------------------------------------------------------------------


@given(offset=st.integers(0, PAGE - 0x101), size=st.sampled_from([1, 2, 4, 8]))
def test_the_configuration_is_read_in_any_size_and_followed_by_zeros(offset: int, size: int) -> None:
    machine = Machine()
    expected = (CONFIG + bytes(PAGE))[offset : offset + size]
    assert machine.transport.read(mmio.CONFIG + offset, size).to_bytes(size, "little") == expected


@pytest.mark.parametrize(
    ("statuses", "allowed"), [((), False), ((1,), False), ((1, 3), True), ((1, 3, 11), True), ((1, 3, 128), False)]
)
def test_the_configuration_is_written_by_a_driver_that_is_there(
    machine: Machine, statuses: tuple[int, ...], allowed: bool
) -> None:
    machine.climb(*statuses)
    machine.transport.write(mmio.CONFIG + 4, 2, 0xBEEF)
    assert machine.device.config_writes == ([(4, 2, 0xBEEF)] if allowed else [])


def test_a_broken_device_takes_no_configuration(machine: Machine) -> None:
    machine.start()
    machine.device.fault_on_notify = True
    machine.write(mmio.QUEUE_NOTIFY, 0)
    machine.transport.write(mmio.CONFIG, 4, 1)
    assert machine.device.config_writes == []


def test_the_generation_tells_that_the_configuration_has_changed(machine: Machine) -> None:
    machine.start()
    assert machine.read(mmio.CONFIG_GENERATION) == 0
    machine.device.irq.config()
    assert machine.read(mmio.CONFIG_GENERATION) == 1
    machine.climb(0)
    assert machine.read(mmio.CONFIG_GENERATION) == 1, "a reset changes nothing in it"
