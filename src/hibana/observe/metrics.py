"""Writing the metrics: one JSON object per line, after boot, every minute, on demand and at the end (api.md §10.1).

The counters themselves are in `metrics_groups.py`; count with `from hibana.observe.metrics_groups import METRICS`.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

from hibana.errors import MetricsConfiguredTwice, MetricsInitError, MetricsWriteError, os_text
from hibana.observe import log
from hibana.observe.metrics_groups import METRICS, Metrics
from hibana.observe.sink import Sink

PERIOD_S: Final = 60.0


class Timers(Protocol):
    """What calls back later: the event loop."""

    def after(self, seconds: float, handler: Callable[[], None], /) -> object: ...


class MetricsWriter:
    """Where metrics lines go, once that is configured; the module's functions are the methods of one writer."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._sink: Sink | None = None
        self._head: dict[str, object] = {}

    def configure(self, path: str, emit_id: bool = False, properties: dict[str, str] | None = None) -> None:
        """Open the destination; possible once. Raises MetricsInitError."""
        if self._sink is not None:
            raise MetricsInitError(cause=MetricsConfiguredTwice())
        try:
            self._sink = Sink.open(path)
        except (OSError, ValueError) as error:
            raise MetricsInitError(cause=os_text(error)) from error
        if emit_id:
            self._head["id"] = log.instance()
        if properties is not None:
            self._head["properties"] = dict(sorted(properties.items()))

    def flush(self) -> None:
        """Write a line now, if a destination is configured. Raises MetricsWriteError."""
        if self._sink is None:
            return
        import msgspec.json  # not on the start-up path: the first line is written after boot

        now_ms = time.time_ns() // 1_000_000
        line = msgspec.json.encode({"utc_timestamp_ms": now_ms, **self._head, **self._metrics.emit()})
        try:
            self._sink.write(line + b"\n")
        except OSError as error:
            raise MetricsWriteError(cause=os_text(error)) from error

    def flush_or_count(self) -> None:
        """Write a line where nobody waits for the outcome; a lost line is logged and counted."""
        try:
            self.flush()
        except MetricsWriteError as error:
            self._metrics.logger.missed_metrics_count += 1
            log.error(str(error))

    def start_timer(self, timers: Timers, paused: Callable[[], bool]) -> None:
        """Write the first line of a started microVM now, and another every minute unless it is paused."""

        def tick() -> None:
            timers.after(PERIOD_S, tick)
            if not paused():
                self.flush_or_count()

        timers.after(PERIOD_S, tick)
        self.flush_or_count()


def record_startup(start_time_us: int | None, start_time_cpu_us: int | None, parent_cpu_time_us: int) -> None:
    """Store how long the process took to be ready for requests; the jailer tells when it all began."""
    if start_time_us is not None:
        METRICS.api_server.process_startup_time_us = max(0, time.monotonic_ns() // 1000 - start_time_us)
    if start_time_cpu_us is not None:
        here_us = time.process_time_ns() // 1000 - start_time_cpu_us
        METRICS.api_server.process_startup_time_cpu_us = max(0, here_us + parent_cpu_time_us)


_writer: Final = MetricsWriter(METRICS)

configure: Final = _writer.configure
flush: Final = _writer.flush
flush_or_count: Final = _writer.flush_or_count
start_timer: Final = _writer.start_timer
