"""A drive, asked by a driver that plays by the rules, or by most of them."""

import errno
from itertools import count
from struct import pack
from typing import Final

import pytest

from hibana.devices.rate_limiter import Limit, RateLimiter
from hibana.devices.virtio.block import FEATURE_FLUSH, FEATURE_RO, Block
from hibana.devices.virtio.block_request import FLUSH, GET_ID, IN, IOERR, OK, OUT, UNSUPP
from hibana.devices.virtio.device import EVENT_IDX, VERSION_1
from hibana.devices.virtio.queue import NEXT, WRITE
from hibana.observe.metrics_groups import METRICS
from hibana.testing.disk import MemoryDisk
from hibana.testing.fakes import FakeTimers
from hibana.testing.virtio import CANARY, Driver, Offer

SECTOR: Final = 512
SECTORS: Final = 16
CONTENT: Final = bytes(at * 31 % 253 for at in range(SECTORS * SECTOR))
STATUS: Final[Offer] = ("w", 1)
DISCARD: Final = 11


def header(kind: int, sector: int = 0) -> Offer:
    return "r", pack("<IIQ", kind, 0, sector)


class Bench:
    """A drive of 16 sectors between a driver and a disk in our hands."""

    def __init__(self, ops: Limit | None = None, bandwidth: Limit | None = None, room: int | None = None) -> None:
        METRICS.block.pop("drive", None)
        self.timers = FakeTimers()
        self.disk = MemoryDisk(CONTENT, room)
        self.block = Block("drive", self.disk, RateLimiter(bandwidth, ops, self.timers, self.timers.now_ns))
        self.driver = Driver()
        self.driver.start(self.block)

    def ask(self, *offers: Offer) -> tuple[int, list[bytes]]:
        """Make one request; give the used length and what lies in the writable buffers."""
        head = self.driver.offer(*offers)
        self.driver.remember()
        self.driver.kick()
        ((answered, written),) = self.driver.completions()
        assert answered == head
        assert self.driver.stray_writes() == []
        assert self.driver.unreported_writes() == []
        return written, self.driver.written(head)

    def metrics(self) -> dict[str, object]:
        """Give what was counted since the last time, but for times."""
        counted = METRICS.block["drive"].emit()
        return {key: value for key, value in counted.items() if value and not key.endswith("_agg")}


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- what it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("writeback", [False, True])
def test_it_offers_what_its_configuration_says(read_only: bool, writeback: bool) -> None:
    limiter = RateLimiter(None, None, FakeTimers())
    block = Block("drive", MemoryDisk(CONTENT), limiter, read_only=read_only, writeback=writeback)
    offered = VERSION_1 | EVENT_IDX | FEATURE_RO * read_only | FEATURE_FLUSH * writeback
    assert (block.type_id, block.id, block.queue_sizes, block.features) == (2, "drive", (256,), offered)


def test_half_a_sector_at_the_end_is_invisible() -> None:
    block = Block("drive", MemoryDisk(bytes(3 * SECTOR + 511)), RateLimiter(None, None, FakeTimers()))
    assert block.read_config(0, 8) == 3
    assert block.read_config(8, 4) == 0


def test_a_driver_cannot_change_the_capacity(bench: Bench) -> None:
    bench.block.write_config(0, 8, 1000)
    assert bench.block.read_config(0, 8) == SECTORS
    assert bench.metrics() == {"cfg_fails": 1}


# --- requests that make sense -----------------------------------------------------------------------------------------


def test_a_read_fills_the_buffer_and_says_so(bench: Bench) -> None:
    written, (content, status) = bench.ask(header(IN, 3), ("w", 1024), STATUS)
    assert content == CONTENT[3 * SECTOR : 5 * SECTOR]
    assert (written, status) == (1025, bytes([OK]))
    assert bench.driver.irq.used_count == [1]
    assert bench.metrics() == {"queue_event_count": 1, "read_bytes": 1024, "read_count": 1}


def test_a_write_changes_the_disk_and_nothing_else(bench: Bench) -> None:
    written, (status,) = bench.ask(header(OUT, 2), ("r", b"x" * 512), STATUS)
    assert (written, status) == (1, bytes([OK]))
    assert bench.disk.content == CONTENT[:1024] + b"x" * 512 + CONTENT[1536:]
    assert bench.metrics() == {"queue_event_count": 1, "write_bytes": 512, "write_count": 1}


@pytest.mark.parametrize("data", [[], [("w", 77)], [("r", b"any")]])
def test_a_flush_ignores_data(bench: Bench, data: list[Offer]) -> None:
    written, buffers = bench.ask(header(FLUSH), *data, STATUS)
    assert (written, buffers[-1]) == (1, bytes([OK]))
    assert bench.disk.flushes == 1
    assert bench.metrics() == {"queue_event_count": 1, "flush_count": 1}


def test_the_serial_number_has_twenty_bytes(bench: Bench) -> None:
    written, (serial, status) = bench.ask(header(GET_ID), ("w", 30), STATUS)
    assert serial == bench.disk.id + bytes([CANARY]) * 10
    assert (written, status) == (21, bytes([OK]))


def test_an_unknown_request_is_refused_as_such(bench: Bench) -> None:
    written, (status,) = bench.ask(header(DISCARD), ("r", bytes(16)), STATUS)
    assert (written, status) == (1, bytes([UNSUPP]))
    assert bench.metrics() == {"queue_event_count": 1, "invalid_reqs_count": 1}


def test_the_last_sector_can_be_read_and_nothing_can_be_read_after_it(bench: Bench) -> None:
    written, (content, _) = bench.ask(header(IN, SECTORS - 1), ("w", 512), STATUS)
    assert (written, content) == (513, CONTENT[-512:])
    assert bench.ask(header(IN, SECTORS), ("w", 0), STATUS) == (1, [b"", bytes([OK])])


def test_the_time_the_disk_takes_is_kept_by_direction(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count(step=5000)
    monkeypatch.setattr("hibana.devices.virtio.block.monotonic_ns", lambda: next(ticks))
    bench.ask(header(IN), ("w", 512), STATUS)
    bench.ask(header(IN), ("w", 500), ("w", 12), STATUS)
    bench.ask(header(OUT), ("r", bytes(512)), STATUS)
    counted = METRICS.block["drive"].emit()
    assert counted["read_agg"] == {"min_us": 5, "max_us": 5, "sum_us": 15}  # the second one moved two pieces
    assert counted["write_agg"] == {"min_us": 5, "max_us": 5, "sum_us": 5}


def test_many_requests_are_answered_with_one_interrupt(bench: Bench) -> None:
    heads = [bench.driver.offer(header(IN, sector), ("w", 512), STATUS) for sector in range(5)]
    bench.driver.kick()
    assert bench.driver.completions() == [(head, 513) for head in heads]
    assert [bench.driver.written(head)[0] for head in heads] == [CONTENT[at : at + 512] for at in range(0, 2560, 512)]
    assert bench.driver.irq.used_count == [1]
    assert bench.metrics()["remaining_reqs_count"] == 4 + 3 + 2 + 1


def test_a_driver_that_is_looking_anyway_is_not_interrupted(bench: Bench) -> None:
    bench.driver.rings[0].want_interrupt_after(1)  # the second answer
    bench.ask(header(IN), ("w", 512), STATUS)
    assert bench.driver.irq.used_count == [0]
    bench.ask(header(IN), ("w", 512), STATUS)
    assert bench.driver.irq.used_count == [1]


def test_a_notification_of_nothing_is_counted(bench: Bench) -> None:
    bench.driver.kick()
    assert bench.driver.irq.used_count == [0]
    assert bench.metrics() == {"queue_event_count": 1, "no_avail_buffer": 1}


# --- where the borders between descriptors lie ------------------------------------------------------------------------


def test_what_exceeds_the_header_is_ignored_in_three_descriptors(bench: Bench) -> None:
    _, longer = header(OUT, 1)
    assert isinstance(longer, bytes)
    written, (status,) = bench.ask(("r", longer + b"more"), ("r", b"y" * 512), STATUS)
    assert (written, status) == (1, bytes([OK]))
    assert bench.disk.content[512:1024] == b"y" * 512


def test_the_status_is_the_first_byte_of_a_third_descriptor(bench: Bench) -> None:
    for offers in ([header(IN), ("w", 512)], [header(FLUSH), ("r", b"")]):
        _, buffers = bench.ask(*offers, ("w", 4))
        assert buffers[-1] == bytes([OK, CANARY, CANARY, CANARY])


def test_header_and_data_come_in_pieces(bench: Bench) -> None:
    _, whole = header(OUT, 1)
    assert isinstance(whole, bytes)
    pieces: list[Offer] = [("r", whole[:3]), ("r", b""), ("r", whole[3:] + b"a" * 100), ("r", b"b" * 412)]
    assert bench.ask(*pieces, STATUS) == (1, [bytes([OK])])
    assert bench.disk.content[512:1024] == b"a" * 100 + b"b" * 412


def test_room_comes_in_pieces_and_the_status_is_its_last_byte(bench: Bench) -> None:
    written, buffers = bench.ask(header(IN, 1), ("w", 5), ("w", 0), ("w", 507), ("w", 513))
    assert b"".join(buffers) == CONTENT[512:1536] + bytes([OK])
    assert written == 1025


def test_two_descriptors_are_enough_for_a_read(bench: Bench) -> None:
    assert bench.ask(header(IN, 1), ("w", 513)) == (513, [CONTENT[512:1024] + bytes([OK])])


def test_the_serial_number_is_spread_over_pieces(bench: Bench) -> None:
    written, buffers = bench.ask(header(GET_ID), ("w", 7), ("w", 20), STATUS)
    assert b"".join(buffers) == bench.disk.id + bytes([CANARY]) * 7 + bytes([OK])
    assert written == 21


# --- requests that make no sense --------------------------------------------------------------------------------------

NONSENSE: Final[dict[str, list[Offer]]] = {
    "a read into read-only memory": [header(IN), ("r", bytes(512)), STATUS],
    "a write from write-only memory": [header(OUT), ("w", 512), STATUS],
    "an id into read-only memory": [header(GET_ID), ("r", bytes(20)), STATUS],
    "an id without room": [header(GET_ID), ("w", 19), STATUS],
    "a write-only header": [("w", 16), ("w", 512), STATUS],
    "a header that is cut off": [("r", bytes(8)), ("w", 512), STATUS],
    "half a sector": [header(IN), ("w", 256), STATUS],
    "half a sector in pieces": [header(IN), ("w", 512), ("w", 256), STATUS],
    "one sector too many": [header(IN, SECTORS - 1), ("w", 1024), STATUS],
    "a sector that is not there": [header(OUT, SECTORS), ("r", bytes(512)), STATUS],
    "a sector at the end of the world": [header(IN, (1 << 64) - 1), ("w", 512), STATUS],
    "a read without room": [header(IN), STATUS],
    "a write without data": [header(OUT), STATUS],
    "a read with data": [header(IN), ("r", b"!"), ("w", 512), STATUS],
    "a write with room": [header(OUT), ("r", bytes(512)), ("w", 512), STATUS],
}


@pytest.mark.parametrize("offers", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_answered_where_there_is_room_for_an_answer(bench: Bench, offers: list[Offer]) -> None:
    written, buffers = bench.ask(*offers)
    assert (written, buffers[-1]) == (1, bytes([IOERR]))
    assert bench.metrics() == {"queue_event_count": 1, "execute_fails": 1}
    assert bench.disk.content == CONTENT
    assert bench.driver.irq.fault is None


@pytest.mark.parametrize(
    "offers",
    [
        [header(IN)],
        [("w", 16)],
        [header(FLUSH), ("r", b"s")],
        [header(IN), ("w", 512), ("r", b"s")],
        [header(IN), ("w", 512), ("w", 0)],
        [header(OUT), ("r", bytes(512)), ("r", bytes(512)), ("w", 0)],
    ],
    ids=str,
)
def test_without_room_for_a_status_nothing_is_done(bench: Bench, offers: list[Offer]) -> None:
    written, buffers = bench.ask(*offers)
    assert written == 0
    assert set(b"".join(buffers)) <= {CANARY}
    assert bench.disk.content == CONTENT
    assert bench.metrics() == {"queue_event_count": 1, "execute_fails": 1}


@pytest.mark.parametrize(("size", "flags"), [(8, 0), (16, WRITE)], ids=["too short", "write-only"])
def test_a_header_must_be_offered_as_one_whatever_lies_there(bench: Bench, size: int, flags: int) -> None:
    ring = bench.driver.rings[0]
    (addr, _, _), *others = [bench.driver.place(offer) for offer in (header(IN), ("w", 512), STATUS)]
    ring.publish(ring.chain([(addr, size, flags), *others]))
    bench.driver.kick()
    assert bench.driver.completions() == [(0, 1)]
    assert bench.driver.memory.read(others[0][0], 512) == bytes([CANARY]) * 512
    assert bench.metrics()["execute_fails"] == 1


class Nowhere:
    """Requests of which one buffer lies outside of memory."""

    def __init__(self, bench: Bench, kind: int, lost: int) -> None:
        self.driver = bench.driver
        data: Offer = ("w", 512) if kind == IN else ("r", b"z" * 512)
        self.buffers = [self.driver.place(offer) for offer in (header(kind), data, STATUS)]
        addr, size, flags = self.buffers[lost]
        self.buffers[lost] = (addr + self.driver.memory.size, size, flags)

    def ask(self) -> tuple[int, int]:
        """Give the used length and what lies where the status should be."""
        ring = self.driver.rings[0]
        ring.publish(ring.chain(self.buffers))
        self.driver.kick()
        ((_, written),) = self.driver.completions()
        addr = self.buffers[2][0]
        return written, self.driver.memory.read(addr, 1)[0] if addr < self.driver.memory.size else -1


@pytest.mark.parametrize("kind", [IN, OUT])
def test_a_header_outside_of_memory_is_nonsense(bench: Bench, kind: int) -> None:
    assert Nowhere(bench, kind, lost=0).ask() == (1, IOERR)
    assert bench.metrics()["execute_fails"] == 1


@pytest.mark.parametrize("kind", [IN, OUT])
def test_data_outside_of_memory_is_an_error_of_input_and_output(bench: Bench, kind: int) -> None:
    assert Nowhere(bench, kind, lost=1).ask() == (1, IOERR)
    assert bench.metrics() == {"queue_event_count": 1, "invalid_reqs_count": 1}


def test_a_status_outside_of_memory_cannot_be_given(bench: Bench) -> None:
    assert Nowhere(bench, OUT, lost=2).ask() == (0, -1)
    assert bench.disk.content[:512] == b"z" * 512
    assert bench.metrics() == {"queue_event_count": 1, "write_bytes": 512, "write_count": 1}


def test_a_ring_that_makes_no_sense_breaks_the_device_but_what_was_answered_counts(bench: Bench) -> None:
    head = bench.driver.offer(header(IN), ("w", 512), STATUS)
    bench.driver.rings[0].publish(999)
    bench.driver.kick()
    assert bench.driver.irq.fault is not None
    assert bench.driver.completions() == [(head, 513)]
    assert bench.driver.irq.used_count == [1]


# --- hosts that fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offers", [[header(IN), ("w", 512)], [header(OUT), ("r", bytes(512))], [header(FLUSH)]])
def test_a_broken_disk_is_an_error_of_input_and_output(bench: Bench, offers: list[Offer]) -> None:
    bench.disk.broken = errno.EIO
    written, buffers = bench.ask(*offers, STATUS)
    assert (written, buffers[-1]) == (1, bytes([IOERR]))
    assert bench.metrics()["invalid_reqs_count"] == 1


def test_a_disk_that_became_shorter_gives_what_it_has(bench: Bench) -> None:
    del bench.disk.content[1000:]
    written, (content, status) = bench.ask(header(IN, 1), ("w", 1024), STATUS)
    assert content == CONTENT[512:1000] + bytes([CANARY]) * (1024 - 488)
    assert (written, status) == (489, bytes([IOERR]))
    assert bench.metrics() == {"queue_event_count": 1, "invalid_reqs_count": 1, "read_bytes": 488}


def test_a_disk_that_takes_no_more_stores_what_it_can(bench: Bench) -> None:
    del bench.disk.content[1000:]
    assert bench.ask(header(OUT, 1), ("r", b"n" * 1024), STATUS) == (1, [bytes([IOERR])])
    assert bench.disk.content == CONTENT[:512] + b"n" * 488
    assert bench.metrics() == {"queue_event_count": 1, "invalid_reqs_count": 1, "write_bytes": 488}


def test_a_disk_that_moves_little_at_a_time_is_asked_again(bench: Bench) -> None:
    bench.disk.at_most = 100
    written, (content, _) = bench.ask(header(IN, 1), ("w", 1024), STATUS)
    assert (written, content) == (1025, CONTENT[512:1536])
    assert bench.ask(header(OUT, 4), ("r", CONTENT[:512]), STATUS) == (1, [bytes([OK])])
    assert bench.disk.content[2048:2560] == CONTENT[:512]


# --- rate limits ------------------------------------------------------------------------------------------------------


def test_operations_beyond_the_limit_wait_for_tokens() -> None:
    bench = Bench(ops=Limit(2, 0, 1000))
    heads = [bench.driver.offer(header(IN, at), ("w", 512), STATUS) for at in range(3)]
    bench.driver.kick()
    assert bench.driver.completions() == [(heads[0], 513), (heads[1], 513)]
    assert METRICS.block["drive"].remaining_reqs_count == 2 + 1 + 0
    bench.driver.kick()
    assert bench.driver.completions() == []
    bench.timers.advance(1.0)
    assert bench.driver.completions() == [(heads[2], 513)]
    counted = METRICS.block["drive"]
    assert counted.rate_limiter_throttled_events >= 2
    assert counted.rate_limiter_event_count >= 1


def test_bytes_beyond_the_limit_wait_and_give_their_operation_back() -> None:
    bench = Bench(ops=Limit(2, 0, 1_000_000), bandwidth=Limit(512, 0, 1000))
    heads = [bench.driver.offer(header(OUT, at), ("r", b"w" * 512), STATUS) for at in range(2)]
    bench.driver.kick()
    assert bench.driver.completions() == [(heads[0], 1)]
    bench.timers.advance(1.0)
    assert bench.driver.completions() == [(heads[1], 1)]
    assert bench.disk.content[:1024] == b"w" * 1024


def test_what_still_waits_is_counted_where_the_limit_stopped() -> None:
    bench = Bench(ops=Limit(1, 0, 1000))
    for at in range(4):
        bench.driver.offer(header(IN, at), ("w", 512), STATUS)
    bench.driver.kick()
    assert METRICS.block["drive"].remaining_reqs_count == 3 + 2


def test_while_the_limit_is_reached_nobody_looks_into_the_queue() -> None:
    bench = Bench(ops=Limit(1, 0, 1000))
    for _ in range(2):
        bench.driver.offer(header(IN), ("w", 512), STATUS)
    bench.driver.kick()
    bench.driver.kick()
    counted = METRICS.block["drive"]
    assert (counted.rate_limiter_throttled_events, counted.no_avail_buffer) == (2, 0)


def test_an_empty_read_is_no_end_of_the_disk() -> None:
    bench = Bench(ops=Limit(9, 0, 1000))
    assert bench.ask(header(IN), ("w", 0), STATUS) == (1, [b"", bytes([OK])])


def test_requests_without_data_cost_no_bytes() -> None:
    bench = Bench(bandwidth=Limit(512, 0, 1000))
    bench.ask(header(IN), ("w", 512), STATUS)
    assert bench.ask(header(FLUSH), STATUS) == (1, [bytes([OK])])
    assert bench.ask(header(GET_ID), ("w", 20), STATUS)[0] == 21


def test_nonsense_costs_nothing() -> None:
    bench = Bench(ops=Limit(1, 0, 1000))
    assert bench.ask(header(IN), ("w", 1), STATUS)[0] == 1
    assert bench.ask(header(IN), ("w", 512), STATUS)[0] == 513


def test_a_limit_that_is_taken_away_is_forgotten() -> None:
    bench = Bench(ops=Limit(1, 0, 1000))
    bench.ask(header(IN), ("w", 512), STATUS)
    bench.block.limiter.update(None, Limit(0, 0, 0))
    bench.ask(header(IN), ("w", 512), STATUS)
    bench.ask(header(IN), ("w", 512), STATUS)


# --- life -------------------------------------------------------------------------------------------------------------


def test_another_disk_has_another_size_and_the_driver_hears_of_it(bench: Bench) -> None:
    bench.block.replace_disk(MemoryDisk(bytes(SECTOR)))
    assert bench.block.read_config(0, 8) == 1
    assert bench.driver.irq.config_count == 1
    assert bench.metrics() == {"update_count": 1}
    assert bench.ask(header(IN, 1), ("w", 512), STATUS)[0] == 1, "beyond the new end"
    assert bench.ask(header(IN, 0), ("w", 512), STATUS) == (513, [bytes(512), bytes([OK])])


def test_nobody_is_told_of_another_disk_before_there_is_a_driver(bench: Bench) -> None:
    bench.block.reset()
    bench.block.replace_disk(MemoryDisk(bytes(SECTOR)))
    assert bench.driver.irq.config_count == 0
    assert bench.block.read_config(0, 8) == 1


def test_after_a_reset_another_driver_can_begin(bench: Bench) -> None:
    bench.ask(header(IN), ("w", 512), STATUS)
    assert bench.block.reset()
    assert not bench.block.active
    bench.driver.start(bench.block)
    assert bench.ask(header(IN), ("w", 512), STATUS)[0] == 513


@pytest.mark.parametrize("writeback", [False, True])
def test_the_end_flushes_what_the_driver_could_have_flushed(writeback: bool) -> None:
    disk = MemoryDisk(CONTENT)
    Block("drive", disk, RateLimiter(None, None, FakeTimers()), writeback=writeback).close()
    assert disk.flushes == writeback


def test_a_disk_that_is_broken_at_the_end_stops_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    for room in (None, 1):
        disk = MemoryDisk(CONTENT, room)
        disk.broken = errno.EIO
        Block("drive", disk, RateLimiter(None, None, FakeTimers()), writeback=True).close()
        assert "drive: cannot flush the drive: I/O error (os error 5)" in capfd.readouterr().out


def test_failures_are_counted_where_they_belong(bench: Bench) -> None:
    bench.block.count_activation_failure()
    bench.block.count_event_failure()
    assert bench.metrics() == {"activate_fails": 1, "event_fails": 1}


def test_a_descriptor_with_the_indirect_flag_is_an_ordinary_one(bench: Bench) -> None:
    indirect = 4
    ring = bench.driver.rings[0]
    buffers = [bench.driver.place(offer) for offer in (header(IN), ("w", 512), STATUS)]
    for at, (addr, size, flags) in enumerate(buffers):
        ring.describe(at, addr, size, flags | indirect | (NEXT if at < 2 else 0), at + 1)
    assert buffers[1][2] == WRITE
    ring.publish(0)
    bench.driver.kick()
    assert bench.driver.completions() == [(0, 513)]
