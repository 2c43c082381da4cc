"""The network card as a whole: what it offers, how it begins and how it ends."""

import pytest

from hibana.devices.virtio.device import EVENT_IDX, VERSION_1
from hibana.devices.virtio.net import (
    CSUM,
    GUEST_CSUM,
    GUEST_TSO4,
    GUEST_TSO6,
    GUEST_UFO,
    HOST_TSO4,
    HOST_TSO6,
    HOST_UFO,
    MAC,
    MRG_RXBUF,
    MTU,
    RX,
    TX,
)
from hibana.errors import TapOffloadError
from tests.unit.devices.virtio import network_card
from tests.unit.devices.virtio.network_card import ROOM_FOR_ANY_FRAME, Card, ethernet


def configuration(card: Card) -> bytes:
    return bytes(card.net.read_config(at, 1) for at in range(16))


def test_a_card_offers_what_the_reference_offers() -> None:
    always = EVENT_IDX | VERSION_1 | MRG_RXBUF | CSUM | GUEST_CSUM
    segments = GUEST_TSO4 | GUEST_TSO6 | GUEST_UFO | HOST_TSO4 | HOST_TSO6 | HOST_UFO
    assert Card(mac=None).net.features == always | segments == 0x1_2000_DD83
    assert Card(mtu=1400).net.features == always | segments | MAC | MTU


def test_the_configuration_holds_address_and_mtu() -> None:
    assert configuration(Card(mac=None)) == bytes(16)
    assert configuration(Card(mtu=0x1234)) == network_card.MAC + bytes(4) + b"\x34\x12" + bytes(4)
    assert Card(mtu=1500).net.read_config(10, 2) == 1500


def test_a_write_to_the_configuration_changes_nothing_and_is_counted() -> None:
    card = Card().start()
    card.net.write_config(0, 1, 0xFF)
    assert configuration(card)[:6] == network_card.MAC
    assert card.metrics.cfg_fails == 1


@pytest.mark.parametrize(
    ("refused", "offload"),
    [
        (0, (True, True, True, True)),
        (GUEST_TSO4, (True, False, True, True)),
        (GUEST_TSO6 | GUEST_UFO, (True, True, False, False)),
        (GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_UFO, (False, False, False, False)),
    ],
)
def test_the_cable_hears_which_frames_the_driver_can_finish(
    refused: int, offload: tuple[bool, bool, bool, bool]
) -> None:
    assert Card().start(refused).tap.offload == offload


def test_a_cable_that_refuses_spoils_the_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card()

    def refuse(*_: bool) -> None:
        raise TapOffloadError(cause="Invalid argument (os error 22)")

    monkeypatch.setattr(card.tap, "set_offload", refuse)
    with pytest.raises(TapOffloadError):
        card.start()
    card.net.count_activation_failure()
    assert card.metrics.activate_fails == 1
    assert card.net.reset()


def test_nobody_listens_to_the_cable_before_there_is_room() -> None:
    card = Card().start()
    assert not card.tap.is_listened_to
    card.offer_pages(1)
    assert not card.tap.is_listened_to, "the largest frame does not fit"
    card.offer_pages(50)
    assert card.tap.is_listened_to


def test_frames_before_activation_wait_in_the_cable() -> None:
    card = Card()
    card.tap.deliver(ethernet())
    card.start().offer_pages(50)
    assert card.received() == [ethernet()[:10] + b"\x01\x00" + ethernet()[12:]]


def test_a_reset_lets_go_of_cable_and_driver_and_the_card_starts_afresh() -> None:
    card = Card().start()
    card.offer_pages(50)
    assert card.net.reset()
    assert not card.tap.is_listened_to
    card.tap.deliver(ethernet(b"while away"))

    card.start(refused=MRG_RXBUF).offer_room(ROOM_FOR_ANY_FRAME)
    card.driver.kick(RX)
    assert [frame[26:] for frame in card.received()] == [b"while away"]
    card.send(ethernet(b"back"))
    assert card.tap.sent == [ethernet(b"back")]


def test_a_reset_while_nobody_listens() -> None:
    card = Card().start()
    assert card.net.reset()
    assert card.net.reset()


@pytest.mark.parametrize("queue", [RX, TX])
def test_a_ring_that_ran_away_breaks_the_card(queue: int) -> None:
    card = Card().start()
    card.driver.rings[queue].set_index(300)
    card.driver.kick(queue)
    assert "greater than queue size" in str(card.driver.irq.fault)


def test_a_broken_card_is_deaf_and_does_not_listen() -> None:
    card = Card().start()
    card.offer_pages(50)
    card.driver.rings[TX].set_index(300)
    card.driver.kick(TX)

    card.tap.deliver(ethernet())
    assert not card.tap.is_listened_to, "or the event loop would report the frame for ever"
    assert card.received() == []


def test_a_ring_that_runs_away_while_frames_arrive_breaks_the_card() -> None:
    card = Card().start()
    card.offer_pages(43)
    card.driver.rings[RX].set_index(2 * 300)
    card.tap.deliver(ethernet(), ethernet())
    assert "greater than queue size" in str(card.driver.irq.fault)
    assert not card.tap.is_listened_to


def test_the_two_directions_have_counters_and_interrupts_of_their_own() -> None:
    card = Card().start(refused=EVENT_IDX)
    card.offer_pages(50)
    card.tap.deliver(ethernet())
    assert card.driver.irq.used_count == [1, 0]
    card.send(ethernet())
    assert card.driver.irq.used_count == [1, 1]
    assert (card.metrics.rx_queue_event_count, card.metrics.tx_queue_event_count) == (1, 1)
