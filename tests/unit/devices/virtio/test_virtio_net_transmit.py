"""Frames from the driver to the cable."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibana.devices.rate_limiter import Limit
from hibana.devices.virtio.frames import LARGEST_FRAME
from hibana.devices.virtio.net import TX
from tests.unit.devices.virtio.network_card import HEADER, MAC, Card, ethernet


@pytest.fixture
def card() -> Card:
    return Card().start()


def test_a_frame_leaves_as_it_is(card: Card) -> None:
    head = card.send(ethernet(b"hello"))
    assert card.tap.sent == [ethernet(b"hello")]
    assert card.driver.completions(TX) == [(head, 0)]


def test_a_frame_in_parts_leaves_in_one_piece(card: Card) -> None:
    card.send(HEADER, MAC, b"", MAC, b"\x08\x00", b"hello")
    assert card.tap.sent == [HEADER + MAC + MAC + b"\x08\x00hello"]


def test_the_header_is_not_touched(card: Card) -> None:
    header = bytes(range(1, 13))
    card.send(header, ethernet()[12:])
    assert card.tap.sent == [header + ethernet()[12:]]


def test_a_batch_is_one_interrupt(card: Card) -> None:
    heads = [card.driver.offer(("r", ethernet(bytes([n]))), queue=TX) for n in range(100)]
    card.driver.kick(TX)
    assert card.tap.sent == [ethernet(bytes([n])) for n in range(100)]
    assert card.driver.completions(TX) == [(head, 0) for head in heads]
    assert card.driver.irq.used_count == [0, 1]
    assert card.metrics.tx_remaining_reqs_count == sum(range(100))


def test_the_card_asks_to_be_told_of_the_next_frame(card: Card) -> None:
    card.send(ethernet())
    assert card.driver.rings[TX].wants_notification_at == 1
    card.send(ethernet())
    assert card.driver.rings[TX].wants_notification_at == 2


def test_a_frame_that_arrives_while_the_others_leave_goes_too(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    late = [ethernet(b"late")]

    def send(frame: list[memoryview]) -> None:
        card.tap.sent.append(b"".join(frame))
        while late:
            card.driver.offer(("r", late.pop()), queue=TX)

    monkeypatch.setattr(card.tap, "send", send)
    card.send(ethernet(b"early"))
    assert card.tap.sent == [ethernet(b"early"), ethernet(b"late")]


def test_what_leaves_is_counted(card: Card) -> None:
    card.send(ethernet(bytes(1500)))
    card.send(ethernet(bytes(50)))
    metrics = card.metrics
    assert (metrics.tx_count, metrics.tx_packets_count, metrics.tx_queue_event_count) == (2, 2, 2)
    assert metrics.tx_bytes_count == 26 + 1500 + 26 + 50


def test_a_notification_without_a_frame_is_counted(card: Card) -> None:
    card.driver.kick(TX)
    assert card.metrics.no_tx_avail_buffer == 1
    assert card.driver.irq.used_count == [0, 0]


# --- frames that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 11, LARGEST_FRAME + 1])
def test_a_frame_of_an_impossible_size_is_dropped_and_the_next_one_sent(card: Card, size: int) -> None:
    bad = card.driver.offer(("r", bytes(size)), queue=TX)
    good = card.driver.offer(("r", ethernet()), queue=TX)
    card.driver.kick(TX)
    assert card.tap.sent == [ethernet()]
    assert card.driver.completions(TX) == [(bad, 0), (good, 0)]
    assert card.metrics.tx_malformed_frames == 1


@pytest.mark.parametrize("size", [12, LARGEST_FRAME])
def test_the_shortest_and_the_longest_frame(card: Card, size: int) -> None:
    card.send(bytes(size))
    assert card.tap.sent == [bytes(size)]


def test_a_buffer_for_writing_is_no_frame(card: Card) -> None:
    head = card.driver.offer(("r", ethernet()), ("w", 4), queue=TX)
    card.driver.kick(TX)
    assert card.tap.sent == []
    assert card.driver.completions(TX) == [(head, 0)]
    assert card.metrics.tx_fails == 1


@pytest.mark.parametrize(("addr", "size"), [(1 << 63, 64), (2 << 20, 64), ((2 << 20) - 4, 64), (0, 0xFFFFFFFF)])
def test_a_buffer_outside_memory_is_no_frame(card: Card, addr: int, size: int) -> None:
    head = card.driver.rings[TX].chain([card.driver.place(("r", ethernet())), (addr, size, 0)])
    card.driver.rings[TX].publish(head)
    card.driver.kick(TX)
    assert card.tap.sent == []
    assert card.driver.completions(TX) == [(head, 0)]
    assert card.metrics.tx_fails == 1
    assert card.driver.irq.fault is None, "the frame's end, not the card's"


# --- whose frames -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(), (12,), (20,), (18, 19, 23)])
def test_a_frame_from_another_address_is_counted_and_sent(card: Card, cuts: tuple[int, ...]) -> None:
    for frame in (ethernet(source=MAC), ethernet(source=b"\x02ABCDE")):
        ends = (*cuts, len(frame))
        card.send(*(frame[start:end] for start, end in zip((0, *cuts), ends, strict=True)))
    assert len(card.tap.sent) == 2
    assert card.metrics.tx_spoofed_mac_count == 1


def test_without_an_address_of_its_own_the_guest_may_use_any() -> None:
    card = Card(mac=None).start()
    card.send(ethernet(source=b"\x02ABCDE"))
    assert card.metrics.tx_spoofed_mac_count == 0


# --- the cable and the limiter ----------------------------------------------------------------------------------------


def test_a_frame_that_the_cable_does_not_take_is_lost(card: Card) -> None:
    card.tap.error = errno.EAGAIN
    head = card.send(ethernet(b"lost"))
    card.tap.error = None
    card.send(ethernet(b"sent"))
    assert card.tap.sent == [ethernet(b"sent")]
    assert (head, 0) in card.driver.completions(TX)
    assert (card.metrics.tap_write_fails, card.metrics.tx_packets_count) == (1, 1)


def test_frames_wait_for_the_limiter_in_the_queue() -> None:
    card = Card(ops=Limit(2, 0, 1000)).start()
    for number in range(3):
        card.driver.offer(("r", ethernet(bytes([number]))), queue=TX)
    card.driver.kick(TX)
    assert [frame[-1] for frame in card.tap.sent] == [0, 1]
    assert len(card.driver.completions(TX)) == 2
    assert card.metrics.tx_rate_limiter_throttled == 1

    card.driver.kick(TX)
    assert len(card.tap.sent) == 2, "the driver cannot hurry it"

    card.time.advance(1)
    assert [frame[-1] for frame in card.tap.sent] == [0, 1, 2]
    assert card.metrics.tx_rate_limiter_event_count >= 1
    assert card.driver.rings[TX].wants_notification_at == 3


def test_a_limit_that_is_lifted_holds_until_its_time_has_passed() -> None:
    card = Card(ops=Limit(1, 0, 1000)).start()
    card.send(bytes(20))
    card.send(bytes(21))
    card.net.tx_limiter.update(None, Limit(0, 0, 0))
    card.driver.kick(TX)
    assert card.tap.sent == [bytes(20)]
    card.time.advance(0.1)
    card.send(bytes(22))
    assert card.tap.sent == [bytes(20), bytes(21), bytes(22)]


def test_the_limiter_counts_bytes_with_the_header() -> None:
    card = Card(tx_limit=Limit(100, 0, 1000)).start()
    card.send(bytes(100))
    card.send(bytes(12))
    assert card.tap.sent == [bytes(100)]


def test_a_frame_larger_than_the_bucket_goes_and_the_next_one_waits() -> None:
    card = Card(tx_limit=Limit(1000, 0, 100)).start()
    card.driver.offer(("r", bytes(3000)), queue=TX)
    card.send(bytes(50))
    assert card.tap.sent == [bytes(3000)]
    card.time.advance(0.199)
    assert len(card.tap.sent) == 1
    card.time.advance(0.2)
    assert card.tap.sent == [bytes(3000), bytes(50)]


def test_frames_that_are_none_cost_no_tokens() -> None:
    card = Card(ops=Limit(1, 0, 1000)).start()
    card.send(b"short")
    card.send(ethernet())
    assert card.tap.sent == [ethernet()]


def test_a_limiter_that_wakes_a_reset_card_does_no_harm() -> None:
    card = Card(ops=Limit(1, 0, 1000)).start()
    card.send(ethernet())
    card.send(ethernet())
    assert card.net.reset()
    card.time.advance(5)
    assert len(card.tap.sent) == 1


# --- whatever the driver does -----------------------------------------------------------------------------------------

parts = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(parts, max_size=12))
def test_every_frame_arrives_whole_and_in_order(frames: list[list[bytes]]) -> None:
    card = Card().start()
    for frame in frames:
        card.driver.offer(*(("r", part) for part in frame), queue=TX)
    card.driver.remember()
    card.driver.kick(TX)
    whole = [b"".join(frame) for frame in frames]
    assert card.tap.sent == [frame for frame in whole if len(frame) >= 12]
    assert len(card.driver.completions(TX)) == len(frames)
    assert card.driver.stray_writes() == []


descriptors = st.tuples(
    st.one_of(st.integers(0, 1 << 64), st.integers(0, 2 << 20)).map(lambda addr: addr & (1 << 64) - 1),
    st.one_of(st.integers(0, (1 << 32) - 1), st.integers(0, 70_000)),
    st.integers(0, 7),
    st.integers(0, 20),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(descriptors, min_size=16, max_size=16), st.lists(st.integers(0, 300), max_size=20), st.data())
def test_no_driver_makes_the_card_raise_or_write(
    table: list[tuple[int, int, int, int]], heads: list[int], data: st.DataObject
) -> None:
    card = Card().start()
    ring = card.driver.rings[TX]
    for index, descriptor in enumerate(table):
        ring.describe(index, *descriptor)
    for head in heads:
        ring.publish(head)
    if data.draw(st.booleans()):
        ring.set_index(data.draw(st.integers(0, 0xFFFF)))
    card.driver.remember()
    card.driver.kick(TX)
    assert card.driver.stray_writes() == []
    assert all(12 <= len(frame) <= LARGEST_FRAME for frame in card.tap.sent)
