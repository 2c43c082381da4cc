"""Drivers that fill a queue as fast as it is emptied: the guest runs on while its device works, and may never stop."""

from collections.abc import Callable
from struct import pack
from typing import Final

from hibana.devices.rate_limiter import Limit, RateLimiter
from hibana.devices.virtio.block import Block, Request
from hibana.devices.virtio.block_request import IN
from hibana.devices.virtio.net import RX, TX
from hibana.devices.virtio.rng import Rng
from hibana.devices.virtio.turn import ROUNDS, Turn
from hibana.observe.metrics_groups import METRICS
from hibana.testing.disk import MemoryDisk
from hibana.testing.fakes import FakeTimers
from hibana.testing.virtio import Driver
from tests.unit.devices.virtio.network_card import Card, ethernet

ENDLESS: Final = 20 * ROUNDS


class Flood:
    """Makes one chain available again and again, as long as it is asked to."""

    def __init__(self, driver: Driver, head: int, queue: int = 0) -> None:
        self._ring = driver.rings[queue]
        self._head = head
        self.times = 0

    def rise(self) -> None:
        """Make the chain available once more, unless it is enough."""
        self.times += 1
        if self.times < ENDLESS:
            self._ring.publish(self._head)


def ends_after_turns(flood: Flood, kick: Callable[[], None], timers: FakeTimers) -> None:
    """Expect that a device works on a flood for a while, and after others goes on where it was, to the end."""
    kick()
    first = flood.times
    assert 0 < first < ENDLESS
    timers.advance(0)
    assert first < flood.times
    for _ in range(ENDLESS):
        timers.advance(0)
    assert flood.times >= ENDLESS
    assert timers.delays() == []


def test_the_entropy_device_lets_others_have_their_turn() -> None:
    timers, driver = FakeTimers(), Driver()

    def source(count: int) -> bytes:
        flood.rise()
        return bytes(count)

    driver.start(Rng(RateLimiter(None, None, timers), source))
    flood = Flood(driver, driver.offer(("w", 8)))
    ends_after_turns(flood, driver.kick, timers)


class RisingDisk(MemoryDisk):
    """A disk whose reads make the flood rise."""

    flood: Flood

    def read(self, offset: int, window: memoryview, request: Request) -> int:
        self.flood.rise()
        return super().read(offset, window, request)


def drive(room: int | None = None) -> tuple[FakeTimers, Driver, RisingDisk, Block]:
    METRICS.block.pop("drive", None)
    timers, driver, disk = FakeTimers(), Driver(), RisingDisk(bytes(1024), room)
    block = Block("drive", disk, RateLimiter(None, None, timers))
    driver.start(block)
    head = driver.offer(("r", pack("<IIQ", IN, 0, 0)), ("w", 512), ("w", 1))
    disk.flood = Flood(driver, head)
    return timers, driver, disk, block


def test_a_drive_lets_others_have_their_turn() -> None:
    timers, driver, disk, _ = drive()
    ends_after_turns(disk.flood, driver.kick, timers)


def test_a_drive_whose_disk_is_busy_and_has_room_again_does_so_too() -> None:
    timers, driver, disk, _ = drive(room=1)
    disk.hurry = 100 * ENDLESS
    ends_after_turns(disk.flood, driver.kick, timers)


def test_waiting_for_a_drive_to_rest_comes_to_an_end() -> None:
    timers, driver, disk, block = drive(room=1)
    disk.flood.rise()
    driver.kick()
    block.drain()
    assert disk.flood.times < ENDLESS
    assert disk.waiting == []
    for _ in range(ENDLESS):
        timers.advance(0)
        block.drain()
    assert disk.flood.times >= ENDLESS, "what came meanwhile is not forgotten"


def test_a_network_card_that_sends_lets_others_have_their_turn() -> None:
    card = Card().start()
    flood = Flood(card.driver, card.driver.offer(("r", ethernet()), queue=TX), TX)
    card.tap.send = lambda frame: flood.rise()  # type: ignore[method-assign]
    ends_after_turns(flood, lambda: card.driver.kick(TX), card.time)


def test_a_network_card_that_is_offered_nothing_but_rubbish_does_so_too() -> None:
    card = Card().start()
    flood = Flood(card.driver, card.driver.offer(("r", b"not to be written"), queue=RX), RX)
    queue = card.driver.queues[RX]
    push = queue.push

    class Rising:
        """The card's queue, whose rejected chains come back at once."""

        def __getattr__(self, name: str) -> object:
            return getattr(queue, name)

        def push(self, head: int, written: int) -> None:
            push(head, written)
            flood.rise()

    card.net._receiver._queue = Rising()  # type: ignore[assignment]
    ends_after_turns(flood, lambda: card.driver.kick(RX), card.time)


def test_a_turn_that_ends_twice_begins_once() -> None:
    timers = FakeTimers()
    began: list[int] = []
    turn = Turn(timers)
    turn.on_begin = lambda: began.append(1)
    turn.end()
    turn.end()
    timers.advance(0)
    assert began == [1]
    turn.end()
    timers.advance(0)
    assert began == [1, 1]


def test_who_waits_for_tokens_does_not_begin_a_turn() -> None:
    timers, driver = FakeTimers(), Driver()
    served: list[int] = []

    def source(count: int) -> bytes:
        served.append(count)
        return bytes(count)

    rng = Rng(RateLimiter(None, Limit(1, 0, 1000), timers, timers.now_ns), source)
    driver.start(rng)
    driver.offer(("w", 8))
    driver.offer(("w", 8))
    driver.kick()
    rng.turn.end()
    timers.advance(0)
    assert served == [8]
