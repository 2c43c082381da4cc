"""The device's half of a virtqueue, with the driver's half played by the test."""

from collections import deque
from collections.abc import Iterator
from struct import pack
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibana.devices.virtio.queue import NEXT, WRITE, Queue
from hibana.errors import GuestFault
from hibana.memory.guest import GuestMemory
from hibana.memory.layout import MMIO32_START, RAM_ABOVE_4G
from hibana.testing.virtio import Ring
from hibana.units import MIB, PAGE

BASE: Final = 0x10000
U16: Final = 0xFFFF


@pytest.fixture(scope="module")
def memory() -> Iterator[GuestMemory]:
    memory = GuestMemory(1 * MIB)
    yield memory
    memory.close()


def connect(memory: GuestMemory, size: int = 8, event_idx: bool = False) -> tuple[Queue, Ring]:
    ring = Ring(memory, BASE, size)
    queue = Queue()
    ring.set_up(queue)
    queue.activate(memory, event_idx)
    return queue, ring


# --- setting up -------------------------------------------------------------------------------------------------------


def test_a_queue_offers_256_entries_until_the_driver_takes_fewer() -> None:
    queue = Queue()
    assert (queue.max_size, queue.size, queue.ready) == (256, 256, False)


def test_a_queue_must_be_marked_ready(memory: GuestMemory) -> None:
    queue = Queue()
    Ring(memory, BASE, 8).set_up(queue)
    queue.ready = False
    with pytest.raises(GuestFault, match="Attempt to use virtio queue that is not marked ready"):
        queue.activate(memory, False)


@pytest.mark.parametrize("size", [0, 3, 255, 257, 512, 0x8000, 0xFFFF])
def test_a_size_is_a_power_of_two_and_not_above_the_maximum(memory: GuestMemory, size: int) -> None:
    queue = Queue()
    Ring(memory, BASE, 8).set_up(queue)
    queue.size = size
    with pytest.raises(GuestFault, match=f"Virtio queue with invalid size: {size}$"):
        queue.activate(memory, False)


@pytest.mark.parametrize("size", [1, 2, 128, 256])
def test_every_power_of_two_will_do(memory: GuestMemory, size: int) -> None:
    queue, ring = connect(memory, size)
    ring.publish(ring.chain([(0x40000, 16, 0)]))
    assert queue.take() == [(0, [(0x40000, 16, 0, 0)])]
    assert queue.take() == []


@pytest.mark.parametrize(
    ("area", "step", "alignment"), [("descriptors_addr", 8, 16), ("avail_addr", 1, 2), ("used_addr", 2, 4)]
)
def test_each_area_has_its_alignment(memory: GuestMemory, area: str, step: int, alignment: int) -> None:
    queue = Queue()
    Ring(memory, BASE, 8).set_up(queue)
    setattr(queue, area, BASE + PAGE)
    queue.activate(memory, False)
    setattr(queue, area, BASE + PAGE + step)
    with pytest.raises(GuestFault, match=f"Pointer is not aligned properly: .* not {alignment}-byte aligned"):
        queue.activate(memory, False)


@pytest.mark.parametrize(
    ("area", "size", "alignment"), [("descriptors_addr", 128, 16), ("avail_addr", 22, 2), ("used_addr", 70, 4)]
)
def test_each_area_must_lie_in_ram_to_its_last_byte(memory: GuestMemory, area: str, size: int, alignment: int) -> None:
    queue = Queue()
    Ring(memory, BASE, 8).set_up(queue)
    last = (1 * MIB - size) // alignment * alignment
    setattr(queue, area, last)
    queue.activate(memory, False)
    for outside in (last + alignment, 1 << 63, (1 << 64) - alignment):
        setattr(queue, area, outside)
        with pytest.raises(GuestFault, match="is outside guest memory"):
            queue.activate(memory, False)


def test_an_area_may_lie_above_the_hole_but_not_across_it() -> None:
    memory = GuestMemory(MMIO32_START + PAGE)
    queue = Queue()
    Ring(memory, BASE, 256).set_up(queue)
    queue.descriptors_addr = RAM_ABOVE_4G
    queue.activate(memory, False)
    queue.descriptors_addr = MMIO32_START - 16
    with pytest.raises(GuestFault, match="is outside guest memory"):
        queue.activate(memory, False)


def test_the_engine_hears_once_that_the_used_ring_will_be_written(memory: GuestMemory) -> None:
    ring, queue = Ring(memory, BASE, 8), Queue()
    ring.set_up(queue)
    heard: list[tuple[int, int]] = []
    memory.on_write = lambda addr, size: heard.append((addr, size))
    queue.activate(memory, False)
    queue.push(0, 0)
    queue.publish()
    memory.on_write = lambda _addr, _size: None
    assert heard == [(ring.used_addr, 6 + 8 * 8)]


def test_a_reset_forgets_the_driver_and_lets_go_of_its_memory() -> None:
    memory = GuestMemory(1 * MIB)
    queue, ring = connect(memory)
    ring.publish(ring.chain([(0, 1, 0)]))
    assert queue.take()
    queue.push(0, 0)
    queue.reset()
    assert (queue.size, queue.ready) == (256, False)
    assert (queue.descriptors_addr, queue.avail_addr, queue.used_addr) == (0, 0, 0)
    mapping = memory._mapping
    memory.close()
    mapping.close()  # raises BufferError while there is a window
    with pytest.raises(GuestFault, match="not marked ready"):
        queue.activate(memory, False)


def test_after_a_reset_both_sides_count_from_zero(memory: GuestMemory) -> None:
    queue, ring = connect(memory)
    for _ in range(3):
        ring.publish(ring.chain([(0, 1, 0)]))
        assert queue.take()
        queue.push(0, 0)
    queue.publish()
    queue.reset()
    queue, ring = connect(memory)
    ring.publish(ring.chain([(64, 1, 0)]))
    assert queue.take() == [(0, [(64, 1, 0, 0)])]
    queue.push(0, 5)
    assert queue.publish()
    assert ring.completions() == [(0, 5)]


# --- taking -----------------------------------------------------------------------------------------------------------


def test_nothing_is_taken_from_an_empty_ring(memory: GuestMemory) -> None:
    queue, _ = connect(memory)
    assert queue.take() == []
    assert queue.pending() == 0


def test_a_chain_comes_in_the_order_of_its_links(memory: GuestMemory) -> None:
    queue, ring = connect(memory)
    ring.describe(6, 0x1000, 16, NEXT, 2)
    ring.describe(2, 0x2000, 4096, NEXT | WRITE, 5)
    ring.describe(5, 0x3000, 1, WRITE, 7)
    ring.publish(6)
    assert queue.take() == [(6, [(0x1000, 16, NEXT, 2), (0x2000, 4096, NEXT | WRITE, 5), (0x3000, 1, WRITE, 7)])]


def test_what_a_chain_holds_is_not_judged_here(memory: GuestMemory) -> None:
    """Addresses, sizes and directions belong to the device; the flag of indirect tables, never offered, to nobody."""
    queue, ring = connect(memory)
    ring.describe(0, (1 << 64) - 1, (1 << 32) - 1, 4 | WRITE)
    ring.publish(0)
    assert queue.take() == [(0, [((1 << 64) - 1, (1 << 32) - 1, 4 | WRITE, 0)])]


def test_a_chain_may_use_the_whole_table(memory: GuestMemory) -> None:
    queue, ring = connect(memory)
    ring.publish(ring.chain([(64 * at, 64, 0) for at in range(8)]))
    [(_, buffers)] = queue.take()
    assert [addr for addr, _, _, _ in buffers] == [64 * at for at in range(8)]


def test_a_looping_chain_is_the_guests_fault(memory: GuestMemory) -> None:
    queue, ring = connect(memory)
    ring.describe(3, 0, 1, NEXT, 4)
    ring.describe(4, 0, 1, NEXT, 3)
    ring.publish(3)
    with pytest.raises(GuestFault, match="The descriptor chain at 3 is a loop"):
        queue.take()


@pytest.mark.parametrize("head", [8, 9, U16])
def test_a_head_outside_the_table_is_the_guests_fault(memory: GuestMemory, head: int) -> None:
    queue, ring = connect(memory)
    ring.publish(head)
    with pytest.raises(GuestFault, match=f"There is no descriptor {head} in a queue of 8"):
        queue.take()


def test_a_link_out_of_the_table_is_the_guests_fault(memory: GuestMemory) -> None:
    queue, ring = connect(memory)
    ring.describe(0, 0, 1, NEXT, 8)
    ring.publish(0)
    with pytest.raises(GuestFault, match="There is no descriptor 8 in a queue of 8"):
        queue.take()


def test_a_link_that_is_not_followed_may_be_anything(memory: GuestMemory) -> None:
    queue, ring = connect(memory)
    ring.describe(0, 0, 1, 0, U16)
    ring.publish(0)
    assert queue.take() == [(0, [(0, 1, 0, U16)])]


@pytest.mark.parametrize("ahead", [9, 1000, 0x8000, U16])
def test_an_index_that_ran_away_is_the_guests_fault(memory: GuestMemory, ahead: int) -> None:
    queue, ring = connect(memory)
    ring.set_index(ahead)
    with pytest.raises(GuestFault, match=f"available virtio descriptors {ahead} is greater than queue size: 8!"):
        queue.take()


def test_an_index_that_went_back_is_one_that_ran_away(memory: GuestMemory) -> None:
    queue, ring = connect(memory)
    ring.publish(ring.chain([(0, 1, 0)]))
    assert queue.take()
    ring.set_index(0)
    with pytest.raises(GuestFault, match="descriptors 65535 is greater"):
        queue.take()


def test_all_chains_are_taken_at_once(memory: GuestMemory) -> None:
    queue, ring = connect(memory)
    for addr in (0, 64, 128):
        ring.publish(ring.chain([(addr, 1, 0)]))
    assert queue.pending() == 3
    assert [addr for _, [(addr, _, _, _)] in queue.take()] == [0, 64, 128]
    assert queue.pending() == 0


def test_what_is_given_back_is_taken_again(memory: GuestMemory) -> None:
    queue, ring = connect(memory)
    for addr in (0, 64, 128):
        ring.publish(ring.chain([(addr, 1, 0)]))
    _, *last_two = queue.take()
    queue.give_back(2)
    assert queue.pending() == 2
    assert queue.take() == last_two
    assert queue.pending() == 0


@pytest.mark.parametrize("following", [8, 4], ids=["a link out of the table", "a loop"])
def test_what_comes_before_a_broken_chain_is_taken(memory: GuestMemory, following: int) -> None:
    queue, ring = connect(memory)
    ring.publish(ring.chain([(0x40000, 16, 0)]))
    ring.describe(4, 0, 1, NEXT, following)
    ring.publish(4)
    assert queue.take() == [(0, [(0x40000, 16, 0, 0)])]
    for _ in range(2):
        with pytest.raises(GuestFault, match="descriptor"):
            queue.take()


def test_the_driver_may_rewrite_a_descriptor_after_it_was_taken(memory: GuestMemory) -> None:
    queue, ring = connect(memory)
    ring.publish(ring.chain([(0x40000, 16, WRITE)]))
    chains = queue.take()
    ring.describe(0, 1 << 60, 1 << 30, 0)
    assert chains == [(0, [(0x40000, 16, WRITE, 0)])]


# --- answering --------------------------------------------------------------------------------------------------------


def test_the_driver_sees_nothing_before_it_is_published(memory: GuestMemory) -> None:
    queue, ring = connect(memory)
    queue.push(3, 17)
    queue.push(1, (1 << 32) - 1)
    assert ring.completions() == []
    assert queue.publish()
    assert ring.completions() == [(3, 17), (1, (1 << 32) - 1)]


def test_without_answers_there_is_nothing_to_interrupt_for(memory: GuestMemory) -> None:
    queue, _ = connect(memory)
    assert not queue.publish()
    queue.push(0, 0)
    assert queue.publish()
    assert not queue.publish()


def test_the_flags_of_the_rings_are_neither_read_nor_written(memory: GuestMemory) -> None:
    queue, ring = connect(memory)
    memory.write(ring.avail_addr, pack("<H", 1))  # NO_INTERRUPT: EVENT_IDX is the way to ask for that
    queue.push(0, 0)
    assert queue.publish()
    assert memory.read(ring.used_addr, 2) == bytes(2)


@given(
    size=st.sampled_from([1, 2, 8, 256]),
    start=st.integers(0, 600),
    batches=st.lists(st.integers(0, 300), max_size=10),
)
@settings(max_examples=40)
def test_the_rings_go_round_for_ever(size: int, start: int, batches: list[int]) -> None:
    """Every chain is taken once, in order, and answered once, in order, across all wraps of 16 bits and of the ring."""
    memory = GuestMemory(1 * MIB)
    queue, ring = connect(memory, size)
    for at in range(start):  # some way round the ring; the index of 16 bits wraps in the next test
        advance(queue, ring, at)
    number, expected = 0, deque[int]()
    for batch in batches:
        for _ in range(min(batch, size)):
            ring.publish(ring.chain([(number, 1, 0)]))
            expected.append(number)
            number += 1
        for head, [(addr, _, _, _)] in queue.take():
            assert addr == expected.popleft()
            queue.push(head, addr)
        queue.publish()
        assert not expected
        answered = [written for _, written in ring.completions()]
        assert answered == list(range(number - min(batch, size), number))


def advance(queue: Queue, ring: Ring, written: int) -> None:
    ring.publish(ring.chain([(0, 1, 0)]))
    [(head, _)] = queue.take()
    queue.push(head, written)
    queue.publish()
    assert ring.completions() == [(head, written)]


def test_the_indices_wrap_at_sixteen_bits(memory: GuestMemory) -> None:
    queue, ring = connect(memory, 256)
    for at in range(U16 + 300):
        advance(queue, ring, at)
    assert ring.avail_index == ring.used_index == 299


# --- who wants to be woken (EVENT_IDX) --------------------------------------------------------------------------------


def test_without_event_idx_nothing_is_armed(memory: GuestMemory) -> None:
    queue, ring = connect(memory, event_idx=False)
    ring.publish(ring.chain([(0, 1, 0)]))
    assert queue.take()
    assert not queue.arm()
    assert ring.wants_notification_at == 0


def test_an_empty_queue_asks_for_the_next_chain(memory: GuestMemory) -> None:
    queue, ring = connect(memory, event_idx=True)
    for _ in range(3):
        ring.publish(ring.chain([(0, 1, 0)]))
        assert queue.take()
    assert not queue.arm()
    assert ring.wants_notification_at == 3


def test_a_chain_that_arrives_while_arming_is_not_missed(memory: GuestMemory) -> None:
    queue, ring = connect(memory, event_idx=True)
    assert queue.take() == []
    ring.publish(ring.chain([(0, 1, 0)]))
    assert queue.arm()
    assert queue.take()


@pytest.mark.parametrize(
    ("answers", "wanted_after", "interrupt"),
    [
        (1, 0, True),  # tell me when you go past 0
        (1, 1, False),  # … past 1: this was only the first
        (2, 1, True),
        (5, 2, True),
        (5, 4, True),
        (5, 5, False),
        (3, U16, False),  # long past
    ],
)
def test_an_interrupt_is_wanted_when_the_used_index_passes_the_event(
    memory: GuestMemory, answers: int, wanted_after: int, interrupt: bool
) -> None:
    queue, ring = connect(memory, event_idx=True)
    ring.want_interrupt_after(wanted_after)
    for _ in range(answers):
        queue.push(0, 0)
    assert queue.publish() == interrupt


@given(old=st.integers(0, U16), added=st.integers(0, 256), event=st.integers(0, U16))
@settings(max_examples=200)
def test_the_event_is_passed_if_it_is_one_of_the_new_indices(old: int, added: int, event: int) -> None:
    """The formula of the specification (§2.7.10), against its meaning."""
    memory = GuestMemory(1 * MIB)
    queue, ring = connect(memory, 256, event_idx=True)
    for _ in range(old % 512):
        queue.push(0, 0)
        queue.publish()
    old %= 512
    ring.want_interrupt_after(event)
    for _ in range(added):
        queue.push(0, 0)
    passed = {(old + step) & U16 for step in range(added)}
    assert queue.publish() == (event in passed)
