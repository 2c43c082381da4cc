"""The guest that tests play keeps the rules, and sees who breaks them."""

from collections.abc import Callable
from typing import ClassVar

import pytest

from hibana.devices.virtio.device import EVENT_IDX, VirtioDevice
from hibana.devices.virtio.queue import WRITE
from hibana.testing.virtio import CANARY, Driver


class Obedient(VirtioDevice):
    """Does with each chain what the test says."""

    type_id: ClassVar[int] = 42
    queue_sizes: ClassVar[tuple[int, ...]] = (256, 256)

    def __init__(self, act: Callable[[list[tuple[int, int, int, int]]], int]) -> None:
        super().__init__("obedient", EVENT_IDX)
        self._act = act

    def notify(self, index: int) -> None:
        queue = self.queues[index]
        for head, buffers in queue.take():
            queue.push(head, self._act(buffers))
        if queue.publish():
            self.irq.used(index)


def started(act: Callable[[Driver, list[tuple[int, int, int, int]]], int]) -> Driver:
    driver = Driver()
    driver.start(Obedient(lambda buffers: act(driver, buffers)))
    return driver


def test_an_offer_arrives_with_its_content_and_its_room() -> None:
    seen: list[bytes | int] = []

    def act(driver: Driver, buffers: list[tuple[int, int, int, int]]) -> int:
        for addr, size, flags, _ in buffers:
            seen.append(size if flags & WRITE else driver.memory.read(addr, size))
        driver.memory.write(buffers[1][0], b"answer")
        return 6

    driver = started(act)
    head = driver.offer(("r", b"question"), ("w", 10), queue=1)
    driver.kick(queue=1)
    assert seen == [b"question", 10]
    assert driver.completions(queue=1) == [(head, 6)]
    assert driver.completions(queue=1) == []
    assert driver.written(head, queue=1) == [b"answer" + bytes([CANARY]) * 4]
    assert driver.irq.used_count == [0, 1]


def test_the_table_is_used_round_and_round() -> None:
    driver = started(lambda _driver, buffers: len(buffers))
    for _ in range(200):
        driver.offer(("r", b"x"), ("w", 1), ("w", 1))
        driver.kick()
    assert [written for _, written in driver.completions()] == [3] * 200


@pytest.mark.parametrize("beyond", [-1, 16])
def test_a_write_beyond_a_buffer_is_seen(beyond: int) -> None:
    def act(driver: Driver, buffers: list[tuple[int, int, int, int]]) -> int:
        driver.memory.write(buffers[0][0] + beyond, b"!")
        return 0

    driver = started(act)
    driver.place(("r", b"some"))
    driver.offer(("w", 16))
    driver.remember()
    driver.kick()
    assert len(driver.stray_writes()) == 1
    assert driver.unreported_writes() == []


def test_a_write_that_the_engine_did_not_hear_of_is_seen() -> None:
    def act(driver: Driver, buffers: list[tuple[int, int, int, int]]) -> int:
        driver.memory.window(buffers[0][0], 16)[:] = b"0123456789abcdef"
        driver.memory.touched(buffers[0][0], 15)
        return 16

    driver = started(act)
    driver.offer(("w", 16))
    driver.remember()
    driver.kick()
    assert driver.stray_writes() == []
    assert len(driver.unreported_writes()) == 1


def test_a_write_to_what_is_only_to_be_read_is_seen() -> None:
    def act(driver: Driver, buffers: list[tuple[int, int, int, int]]) -> int:
        driver.memory.write(buffers[0][0], b"!")
        return 0

    driver = started(act)
    driver.offer(("r", b"some"))
    driver.remember()
    driver.kick()
    assert len(driver.stray_writes()) == 1


def test_the_events_of_both_sides_are_shown() -> None:
    driver = started(lambda _driver, _buffers: 0)
    driver.rings[0].want_interrupt_after(1)
    for _ in range(2):
        driver.offer(("w", 1))
        driver.kick()
        driver.queues[0].arm()
    assert driver.irq.used_count == [1, 0]
    assert driver.rings[0].wants_notification_at == 2
    assert driver.rings[0].used_index == 2
