"""The log, in the reference's line format (api.md §9).

    2026-08-21T12:52:00.123456789 [my-id:fc_api:INFO:src/hibana/api/routes.py:81] The API server received a …

`logging` costs 10 ms at start-up and formats nothing like this; so this is all there is: a level, a filter, a line.
Losing a line is better than stopping a microVM: a full FIFO or disk only counts in `logger.missed_log_count`.
"""

import sys
import time
from threading import local
from types import FrameType
from typing import Final

from hibana.errors import LogFileError, os_text
from hibana.observe.metrics_groups import METRICS
from hibana.observe.sink import Sink

OFF: Final = 0
ERROR: Final = 1
WARN: Final = 2
INFO: Final = 3
DEBUG: Final = 4
TRACE: Final = 5

_NAMES: Final = ("OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE")
_LEVELS: Final = {name.lower(): level for level, name in enumerate(_NAMES)} | {"warning": WARN}

# Module filters are written for the reference's module paths. The longest matching prefix decides; what is not listed
# keeps its own path below `vmm`, and everything below a listed package keeps its rest.
_MODULE_PATHS: Final = {
    "hibana": "vmm",
    "hibana.api": "firecracker::api_server",
    "hibana.api.routes": "firecracker::api_server::parsed_request",
    "hibana.bus": "vmm::vstate::bus",
    "hibana.boot": "vmm::arch",
    "hibana.cli": "firecracker",
    "hibana.cli.firecracker": "firecracker",
    "hibana.config": "vmm::vmm_config",
    "hibana.config.resources": "vmm::resources",
    "hibana.devices.mmds": "vmm::mmds",
    "hibana.engine": "vmm::vstate",
    "hibana.memory": "vmm::vstate::memory",
    "hibana.observe": "vmm::logger",
    "hibana.snapshot": "vmm::persist",
    "hibana.vmm": "vmm",
    "hibana.vmm.assemble": "vmm::builder",
    "hibana.vmm.controller": "vmm::rpc_interface",
    "hibana.vmm.vcpu_thread": "vmm::vstate::vcpu",
}

_BURST: Final = 10
_REFILL_NS: Final = 500_000_000  # one message more every half second


def level_named(name: str) -> int | None:
    """Find a level by its name, in any case; None if there is no such level."""
    return _LEVELS.get(name.lower())


def module_path(module: str) -> str:
    """Translate the name of one of our modules into the path the reference's users filter by."""
    known, rest = module, ""
    while known not in _MODULE_PATHS:
        known, _dot, last = known.rpartition(".")
        rest = f"::{last}{rest}"
        if not known:
            return rest[2:]
    return _MODULE_PATHS[known] + rest


class CallSite:
    """How many messages one place in the code may still write: ten at once, then one every half second (GCRA)."""

    def __init__(self) -> None:
        self.suppressed = 0
        self._full_at_ns = 0  # when the allowance will be complete again

    def admits(self, now_ns: int) -> bool:
        """Take one message from the allowance, or count it as suppressed."""
        start = max(self._full_at_ns, now_ns)
        if start - now_ns > (_BURST - 1) * _REFILL_NS:
            self.suppressed += 1
            return False
        self._full_at_ns = start + _REFILL_NS
        return True


class _Speaker(local):
    """The calling thread's name in the log."""

    name = "-"


class Logger:
    """What is logged, how, and where to; the module's functions are the methods of one logger."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._owns_sink = False
        self._level = INFO
        self._show_level = False
        self._show_log_origin = False
        self._module = ""
        self._instance_id = "anonymous-instance"
        self._speaker = _Speaker()
        self._speaker.name = "main"
        self._stamp = (-1, "")
        self._call_sites: dict[tuple[int, int], CallSite] = {}

    def configure(
        self,
        path: str | None = None,
        level: int | None = None,
        show_level: bool | None = None,
        show_log_origin: bool | None = None,
        module: str | None = None,
    ) -> None:
        """Change what is given and keep the rest, except the level, which falls back to Info. Raises LogFileError."""
        if path is not None:
            self._open(path)
        self._level = INFO if level is None else level
        if show_level is not None:
            self._show_level = show_level
        if show_log_origin is not None:
            self._show_log_origin = show_log_origin
        if module is not None:
            self._module = module

    def set_instance(self, instance_id: str) -> None:
        """Say whose log this is."""
        self._instance_id = instance_id

    def instance(self) -> str:
        """Give the microVM's identifier."""
        return self._instance_id

    def set_thread_name(self, name: str) -> str:
        """Name the calling thread in its log lines (`main`, `fc_api`, `fc_vcpu 0`); give its name so far."""
        former = self._speaker.name
        self._speaker.name = name
        return former

    def enabled(self, level: int) -> bool:
        """Tell whether messages of a level are written, for those whose text is costly to make."""
        return level <= self._level

    def error(self, text: str) -> None:
        """Say that something went wrong."""
        if self._level >= ERROR:
            self._log(ERROR, text, sys._getframe(1))

    def warn(self, text: str) -> None:
        """Say that something is not as it should be."""
        if self._level >= WARN:
            self._log(WARN, text, sys._getframe(1))

    def info(self, text: str) -> None:
        """Say what happened."""
        if self._level >= INFO:
            self._log(INFO, text, sys._getframe(1))

    def debug(self, text: str) -> None:
        """Say what a developer wants to know."""
        if self._level >= DEBUG:
            self._log(DEBUG, text, sys._getframe(1))

    def trace(self, text: str) -> None:
        """Say everything."""
        if self._level >= TRACE:
            self._log(TRACE, text, sys._getframe(1))

    def error_limited(self, text: str) -> None:
        """Log an error that a guest can cause as often as it likes: each place in the code has its allowance."""
        if self._level >= ERROR:
            self._log_limited(ERROR, text, sys._getframe(1))

    def warn_limited(self, text: str) -> None:
        """Log a warning that a guest can cause as often as it likes."""
        if self._level >= WARN:
            self._log_limited(WARN, text, sys._getframe(1))

    def info_limited(self, text: str) -> None:
        """Log something that a guest can cause as often as it likes."""
        if self._level >= INFO:
            self._log_limited(INFO, text, sys._getframe(1))

    def _open(self, path: str) -> None:
        try:
            sink = Sink.open(path)
        except (OSError, ValueError) as error:
            raise LogFileError(cause=os_text(error)) from error
        if self._owns_sink:
            self._sink.redirect(sink)
        else:
            self._sink, self._owns_sink = sink, True

    def _log_limited(self, level: int, text: str, caller: FrameType) -> None:
        site = self._call_sites.setdefault((id(caller.f_code), caller.f_lasti), CallSite())
        if not site.admits(time.monotonic_ns()):
            METRICS.logger.rate_limited_log_count += 1
            return
        if site.suppressed:
            suppressed, site.suppressed = site.suppressed, 0
            if self._level >= WARN:
                self._log(WARN, f"{suppressed} messages were suppressed due to rate limiting", caller)
        self._log(level, text, caller)

    def _log(self, level: int, text: str, caller: FrameType) -> None:
        if self._module and not module_path(caller.f_globals["__name__"]).startswith(self._module):
            return
        where = f"{self._instance_id}:{self._speaker.name}"
        if self._show_level:
            where += ":" + _NAMES[level]
        if self._show_log_origin:
            where += f":src/{caller.f_globals['__name__'].replace('.', '/')}.py:{caller.f_lineno}"
        try:
            self._sink.write(f"{self._now()} [{where}] {text}\n".encode("utf-8", "replace"))
        except OSError:
            METRICS.logger.missed_log_count += 1

    def _now(self) -> str:
        second, nanosecond = divmod(time.time_ns(), 1_000_000_000)
        known, text = self._stamp  # one object, because other threads are logging too
        if second != known:
            # Not by strftime: some C libraries look for the time zone's file each time, and no filter allows that.
            text = "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*time.localtime(second)[:6])
            self._stamp = (second, text)
        return f"{text}.{nanosecond:09}"


_logger: Final = Logger(Sink(1))

configure: Final = _logger.configure
set_instance: Final = _logger.set_instance
instance: Final = _logger.instance
set_thread_name: Final = _logger.set_thread_name
enabled: Final = _logger.enabled
error: Final = _logger.error
warn: Final = _logger.warn
info: Final = _logger.info
debug: Final = _logger.debug
trace: Final = _logger.trace
error_limited: Final = _logger.error_limited
warn_limited: Final = _logger.warn_limited
info_limited: Final = _logger.info_limited
