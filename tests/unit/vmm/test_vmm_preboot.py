"""The verbs before there is a microVM."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hibana.api.endpoints import ENDPOINTS, Endpoint, Fork
from hibana.api.http import Request, Response
from hibana.api.routes import Dispatcher
from hibana.config.boot_source import BootSourceConfig
from hibana.config.logger import LoggerConfig
from hibana.config.metrics import MetricsConfig
from hibana.config.resources import Resources
from hibana.config.snapshot import LoadSnapshotConfig
from hibana.devices.mmds.store import Store
from hibana.errors import ActionError, NoKernelConfigured, NotBeforeStart
from hibana.observe import log, metrics
from hibana.testing.disk import grant_async
from hibana.testing.net import open_fake_tap
from hibana.vmm.preboot import PreBoot
from hibana.vmm.verbs import RULES, Call


class Process:
    """A process that has not started a microVM, asked over the API."""

    def __init__(self) -> None:
        self.resources = Resources(open_fake_tap, grant_async)
        self.started = 0
        self.restored: list[LoadSnapshotConfig] = []
        self.preboot = PreBoot(self.resources, Store(64), self._start, self.restored.append)
        self._dispatcher = Dispatcher(self.preboot)

    def _start(self) -> None:
        if self.resources.boot_source is None:
            raise NoKernelConfigured
        self.started += 1

    def ask(self, method: str, path: str, body: object = None) -> Response:
        text = None if body is None else msgspec.json.encode(body)
        return self._dispatcher.handle(Request(method, path, text))

    def get(self, path: str) -> Any:
        response = self.ask("GET", path)
        assert response.status == 200
        return msgspec.json.decode(response.body or b"")

    def put(self, path: str, body: object) -> None:
        assert self.ask("PUT", path, body) == Response(204)

    def fault(self, method: str, path: str, body: object = None) -> str:
        response = self.ask(method, path, body)
        assert response.status in (400, 413)
        return str(msgspec.json.decode(response.body or b"")["fault_message"])


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.resources.close()


def test_a_process_says_what_it_is(process: Process) -> None:
    assert process.ask("GET", "/").body == (
        b'{"id":"anonymous-instance","state":"Not started","vmm_version":"1.17.0-dev","app_name":"Firecracker"}'
    )
    assert process.get("/version") == {"firecracker_version": "1.17.0-dev"}


def test_the_machine_is_shown_as_it_is_wanted(process: Process) -> None:
    default = b'{"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false,"huge_pages":"None"}'
    assert process.ask("GET", "/machine-config").body == default
    process.put("/machine-config", {"vcpu_count": 2, "mem_size_mib": 256})
    assert process.ask("PATCH", "/machine-config", {"cpu_template": "T2"}).status == 204
    assert process.get("/machine-config")["cpu_template"] == "T2"
    assert process.get("/vm/config")["machine-config"]["vcpu_count"] == 2
    assert process.fault("PATCH", "/machine-config", {"vcpu_count": 3, "smt": True}) == (
        "Machine config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number"
        " if SMT is enabled."
    )


def test_a_failed_start_may_be_repeated(process: Process, tmp_path: Path) -> None:
    start = {"action_type": "InstanceStart"}
    assert process.fault("PUT", "/actions", start) == (
        "Start microvm error: Cannot start microvm without kernel configuration."
    )
    (tmp_path / "kernel").touch()
    process.put("/boot-source", {"kernel_image_path": str(tmp_path / "kernel")})
    process.put("/actions", start)
    assert process.started == 1


def test_devices_are_wanted_and_shown(process: Process) -> None:
    assert process.fault("GET", "/balloon") == "Balloon config error: No balloon device found."
    process.put("/balloon", {"amount_mib": 1, "deflate_on_oom": True})
    assert process.get("/balloon")["amount_mib"] == 1
    process.put("/vsock", {"guest_cid": 3, "uds_path": "v"})
    process.put("/entropy", {})
    process.put("/pmem/p", {"id": "p", "path_on_host": "p"})
    process.put("/hotplug/memory", {"total_size_mib": 128})
    process.put("/network-interfaces/a", {"iface_id": "a", "host_dev_name": "tap0"})
    process.put("/serial", {"serial_out_path": "s"})
    shown = process.get("/vm/config")
    assert all(shown[key] for key in ("balloon", "vsock", "entropy", "pmem", "memory-hotplug", "network-interfaces"))
    assert "serial" not in shown
    assert process.resources.serial.serial_out_path == "s"


def test_metadata_is_kept_before_there_is_a_guest(process: Process) -> None:
    assert process.ask("GET", "/mmds").body == b"{}"
    assert process.fault("PATCH", "/mmds", {}) == "MMDS error: The MMDS data store is not initialized."
    process.put("/mmds", {"b": 1, "a": [1.0]})
    assert process.ask("GET", "/mmds").body == b'{"a":[1.0],"b":1}'
    assert process.ask("PUT", "/mmds", {"a": "x" * 64}) == Response(
        413, b'{"fault_message":"MMDS limit exceeded error: The MMDS patch request doesn\'t fit."}'
    )
    assert process.fault("PUT", "/mmds/config", {"version": "V2", "network_interfaces": []}) == (
        "MMMDS config error: The list of network interface IDs that allow forwarding MMDS requests is empty."
    )


# --- which verb is legal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [verb for verb, rule in RULES.items() if not rule.before])
def test_what_needs_a_microvm_is_refused(verb: str, process: Process) -> None:
    with pytest.raises(NotBeforeStart):
        process.preboot.perform(Call(verb, (None,)))
    assert not hasattr(process.preboot, verb)


@pytest.mark.parametrize("verb", [verb for verb, rule in RULES.items() if rule.before])
def test_what_is_legal_has_a_method_of_its_own(verb: str, process: Process) -> None:
    assert callable(getattr(process.preboot, verb))


def rows(place: Endpoint | Fork) -> Iterator[Endpoint]:
    if isinstance(place, Endpoint):
        yield place
        return
    for way in place.ways.values():
        yield from rows(way)
    if isinstance(place.otherwise, Endpoint):
        yield place.otherwise


def test_every_row_of_the_endpoints_has_a_rule_and_a_fitting_method(process: Process) -> None:
    interpreted = {"start_instance", "flush_metrics", "send_ctrl_alt_del", "pause_vm", "resume_vm"}
    verbs = {row.verb: row for table in ENDPOINTS.values() for place in table.values() for row in rows(place)}
    verbs.pop("")
    assert verbs.keys() | interpreted == RULES.keys()
    for verb, row in verbs.items():
        if RULES[verb].before:
            parameters = inspect.signature(getattr(process.preboot, verb)).parameters.values()
            assert [parameter.annotation for parameter in parameters] == ([row.body] if row.body else [])


# --- snapshots --------------------------------------------------------------------------------------------------------

LOAD = {"snapshot_path": "s", "mem_backend": {"backend_path": "m", "backend_type": "File"}}


def test_a_fresh_process_loads_a_snapshot(process: Process) -> None:
    process.put("/logger", {})
    process.put("/mmds", {"a": 1})
    process.put("/serial", {})
    process.get("/vm/config")
    process.put("/snapshot/load", LOAD)
    assert [config.snapshot_path for config in process.restored] == ["s"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/boot-source", {"kernel_image_path": "/nowhere"}),
        ("PUT", "/drives/a", {"drive_id": "a", "is_root_device": False}),
        ("PUT", "/network-interfaces/a", {"iface_id": "a", "host_dev_name": "x" * 99}),
        ("PUT", "/pmem/a", {"id": "a", "path_on_host": "p"}),
        ("PUT", "/balloon", {"amount_mib": 1 << 30, "deflate_on_oom": True}),
        ("PUT", "/mmds/config", {"network_interfaces": []}),
        ("PUT", "/vsock", {"guest_cid": 3, "uds_path": "v"}),
        ("PUT", "/entropy", {}),
        ("PUT", "/hotplug/memory", {"total_size_mib": 1}),
        ("PUT", "/machine-config", {"vcpu_count": 0, "mem_size_mib": 1}),
        ("PATCH", "/machine-config", {"vcpu_count": 0}),
    ],
)
def test_wanting_to_boot_even_in_vain_rules_out_a_snapshot(
    method: str, path: str, body: object, process: Process
) -> None:
    process.ask(method, path, body)
    assert process.fault("PUT", "/snapshot/load", LOAD) == (
        "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources."
    )
    assert process.restored == []


def test_a_request_that_is_refused_unseen_does_not_rule_out_a_snapshot(process: Process) -> None:
    process.fault("PUT", "/vsock", {})
    process.put("/snapshot/load", LOAD)


# --- log and metrics --------------------------------------------------------------------------------------------------


def test_the_logger_is_told_only_what_was_said(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[object, ...]] = []
    monkeypatch.setattr(log, "configure", lambda *arguments: told.append(arguments))
    process.preboot.put_logger(LoggerConfig(level="warning", module="m"))
    process.preboot.put_logger(LoggerConfig("/l", show_level=True))
    assert told == [(None, log.WARN, None, None, "m"), ("/l", None, True, None, None)]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            Call("put_logger", (LoggerConfig("/a\0b"),)),
            "Logger error: Failed to open target file: file name contained an unexpected NUL byte",
        ),
        (
            Call("put_logger", (LoggerConfig("/nowhere/x"),)),
            "Logger error: Failed to open target file: No such file or directory (os error 2)",
        ),
        (
            Call("put_metrics", (MetricsConfig("/a\0b"),)),
            "Metrics error: Cannot initialize the metrics system due to bad user input: "
            "file name contained an unexpected NUL byte",
        ),
        (
            Call("put_metrics", (MetricsConfig("/nowhere/x"),)),
            "Metrics error: Cannot initialize the metrics system due to bad user input: "
            "No such file or directory (os error 2)",
        ),
    ],
)
def test_a_destination_that_cannot_be_opened_is_refused(call: Call, sentence: str, process: Process) -> None:
    with pytest.raises(ActionError) as refused:
        process.preboot.perform(call)
    assert str(refused.value) == sentence


def test_metrics_are_told_everything(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[object, ...]] = []
    monkeypatch.setattr(metrics, "configure", lambda *arguments: told.append(arguments))
    process.preboot.put_metrics(MetricsConfig("/m", True, {"a": "b"}))
    assert told == [("/m", True, {"a": "b"})]


def test_a_custom_cpu_template_is_accepted_and_never_shown(process: Process) -> None:
    process.put("/cpu-config", {"msr_modifiers": [{"addr": "0x10", "bitmap": "0b1x"}]})
    assert process.get("/vm/config")["cpu-config"] is None
    assert process.resources.cpu_template is not None


def test_the_boot_source_is_shown_as_it_was_put(process: Process, tmp_path: Path) -> None:
    (tmp_path / "kernel").touch()
    process.put("/boot-source", {"kernel_image_path": str(tmp_path / "kernel")})
    assert process.resources.boot_source is not None
    assert process.resources.boot_source.config == BootSourceConfig(str(tmp_path / "kernel"))
    assert process.get("/vm/config")["boot-source"]["boot_args"] is None
