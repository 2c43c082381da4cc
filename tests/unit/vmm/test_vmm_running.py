"""The verbs of a running microVM, asked over the API: what it can do, and what it says of devices it does not have."""

import time
from typing import Any

import msgspec
import pytest

from hibana.api.http import Request, Response
from hibana.api.routes import Dispatcher
from hibana.config.resources import Resources
from hibana.devices.mmds.store import Store
from hibana.errors import VcpusDoNotAnswer
from hibana.observe.metrics_groups import METRICS
from hibana.testing.disk import grant_async
from hibana.testing.net import open_fake_tap
from hibana.vmm.running import Running
from hibana.vmm.verbs import Call, perform

UNKNOWN = "Failed perform action on device: Device not found"


class StubMachine:
    """A machine that does as it is told, or does not answer."""

    def __init__(self) -> None:
        self.paused = False
        self.answers = True
        self.drives: dict[str, object] = {}
        self.interfaces: dict[str, object] = {}

    def pause(self) -> None:
        self._turn(paused=True)

    def resume(self) -> None:
        self._turn(paused=False)

    def _turn(self, paused: bool) -> None:
        if not self.answers:
            raise VcpusDoNotAnswer
        self.paused = paused


class Process:
    """A process whose microVM runs."""

    def __init__(self) -> None:
        self.machine = StubMachine()
        self._running = Running(self.machine, Resources(open_fake_tap, grant_async), Store(64))  # type: ignore[arg-type]
        self._dispatcher = Dispatcher(self)

    def perform(self, call: Call, /) -> object:
        return perform(self._running, call, started=True)

    def ask(self, method: str, path: str, body: object = None) -> Response:
        text = None if body is None else msgspec.json.encode(body)
        return self._dispatcher.handle(Request(method, path, text))

    def fault(self, method: str, path: str, body: object = None) -> str:
        response = self.ask(method, path, body)
        assert response.status == 400
        return str(msgspec.json.decode(response.body or b"")["fault_message"])


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.mark.parametrize(
    ("method", "path", "body", "sentence"),
    [
        ("GET", "/balloon", None, f"Internal VMM error: {UNKNOWN}"),
        ("GET", "/balloon/statistics", None, f"Internal VMM error: {UNKNOWN}"),
        ("GET", "/balloon/hinting/status", None, f"Balloon update error: {UNKNOWN}"),
        ("PATCH", "/balloon", {"amount_mib": 1}, f"Balloon update error: {UNKNOWN}"),
        ("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 1}, f"Balloon update error: {UNKNOWN}"),
        ("PATCH", "/balloon/hinting/start", None, f"Balloon update error: {UNKNOWN}"),
        ("PATCH", "/balloon/hinting/stop", None, f"Balloon update error: {UNKNOWN}"),
        ("GET", "/hotplug/memory", None, f"Internal VMM error: {UNKNOWN}"),
        ("PATCH", "/hotplug/memory", {"requested_size_mib": 1}, f"Memory hotplug update error: {UNKNOWN}"),
        (
            "PATCH",
            "/drives/d",
            {"drive_id": "d", "path_on_host": "/x"},
            f"Drive config error: Unable to patch the block device: {UNKNOWN} Please verify the request arguments.",
        ),
        (
            "PATCH",
            "/network-interfaces/n",
            {"iface_id": "n"},
            f"Network config error: Unable to update the net device: {UNKNOWN}",
        ),
        (
            "PATCH",
            "/pmem/p",
            {"id": "p", "rate_limiter": {}},
            f"Pmem config error: Unable to patch the pmem device: {UNKNOWN} Please verify the request arguments.",
        ),
    ],
)
def test_a_device_that_is_not_there_is_not_found(
    method: str, path: str, body: object, sentence: str, process: Process
) -> None:
    assert process.fault(method, path, body) == sentence


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/drives/d", {"drive_id": "d", "is_root_device": False, "path_on_host": "/x"}),
        ("PUT", "/network-interfaces/n", {"iface_id": "n", "host_dev_name": "t"}),
        ("PUT", "/pmem/p", {"id": "p", "path_on_host": "/x"}),
        ("DELETE", "/drives/d", None),
        ("DELETE", "/network-interfaces/n", None),
        ("DELETE", "/pmem/p", None),
    ],
)
def test_nothing_is_plugged_or_unplugged_without_pci(method: str, path: str, body: object, process: Process) -> None:
    assert process.fault(method, path, body) == "PCI is not enabled"


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("PUT", {"a": 1}), ("PATCH", {"a": 1})])
def test_there_is_no_metadata_where_no_interface_offers_it(method: str, body: object, process: Process) -> None:
    assert process.fault(method, "/mmds", body) == "MMDS error: The MMDS data store is not initialized."


def test_patching_nothing_of_a_pmem_device_always_succeeds(process: Process) -> None:
    assert process.ask("PATCH", "/pmem/nobody", {"id": "nobody"}) == Response(204)


@pytest.mark.parametrize(
    ("state", "metric", "action"),
    [("Paused", "vmm_pause_vm", "pause vm"), ("Resumed", "vmm_resume_vm", "resume vm")],
)
def test_the_time_that_stopping_and_going_on_took_is_logged_and_kept(
    state: str,
    metric: str,
    action: str,
    process: Process,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    now_ns: Any = iter(range(0, 100_000_000, 7_000_000))
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(now_ns))
    monkeypatch.setattr(METRICS.latencies_us, metric, 0)
    process.machine.answers = False
    assert process.fault("PATCH", "/vm", {"state": state}) == "Internal VMM error: Failed to message the vCPUs."
    assert getattr(METRICS.latencies_us, metric) == 0, "a failure is not kept"
    process.machine.answers = True
    assert process.ask("PATCH", "/vm", {"state": state}) == Response(204)
    assert getattr(METRICS.latencies_us, metric) == 7000
    assert f"] '{action}' VMM action took 7000 us.\n" in capfd.readouterr().out
