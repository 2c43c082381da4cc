"""What every virtio device is, before it is any device in particular."""

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.devices.virtio.device import EVENT_IDX, VERSION_1, VirtioDevice
from hibana.errors import GuestFault
from hibana.testing.virtio import Driver


class Plain(VirtioDevice):
    type_id: ClassVar[int] = 42
    queue_sizes: ClassVar[tuple[int, ...]] = (256, 256)

    def __init__(self, config: bytes = b"") -> None:
        super().__init__("plain", EVENT_IDX, config)
        self.refused = 0

    def count_config_failure(self) -> None:
        self.refused += 1


def test_every_device_is_a_modern_one() -> None:
    assert Plain().features == VERSION_1 | EVENT_IDX


def test_what_a_device_works_with_arrives_together_and_leaves_together() -> None:
    device, driver = Plain(), Driver()
    assert not device.active
    driver.start(device, refused=EVENT_IDX)
    assert device.active
    assert device.memory is driver.memory
    assert list(device.queues) == driver.queues
    assert device.irq is driver.irq
    assert device.acked == VERSION_1
    assert device.reset()
    assert not device.active
    assert list(device.queues) == []
    assert device.acked == 0


@given(config=st.binary(max_size=20), offset=st.integers(0, 0xEFF), size=st.sampled_from([1, 2, 4, 8]))
def test_the_configuration_ends_in_zeros(config: bytes, offset: int, size: int) -> None:
    expected = (config + bytes(0x1000))[offset : offset + size]
    assert Plain(config).read_config(offset, size) == int.from_bytes(expected, "little")


def test_the_configuration_cannot_be_written_unless_a_device_says_so() -> None:
    device = Plain(b"fixed")
    device.write_config(0, 4, 0)
    assert device.read_config(0, 4) == int.from_bytes(b"fixe", "little")
    assert device.refused == 1


def test_guarded_work_is_done_while_the_device_is_active() -> None:
    device, driver, done = Plain(), Driver(), list[int]()
    work = device.guarded(lambda: done.append(1))
    work()
    assert done == []
    driver.start(device)
    work()
    assert done == [1]
    device.reset()
    work()
    assert done == [1]


def test_a_fault_in_guarded_work_is_told_to_the_transport() -> None:
    def work() -> None:
        raise GuestFault("mad")

    device, driver = Plain(), Driver()
    driver.start(device)
    device.guarded(work)()
    assert str(driver.irq.fault) == "mad"
    assert not device.active


def test_a_bug_of_ours_is_not_taken_for_the_guests_fault() -> None:
    def work() -> None:
        raise ZeroDivisionError

    device, driver = Plain(), Driver()
    driver.start(device)
    with pytest.raises(ZeroDivisionError):
        device.guarded(work)()
