"""Frames from the cable to the driver."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibana.devices.rate_limiter import Limit
from hibana.devices.virtio.device import EVENT_IDX
from hibana.devices.virtio.frames import LARGEST_FRAME
from hibana.devices.virtio.net import GUEST_TSO4, GUEST_TSO6, GUEST_UFO, MRG_RXBUF, RX
from hibana.devices.virtio.queue import WRITE
from tests.unit.devices.virtio.network_card import HEADER, ROOM_FOR_ANY_FRAME, Card, ethernet

NO_SEGMENTS = GUEST_TSO4 | GUEST_TSO6 | GUEST_UFO


@pytest.fixture
def card() -> Card:
    return Card().start()


def with_count(frame: bytes, count: int) -> bytes:
    """Fill in `num_buffers`."""
    return frame[:10] + count.to_bytes(2, "little") + frame[12:]


def sequence(size: int) -> bytes:
    """Make a frame of `size` bytes, header included, in which no two places look alike."""
    return (HEADER + b"".join(n.to_bytes(4, "big") for n in range(size // 4)))[:size]


# --- one frame --------------------------------------------------------------------------------------------------------


def test_a_frame_lands_in_the_first_chain(card: Card) -> None:
    heads = card.offer_pages(50)
    card.tap.deliver(ethernet(b"hello"))
    assert card.driver.completions(RX) == [(heads[0], len(ethernet(b"hello")))]
    assert card.driver.written(heads[0], RX)[0].startswith(with_count(ethernet(b"hello"), 1))


def test_a_frame_is_spread_over_the_buffers_of_its_chain(card: Card) -> None:
    head = card.offer_room(12, 0, 100, ROOM_FOR_ANY_FRAME)
    card.driver.kick(RX)
    frame = sequence(1500)
    card.tap.deliver(frame)
    assert card.driver.completions(RX) == [(head, 1500)]
    assert b"".join(card.driver.written(head, RX))[:1500] == with_count(frame, 1)


@pytest.mark.parametrize("cuts", [(1,) * 12, (11, 1), (10, 2), (3, 0, 8, 9)])
def test_a_header_may_be_spread_too(card: Card, cuts: tuple[int, ...]) -> None:
    card.offer_room(*cuts, ROOM_FOR_ANY_FRAME)
    card.driver.kick(RX)
    card.tap.deliver(ethernet())
    assert card.received() == [with_count(ethernet(), 1)]


@pytest.mark.parametrize("size", [12, 1535, 1536, 1537, 3072, 3073, 9000, LARGEST_FRAME])
def test_a_frame_takes_as_many_chains_as_it_needs(card: Card, size: int) -> None:
    card.offer_pages(150)
    card.tap.deliver(sequence(size), sequence(size), ethernet())
    chains = -(-size // 1536)
    assert card.driver.rings[RX].used_index == 2 * chains + 1
    assert card.received() == [with_count(sequence(size), chains)] * 2 + [with_count(ethernet(), 1)]


def test_large_and_small_frames_in_any_order_arrive_whole(card: Card) -> None:
    card.offer_pages(200)
    frames = [sequence(size) for size in (60, 9000, 60, 20_000, 9000, 1536, 65_562, 60, 1537, 1536)]
    card.tap.deliver(*frames)
    assert card.received() == [with_count(frame, -(-len(frame) // 1536)) for frame in frames]


def test_what_the_engine_is_told_covers_every_byte_of_a_frame(card: Card) -> None:
    head = card.offer_room(12, 100, ROOM_FOR_ANY_FRAME)
    card.driver.kick(RX)
    card.driver.touched.clear()
    card.driver.remember()
    card.tap.deliver(bytes(1000))
    assert [size for _, size in card.driver.touched] == [12, 100, 888]
    assert card.driver.completions(RX) == [(head, 1000)]


def test_frames_are_counted_with_their_headers(card: Card) -> None:
    card.offer_pages(50)
    card.tap.deliver(sequence(100), sequence(200))
    metrics = card.metrics
    assert (metrics.rx_count, metrics.rx_packets_count, metrics.rx_bytes_count) == (2, 2, 300)
    assert metrics.rx_tap_event_count == 1


def test_a_burst_is_one_interrupt(card: Card) -> None:
    card.offer_pages(100)
    card.tap.deliver(*[ethernet()] * 20)
    assert card.driver.irq.used_count == [1, 0]


# --- without mergeable buffers ----------------------------------------------------------------------------------------


def test_without_merging_a_frame_gets_one_chain() -> None:
    card = Card().start(refused=MRG_RXBUF)
    heads = [card.offer_room(12, LARGEST_FRAME) for _ in range(2)]
    card.driver.kick(RX)
    card.tap.deliver(sequence(LARGEST_FRAME), ethernet())
    assert card.driver.completions(RX) == [(heads[0], LARGEST_FRAME), (heads[1], len(ethernet()))]
    assert b"".join(card.driver.written(heads[0], RX))[10:12] == b"\x01\x00"


@pytest.mark.parametrize(
    ("refused", "shortest"), [(MRG_RXBUF, LARGEST_FRAME), (MRG_RXBUF | NO_SEGMENTS, 1526), (0, 12)]
)
def test_a_chain_that_is_too_short_for_a_frame_is_given_back(refused: int, shortest: int) -> None:
    card = Card().start(refused)
    short = card.offer_room(shortest - 1)
    long = card.offer_room(shortest)
    card.offer_room(ROOM_FOR_ANY_FRAME)
    card.driver.kick(RX)
    assert card.driver.completions(RX) == [(short, 0)]
    assert card.metrics.rx_fails == 1
    card.tap.deliver(sequence(12))
    assert card.driver.completions(RX) == [(long, 12)]


# --- chains that are no room ------------------------------------------------------------------------------------------


def test_a_chain_for_reading_is_given_back(card: Card) -> None:
    head = card.driver.offer(("w", 100), ("r", b"not yours"), queue=RX)
    card.driver.kick(RX)
    assert card.driver.completions(RX) == [(head, 0)]
    assert card.metrics.rx_fails == 1
    assert card.driver.irq.used_count == [1, 0]


@pytest.mark.parametrize(("addr", "size"), [(1 << 63, 64), (2 << 20, 64), ((2 << 20) - 4, 64), (0, 0xFFFFFFFF)])
def test_a_chain_outside_memory_is_given_back(card: Card, addr: int, size: int) -> None:
    ring = card.driver.rings[RX]
    head = ring.chain([(addr, size, WRITE)])
    ring.publish(head)
    card.driver.kick(RX)
    assert card.driver.completions(RX) == [(head, 0)]
    assert card.metrics.rx_fails == 1


# --- room -------------------------------------------------------------------------------------------------------------


def test_without_room_frames_wait_in_the_cable_and_nobody_spins(card: Card) -> None:
    card.offer_pages(43)
    card.tap.deliver(*[ethernet()] * 3)
    assert len(card.received()) == 1
    assert not card.tap.is_listened_to
    assert card.metrics.no_rx_avail_buffer == 1

    card.offer_pages(1)
    assert len(card.received()) == 1
    card.offer_pages(50)
    assert len(card.received()) == 1
    assert card.tap.is_listened_to


def test_the_driver_is_asked_to_tell_of_room_only_when_all_is_taken(card: Card) -> None:
    card.offer_pages(50)
    assert card.driver.rings[RX].wants_notification_at == 50
    card.offer_pages(20)
    assert card.driver.rings[RX].wants_notification_at == 50, "50 chains are enough for now"
    card.tap.deliver(*[ethernet()] * 10)
    assert card.driver.rings[RX].wants_notification_at == 70


def test_no_more_than_256_buffers_are_taken_ahead() -> None:
    card = Card().start()
    for _ in range(64):
        card.offer_room(12, 1, 1, 1)
    card.driver.rings[RX].publish(0)
    card.driver.kick(RX)
    assert card.driver.queues[RX].pending() == 1


def test_room_for_later_does_not_disturb_a_card_that_listens(card: Card) -> None:
    card.offer_pages(50)
    card.offer_pages(50)
    assert card.driver.queues[RX].pending() == 50
    assert card.metrics.rx_queue_event_count == 2


def test_without_event_idx_every_pass_that_used_something_interrupts() -> None:
    card = Card().start(refused=EVENT_IDX)
    card.offer_pages(50)
    assert card.driver.irq.used_count == [0, 0]
    card.tap.deliver(ethernet())
    card.tap.deliver(ethernet())
    assert card.driver.irq.used_count == [2, 0]


# --- the limiter ------------------------------------------------------------------------------------------------------


def test_a_frame_that_the_limiter_refuses_is_kept_and_comes_later() -> None:
    card = Card(ops=Limit(2, 0, 1000)).start()
    card.offer_pages(100)
    card.tap.deliver(*[sequence(2000 + number) for number in range(4)])
    assert [len(frame) for frame in card.received()] == [2000, 2001]
    assert len(card.tap.waiting) == 1, "one has been read, and waits"
    assert not card.tap.is_listened_to
    assert card.metrics.rx_rate_limiter_throttled == 1

    card.offer_pages(1)
    card.time.advance(0.1)
    assert card.received() == []

    card.time.advance(0.9)
    assert card.received() == [with_count(sequence(2002), 2), with_count(sequence(2003), 2)]
    assert card.tap.is_listened_to
    assert card.metrics.rx_packets_count == 4


def test_a_frame_larger_than_the_bucket_comes_and_the_card_is_deaf_for_a_while() -> None:
    card = Card(rx_limit=Limit(1000, 0, 100)).start()
    card.offer_pages(100)
    card.tap.deliver(sequence(3000))
    assert len(card.received()) == 1
    card.tap.deliver(sequence(100))
    assert card.received() == []
    assert not card.tap.is_listened_to
    card.time.advance(1)
    assert card.received() == [with_count(sequence(100), 1)]


def test_a_changed_limit_holds_from_the_next_frame_on() -> None:
    card = Card().start()
    card.offer_pages(100)
    card.tap.deliver(*[ethernet()] * 5)
    assert len(card.received()) == 5
    card.net.rx_limiter.update(None, Limit(1, 0, 1000))
    card.tap.deliver(*[ethernet()] * 5)
    assert len(card.received()) == 1


def test_a_reset_drops_the_frame_that_waits() -> None:
    card = Card(ops=Limit(1, 0, 1000)).start()
    card.offer_pages(100)
    card.tap.deliver(ethernet(), ethernet())
    assert len(card.received()) == 1
    assert card.net.reset()
    card.time.advance(5)
    card.start().offer_pages(100)
    assert card.received() == []


# --- the cable --------------------------------------------------------------------------------------------------------


def test_a_passing_failure_loses_nothing(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    card.offer_pages(50)
    real = card.tap.receive
    failures = [OSError(errno.ENOMEM, "")]

    def receive(room: list[memoryview]) -> int:
        if failures:
            raise failures.pop()
        return real(room)

    monkeypatch.setattr(card.tap, "receive", receive)
    card.tap.deliver(ethernet())
    assert card.received() == [with_count(ethernet(), 1)]
    assert (card.metrics.tap_read_fails, card.metrics.event_fails) == (1, 1)


def test_a_cable_that_was_cut_is_given_up(card: Card) -> None:
    card.offer_pages(50)
    card.tap.error = errno.EBADFD
    card.tap.deliver()
    assert not card.tap.is_listened_to, "or the event loop would report the failure for ever"
    assert card.metrics.tap_read_fails == 16
    assert card.driver.irq.fault is None, "the guest has done nothing wrong"


# --- whatever comes ---------------------------------------------------------------------------------------------------


def unreported_writes(card: Card, before: bytes) -> list[int]:
    """List the places outside of the rings that have changed without the engine being told."""
    now = bytearray(card.driver.memory.read(0, len(before)))
    rings = [(ring.used_addr, ring.end - ring.used_addr) for ring in card.driver.rings]
    for addr, size in card.driver.touched + rings:
        now[addr : addr + size] = before[addr : addr + size]
    return [] if now == before else [at for at in range(len(now)) if now[at] != before[at]]


rooms = st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=5), max_size=30)
sizes = st.lists(st.one_of(st.integers(12, 200), st.integers(12, 20_000)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(rooms, sizes, st.booleans())
def test_every_frame_arrives_whole_in_order_and_nowhere_else(
    rooms: list[list[int]], sizes: list[int], kick_late: bool
) -> None:
    card = Card().start()
    card.offer_room(ROOM_FOR_ANY_FRAME)
    for room in rooms:
        card.offer_room(*room)
    card.offer_room(ROOM_FOR_ANY_FRAME)
    card.driver.remember()
    before = card.driver.memory.read(0, card.driver.memory.size)
    frames = [sequence(size) for size in sizes]
    if kick_late:
        card.tap.waiting.extend(frames)
    card.driver.kick(RX)
    if not kick_late:
        card.tap.deliver(*frames)
    arrived = [with_count(frame, 0) for frame in card.received()]
    assert arrived == frames[: len(arrived)]
    assert len(arrived) + len(card.tap.waiting) == len(frames)
    assert card.driver.stray_writes() == []
    assert unreported_writes(card, before) == []
    assert card.driver.irq.fault is None


# Of 2 MiB of memory, the rings are in the first; buffers are in the second, or outside.
descriptors = st.tuples(
    st.one_of(st.integers(1 << 20, 2 << 20), st.integers(1 << 20, (1 << 64) - 1)),
    st.one_of(st.integers(0, (1 << 32) - 1), st.integers(0, 70_000)),
    st.integers(0, 7).map(lambda flags: flags | WRITE),
    st.integers(0, 20),
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(descriptors, min_size=16, max_size=16),
    st.lists(st.integers(0, 20), max_size=40),
    sizes,
    st.sampled_from([0, MRG_RXBUF, MRG_RXBUF | NO_SEGMENTS]),
    st.one_of(st.none(), st.integers(0, 0xFFFF)),
)
def test_no_driver_makes_the_card_raise_or_write_elsewhere(
    table: list[tuple[int, int, int, int]], heads: list[int], sizes: list[int], refused: int, index: int | None
) -> None:
    card = Card().start(refused)
    ring = card.driver.rings[RX]
    for number, descriptor in enumerate(table):
        ring.describe(number, *descriptor)
    for head in heads:
        ring.publish(head)
    if index is not None:
        ring.set_index(index)
    memory = card.driver.memory
    before = memory.read(0, ring.used_addr), memory.read(ring.end, (1 << 20) - ring.end)
    card.driver.kick(RX)
    card.tap.deliver(*(sequence(size) for size in sizes))
    after = memory.read(0, ring.used_addr), memory.read(ring.end, (1 << 20) - ring.end)
    unharmed = before == after
    assert unharmed
