"""The metrics line: its shape from the first line on, and what the numbers mean (api.md §10)."""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from hibana.errors import MetricsInitError, MetricsWriteError
from hibana.observe import log, metrics
from hibana.observe.metrics import MetricsWriter
from hibana.observe.metrics_groups import METRICS, Metrics

GROUPS = [
    "api_server", "balloon", "block", "deprecated_api", "get_api_requests", "i8042", "uart", "latencies_us", "logger",
    "mmds", "net", "patch_api_requests", "put_api_requests", "seccomp", "vcpu", "vmm", "signals", "vsock", "entropy",
    "pmem", "interrupts", "memory_hotplug",
]  # fmt: skip


class Journal:
    """A metrics object, its writer, and the file it writes to."""

    def __init__(self, path: str, **options: Any) -> None:
        self.path = path
        self.counters = Metrics()
        self.writer = MetricsWriter(self.counters)
        self.writer.configure(path, **options)

    def lines(self) -> list[dict[str, Any]]:
        with open(self.path) as file:
            return [json.loads(line) for line in file]


@pytest.fixture
def journal(tmp_path: os.PathLike[str]) -> Journal:
    return Journal(os.path.join(tmp_path, "metrics"))


class Clock:
    """Timers that go off when told."""

    def __init__(self) -> None:
        self.pending: list[tuple[float, Callable[[], None]]] = []

    def after(self, seconds: float, handler: Callable[[], None], /) -> None:
        self.pending.append((seconds, handler))

    def strike(self) -> None:
        pending, self.pending = self.pending, []
        for _seconds, handler in pending:
            handler()


def leaves(value: object) -> int:
    return sum(map(leaves, value.values())) if isinstance(value, dict) else 1


def test_the_first_line_has_every_group_and_every_key_in_order(journal: Journal) -> None:
    before_ms = time.time_ns() // 1_000_000
    journal.writer.flush()
    (line,) = journal.lines()
    assert list(line) == ["utc_timestamp_ms", *GROUPS]
    assert before_ms <= line.pop("utc_timestamp_ms") <= time.time_ns() // 1_000_000
    assert leaves(line) == 238
    assert list(line["vcpu"]) == [
        "exit_io_in", "exit_io_out", "exit_mmio_read", "exit_mmio_write", "failures", "kvmclock_ctrl_fails",
        "exit_io_in_agg", "exit_io_out_agg", "exit_mmio_read_agg", "exit_mmio_write_agg",
    ]  # fmt: skip
    assert line["vcpu"]["exit_io_in_agg"] == {"min_us": 0, "max_us": 0, "sum_us": 0}


def test_a_line_is_compact_json_and_ends_with_a_line_feed(journal: Journal) -> None:
    journal.writer.flush()
    with open(journal.path, "rb") as file:
        text = file.read()
    assert text.startswith(b'{"utc_timestamp_ms":')
    assert b'},"vmm":{"panic_count":0},"signals":{"sigbus":0,' in text
    assert text.endswith(b"}}\n")
    assert b" " not in text


def test_counts_are_written_as_growth_and_stored_values_as_they_are(journal: Journal) -> None:
    counters = journal.counters
    counters.vcpu.exit_io_in += 3
    counters.latencies_us.pause_vm = 40
    counters.signals.sigpipe += 1
    journal.writer.flush()
    counters.vcpu.exit_io_in += 2
    journal.writer.flush()
    journal.writer.flush()
    lines = journal.lines()
    assert [line["vcpu"]["exit_io_in"] for line in lines] == [3, 2, 0]
    assert [line["latencies_us"]["pause_vm"] for line in lines] == [40, 40, 40]
    assert [line["signals"]["sigpipe"] for line in lines] == [1, 0, 0]


def test_a_latency_keeps_its_extremes_and_writes_the_growth_of_its_sum(journal: Journal) -> None:
    agg = journal.counters.vcpu.exit_mmio_read_agg
    agg.record(7)
    agg.record(3)
    agg.record(5)
    journal.writer.flush()
    agg.record(9)
    journal.writer.flush()
    assert [line["vcpu"]["exit_mmio_read_agg"] for line in journal.lines()] == [
        {"min_us": 3, "max_us": 7, "sum_us": 15},
        {"min_us": 3, "max_us": 9, "sum_us": 9},
    ]


def test_devices_come_in_order_of_their_ids_and_before_their_sum(journal: Journal) -> None:
    block = journal.counters.block
    block["scratch"].read_count += 1
    block["rootfs"].read_count += 2
    block["rootfs"].read_agg.record(5)
    block["scratch"].read_agg.record(6)
    assert block["rootfs"] is block["rootfs"]
    journal.writer.flush()
    block["scratch"].read_count += 10
    journal.writer.flush()
    first, second = journal.lines()
    names = list(first)
    at = names.index("block_rootfs")
    assert names[at : at + 3] == ["block_rootfs", "block_scratch", "block"]
    assert first["block_rootfs"]["read_agg"] == {"min_us": 5, "max_us": 5, "sum_us": 5}
    assert first["block"]["read_agg"] == {"min_us": 0, "max_us": 0, "sum_us": 11}
    assert [line["block"]["read_count"] for line in (first, second)] == [3, 10]
    assert list(first["block"]) == list(first["block_rootfs"])


def test_vhost_user_drives_have_no_sum(journal: Journal) -> None:
    journal.counters.vhost_user_block["data"].init_time_us = 12
    journal.writer.flush()
    (line,) = journal.lines()
    assert line["vhost_user_block_data"]["init_time_us"] == 12
    assert "vhost_user_block" not in line


def test_the_id_and_the_properties_come_first_if_wanted(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "metrics")
    journal = Journal(path, emit_id=True, properties={"zone": "b", 'a "quote"': "ü"})
    journal.writer.flush()
    (line,) = journal.lines()
    assert list(line)[:4] == ["utc_timestamp_ms", "id", "properties", "api_server"]
    assert line["id"] == log.instance()
    assert list(line["properties"].items()) == [('a "quote"', "ü"), ("zone", "b")]


def test_metrics_can_be_configured_once(journal: Journal, tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(MetricsInitError) as caught:
        journal.writer.configure(os.path.join(tmp_path, "other"))
    assert str(caught.value) == (
        "Cannot initialize the metrics system due to bad user input: Reinitialization of metrics not allowed."
    )
    assert not os.path.exists(os.path.join(tmp_path, "other"))


def test_a_failed_configuration_may_be_followed_by_a_good_one(tmp_path: os.PathLike[str]) -> None:
    writer = MetricsWriter(Metrics())
    with pytest.raises(MetricsInitError) as caught:
        writer.configure("/nonexistent/metrics")
    assert str(caught.value) == (
        "Cannot initialize the metrics system due to bad user input: No such file or directory (os error 2)"
    )
    writer.configure(os.path.join(tmp_path, "metrics"))
    writer.flush()


def test_without_a_destination_a_flush_is_a_success() -> None:
    MetricsWriter(Metrics()).flush()


def test_a_started_microvm_writes_at_once_and_then_every_minute_unless_paused(journal: Journal) -> None:
    clock, paused = Clock(), False
    journal.writer.start_timer(clock, lambda: paused)
    assert len(journal.lines()) == 1
    assert [seconds for seconds, _handler in clock.pending] == [60.0]
    clock.strike()
    assert len(journal.lines()) == 2
    paused = True
    clock.strike()
    assert len(journal.lines()) == 2
    paused = False
    clock.strike()
    assert len(journal.lines()) == 3
    assert len(clock.pending) == 1


def test_a_line_nobody_reads_is_an_error_to_who_asked_and_a_count_to_the_timer(
    journal: Journal, tmp_path: os.PathLike[str], capfd: pytest.CaptureFixture[str]
) -> None:
    path = os.path.join(tmp_path, "fifo")
    os.mkfifo(path)
    counters = Metrics()
    writer = MetricsWriter(counters)
    writer.configure(path)
    flushes = 0
    with pytest.raises(
        MetricsWriteError, match=r"^Failed to write metrics: Resource temporarily unavailable \(os error 11\)$"
    ):
        while flushes < 100:
            writer.flush()
            flushes += 1
    assert counters.logger.missed_metrics_count == 0
    writer.flush_or_count()
    assert counters.logger.missed_metrics_count == 1
    assert "Failed to write metrics: " in capfd.readouterr().out


def test_a_reader_of_a_full_fifo_never_sees_half_a_line(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "fifo")
    os.mkfifo(path)
    writer = MetricsWriter(Metrics())
    writer.configure(path)
    fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    received = b""
    for _ in range(50):
        for _ in range(3):
            writer.flush_or_count()
        received += os.read(fifo, 5000)
    received += os.read(fifo, 1 << 20)
    os.close(fifo)
    complete = received[: received.rindex(b"\n")]
    assert all(leaves(json.loads(line)) == 239 for line in complete.splitlines())


def test_the_start_up_times_count_from_what_the_jailer_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic_ns", lambda: 5_000_000)
    monkeypatch.setattr("time.process_time_ns", lambda: 900_000)
    monkeypatch.setattr(METRICS.api_server, "process_startup_time_us", 0)
    monkeypatch.setattr(METRICS.api_server, "process_startup_time_cpu_us", 0)
    metrics.record_startup(None, None, 0)
    assert METRICS.api_server.process_startup_time_us == 0
    assert METRICS.api_server.process_startup_time_cpu_us == 0
    metrics.record_startup(4_000, 100, 50)
    assert METRICS.api_server.process_startup_time_us == 1_000
    assert METRICS.api_server.process_startup_time_cpu_us == 850
