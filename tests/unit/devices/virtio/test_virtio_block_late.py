"""A drive whose disk answers later: what is under way, and what happens to it meanwhile."""

import errno
from struct import pack
from typing import Final

import pytest

from hibana.devices.rate_limiter import Limit, RateLimiter
from hibana.devices.virtio.block import Block
from hibana.devices.virtio.block_request import FLUSH, GET_ID, IN, IOERR, OK, OUT
from hibana.observe.metrics_groups import METRICS
from hibana.testing.disk import MemoryDisk
from hibana.testing.fakes import FakeTimers
from hibana.testing.virtio import CANARY, Driver, Offer

SECTOR: Final = 512
CONTENT: Final = bytes(at * 31 % 253 for at in range(16 * SECTOR))
STATUS: Final[Offer] = ("w", 1)


class Bench:
    """A drive whose disk takes `room` requests and answers when told."""

    def __init__(self, room: int = 4, ops: Limit | None = None) -> None:
        METRICS.block.pop("late", None)
        self.timers = FakeTimers()
        self.disk = MemoryDisk(CONTENT, room)
        self.block = Block("late", self.disk, RateLimiter(None, ops, self.timers, self.timers.now_ns))
        self.driver = Driver()
        self.driver.start(self.block)

    def reads(self, *sectors: int) -> list[int]:
        """Offer a read of one sector each, without a notification."""
        return [self.driver.offer(header(IN, sector), ("w", SECTOR), STATUS) for sector in sectors]

    def answers(self) -> list[int]:
        """List the heads of what was answered since the last time."""
        return [head for head, _ in self.driver.completions()]

    def status(self, head: int) -> int:
        return self.driver.written(head)[-1][0]


def header(kind: int, sector: int = 0) -> Offer:
    return "r", pack("<IIQ", kind, 0, sector)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_request_is_answered_when_the_disk_is_done(bench: Bench) -> None:
    (head,) = bench.reads(3)
    bench.driver.remember()
    bench.driver.kick()
    assert (bench.answers(), bench.status(head), bench.driver.irq.used_count) == ([], CANARY, [0])
    bench.disk.finish()
    assert bench.driver.completions() == [(head, 513)]
    assert bench.driver.written(head) == [CONTENT[3 * SECTOR : 4 * SECTOR], bytes([OK])]
    assert bench.driver.irq.used_count == [1]
    assert bench.driver.stray_writes() == []
    assert bench.driver.unreported_writes() == []


def test_a_batch_is_submitted_once_and_answered_with_one_interrupt(bench: Bench) -> None:
    heads = bench.reads(1, 2, 3)
    bench.driver.kick()
    assert bench.disk.submissions == 1
    bench.disk.finish()
    assert bench.answers() == heads
    assert bench.driver.irq.used_count == [1]


def test_answers_come_in_the_order_of_the_disk(bench: Bench) -> None:
    heads = bench.reads(1, 2, 3)
    bench.driver.kick()
    bench.disk.finish(2, 0)
    assert bench.answers() == [heads[2], heads[0]]
    bench.disk.finish()
    assert bench.answers() == [heads[1]]


def test_writes_and_flushes_are_answered_late_too(bench: Bench) -> None:
    write = bench.driver.offer(header(OUT, 1), ("r", b"w" * SECTOR), STATUS)
    flush = bench.driver.offer(header(FLUSH), STATUS)
    bench.driver.kick()
    assert bench.disk.flushes == 0
    bench.disk.finish()
    assert bench.driver.completions() == [(write, 1), (flush, 1)]
    assert bench.disk.content[SECTOR : 2 * SECTOR] == b"w" * SECTOR
    assert bench.disk.flushes == 1


def test_a_late_failure_is_an_error_of_input_and_output(bench: Bench) -> None:
    (head,) = bench.reads(1)
    flush = bench.driver.offer(header(FLUSH), STATUS)
    bench.driver.kick()
    bench.disk.broken = errno.EIO
    bench.disk.finish()
    assert bench.driver.completions() == [(head, 1), (flush, 1)]
    assert (bench.status(head), bench.status(flush)) == (IOERR, IOERR)
    assert METRICS.block["late"].invalid_reqs_count == 2


def test_what_is_left_of_a_request_is_asked_for_again(bench: Bench) -> None:
    bench.disk.at_most = 300
    head = bench.driver.offer(header(IN, 1), ("w", 500), ("w", 12), STATUS)
    bench.driver.kick()
    for _ in range(3):  # 300, 200, 12
        assert bench.answers() == []
        bench.disk.finish()
    assert bench.driver.completions() == [(head, 513)]
    assert b"".join(bench.driver.written(head)) == CONTENT[SECTOR : 2 * SECTOR] + bytes([OK])


def test_a_disk_that_ends_early_gives_what_it_has(bench: Bench) -> None:
    (head,) = bench.reads(1)
    del bench.disk.content[1000:]
    bench.driver.kick()
    bench.disk.finish()
    assert bench.answers() == []
    bench.disk.finish()
    assert bench.driver.completions() == [(head, 489)]
    assert bench.status(head) == IOERR


# --- a disk that is busy ----------------------------------------------------------------------------------------------


def test_a_busy_disk_leaves_the_rest_in_the_queue_until_it_has_answered(bench: Bench) -> None:
    heads = bench.reads(*range(6))
    bench.driver.kick()
    assert len(bench.disk.waiting) == 4
    bench.driver.kick()
    assert METRICS.block["late"].io_engine_throttled_events == 2
    bench.disk.finish(0)
    assert bench.answers() == heads[:1]
    assert len(bench.disk.waiting) == 4, "the fifth has followed; the sixth waits again"
    bench.disk.finish()
    bench.disk.finish()
    assert bench.answers() == heads[1:]


def test_a_busy_disk_does_not_cost_tokens() -> None:
    bench = Bench(room=1, ops=Limit(2, 0, 1_000_000))
    heads = bench.reads(1, 2)
    bench.driver.kick()
    bench.disk.finish()
    bench.disk.finish()
    assert bench.answers() == heads


def test_a_driver_that_breaks_the_ring_while_the_disk_was_busy_is_given_up(bench: Bench) -> None:
    heads = bench.reads(*range(5))
    bench.driver.kick()
    bench.driver.rings[0].publish(999)
    bench.disk.finish()
    assert bench.answers() == heads[:4]
    assert bench.driver.irq.fault is not None


def test_answers_that_are_there_at_once_come_with_the_batch(bench: Bench) -> None:
    bench.disk.hurry = 2
    heads = bench.reads(1, 2)
    bench.driver.kick()
    assert bench.answers() == heads
    assert bench.driver.irq.used_count == [1]
    assert METRICS.block["late"].no_avail_buffer == 0


def test_a_busy_disk_that_answers_at_once_is_not_waited_for(bench: Bench) -> None:
    bench.disk.hurry = 9
    heads = bench.reads(*range(9))
    bench.driver.kick()
    assert bench.answers() == heads
    assert bench.disk.waiting == []


def test_pieces_that_are_moved_at_once_need_no_announcement(bench: Bench) -> None:
    bench.disk.hurry = 6
    bench.disk.at_most = 100
    (head,) = bench.reads(3)
    bench.driver.kick()
    assert bench.driver.completions() == [(head, 513)]


def test_answers_of_both_kinds_share_a_batch(bench: Bench) -> None:
    bench.disk.hurry = 1
    (read,) = bench.reads(3)
    serial = bench.driver.offer(header(GET_ID), ("w", 20), STATUS)
    bench.driver.kick()
    assert bench.driver.completions() == [(serial, 21), (read, 513)]


def test_an_answer_does_not_wait_for_a_request_that_was_moved_in_part(bench: Bench) -> None:
    bench.disk.hurry = 1
    bench.disk.at_most = 100
    bench.reads(3)
    head = bench.driver.offer(header(GET_ID), ("w", 20), STATUS)
    bench.driver.kick()
    assert bench.driver.completions() == [(head, 21)]
    assert bench.driver.irq.used_count == [1]


# --- what is under way when something else happens --------------------------------------------------------------------


def test_a_driver_that_was_given_up_gets_no_answers(bench: Bench) -> None:
    (head,) = bench.reads(1)
    bench.driver.kick()
    bench.driver.rings[0].publish(999)
    bench.driver.kick()
    bench.driver.remember()
    bench.disk.finish()
    assert (bench.answers(), bench.status(head)) == ([], CANARY)
    assert bench.driver.unreported_writes() == [], "but the disk has written, and the engine must know"


def test_a_reset_waits_for_the_disk_and_forgets(bench: Bench) -> None:
    bench.reads(*range(5))
    bench.driver.kick()
    bench.driver.remember()
    assert bench.block.reset()
    assert bench.disk.waiting == []
    assert bench.driver.unreported_writes() == []
    bench.driver.start(bench.block)
    (head,) = bench.reads(2)
    bench.driver.kick()
    bench.disk.finish()
    assert bench.driver.completions() == [(head, 513)]


def test_draining_answers_everything_even_what_had_to_wait(bench: Bench) -> None:
    heads = bench.reads(*range(6))
    bench.driver.kick()
    bench.block.drain()
    assert bench.answers() == heads
    assert bench.disk.waiting == []


def test_another_disk_takes_over_when_the_former_has_answered(bench: Bench) -> None:
    heads = bench.reads(1, 2)
    bench.driver.kick()
    successor = MemoryDisk(bytes(SECTOR))
    bench.block.replace_disk(successor)
    assert bench.answers() == heads
    assert bench.driver.written(heads[0])[0] == CONTENT[SECTOR : 2 * SECTOR]
    (head,) = bench.reads(0)
    bench.driver.kick()
    assert bench.driver.written(head) == [bytes(SECTOR), bytes([OK])]


def test_the_end_waits_for_what_is_under_way(bench: Bench) -> None:
    bench.driver.offer(header(OUT), ("r", b"l" * SECTOR), STATUS)
    bench.driver.kick()
    bench.block.close()
    assert bench.disk.content[:SECTOR] == b"l" * SECTOR
