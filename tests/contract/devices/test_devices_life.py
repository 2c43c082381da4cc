"""From power-on to reset and back: what every virtio device does, whatever it is for."""

from typing import Final, NamedTuple

import pytest

from hibana.devices.virtio import mmio
from hibana.devices.virtio.device import EVENT_IDX, VERSION_1
from tests.contract.devices.devices import Case
from tests.contract.devices.guest import MEMORY, SIZE, Guest, Rings

RUNNING: Final = 15
BROKEN: Final = RUNNING | mmio.DEVICE_NEEDS_RESET

INDIRECT_DESC: Final = 1 << 28
RING_PACKED: Final = 1 << 34
NEVER_OFFERED: Final = INDIRECT_DESC | RING_PACKED | 1 << 33 | sum(1 << bit for bit in range(36, 42))


def answer_everything(case: Case, guest: Guest) -> None:
    """Ask everything a good driver asks, one after the other, and see it answered."""
    for queue, offers in case.requests:
        head = guest.offer(queue, offers)
        guest.knock(queue)
        case.host_event()
        assert guest.completions(queue) == [head], offers
    assert not guest.needs_reset


def test_a_driver_finds_a_modern_device(case: Case, guest: Guest) -> None:
    assert guest.read(mmio.MAGIC_VALUE) == mmio.MAGIC
    assert guest.read(mmio.VERSION) == 2
    assert guest.read(mmio.DEVICE_ID) == case.device.type_id
    assert case.device.features & VERSION_1
    assert not case.device.features & NEVER_OFFERED


def test_each_queue_has_256_entries(guest: Guest) -> None:
    for index in range(len(guest.rings)):
        guest.write(mmio.QUEUE_SEL, index)
        assert guest.read(mmio.QUEUE_NUM_MAX) == 256


@pytest.mark.parametrize("refused", [0, EVENT_IDX, (1 << 64) - 1], ids=["all features", "no EVENT_IDX", "none"])
def test_requests_are_answered_with_any_features(case: Case, guest: Guest, refused: int) -> None:
    guest.start(refused)
    assert case.device.acked == case.device.features & ~refused
    answer_everything(case, guest)
    assert guest.irq.count
    assert guest.read(mmio.INTERRUPT_STATUS) == mmio.USED_BUFFER
    assert guest.stray_writes() == []
    assert guest.untold_writes() == []


def test_the_rings_may_go_round(case: Case, guest: Guest) -> None:
    guest.start()
    for _ in range(2 * SIZE):
        answer_everything(case, guest)


def test_requests_made_before_driver_ok_are_found(case: Case, guest: Guest) -> None:
    guest.negotiate()
    for index in range(len(guest.rings)):
        rings = Rings.at(0x1000 * (1 + index))
        guest.store(rings.descriptors, bytes(0x1000))
        guest.set_up(index, rings)
    queue, offers = case.requests[0]
    head = guest.offer(queue, offers)
    guest.knock(queue)
    assert guest.completions(queue) == []
    guest.say_driver_ok()
    case.host_event()
    assert guest.completions(queue) == [head]


def test_a_reset_device_is_as_new(case: Case, guest: Guest) -> None:
    for _ in range(3):
        guest.start()
        answer_everything(case, guest)
        guest.reset()
        assert guest.status == 0
        assert (case.device.active, case.device.acked) == (False, 0)


def test_a_reset_forgets_requests_that_wait(case: Case, guest: Guest) -> None:
    guest.start()
    for queue, offers in case.requests:
        guest.offer(queue, offers)
        guest.knock(queue)
    guest.reset()
    guest.start()
    case.host_event()
    assert [guest.completions(queue) for queue in range(len(guest.rings))] == [[]] * len(guest.rings)
    answer_everything(case, guest)


def test_what_happens_outside_before_activation_is_harmless(case: Case, guest: Guest) -> None:
    case.host_event()
    guest.negotiate()
    case.host_event()
    guest.reset()
    guest.start()
    answer_everything(case, guest)


class Setup(NamedTuple):
    """What a driver says about a queue."""

    rings: Rings | None = None
    size: int = SIZE
    ready: int = 1


WRONG: Final = {
    "no power of two": Setup(size=12),
    "no entries": Setup(size=0),
    "too many entries": Setup(size=512),
    "not ready": Setup(ready=0),
    "descriptors not aligned": Setup(Rings(0x1008, 0x2000, 0x3000)),
    "available ring not aligned": Setup(Rings(0x1000, 0x2001, 0x3000)),
    "used ring not aligned": Setup(Rings(0x1000, 0x2000, 0x3002)),
    "descriptors beyond memory": Setup(Rings(MEMORY - 16, 0x2000, 0x3000)),
    "available ring beyond memory": Setup(Rings(0x1000, MEMORY - 2, 0x3000)),
    "used ring beyond memory": Setup(Rings(0x1000, 0x2000, 1 << 63)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_queue_set_up_wrongly_makes_the_device_need_a_reset(case: Case, guest: Guest, wrong: str) -> None:
    for bad in range(len(guest.rings)):
        guest.negotiate()
        for index in range(len(guest.rings)):
            rings, size, ready = WRONG[wrong] if index == bad else Setup()
            guest.set_up(index, rings or Rings.at(0x8000 + 0x1000 * index), size, ready)
        guest.say_driver_ok()
        assert guest.status == BROKEN
        assert guest.read(mmio.INTERRUPT_STATUS) == mmio.CONFIGURATION_CHANGE
        guest.knock(0)
        case.host_event()
        guest.reset()
        assert guest.status == 0
    guest.start()
    answer_everything(case, guest)


def test_an_index_that_ran_away_makes_the_device_need_a_reset(case: Case, guest: Guest) -> None:
    for queue in range(len(guest.rings)):
        guest.start()
        guest.set_index(queue, SIZE + 1)
        guest.knock(queue)
        case.host_event()
        assert guest.status == BROKEN
        assert guest.read(mmio.INTERRUPT_STATUS) & mmio.CONFIGURATION_CHANGE
        guest.knock(queue)
        case.host_event()
        guest.reset()
    guest.start()
    answer_everything(case, guest)
