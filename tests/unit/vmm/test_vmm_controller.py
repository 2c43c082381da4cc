"""One microVM from wishes to its end, asked over the API; the engine is a fake one."""

import itertools
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from hibana.api.http import Request, Response
from hibana.api.routes import Dispatcher
from hibana.bus.loop import Loop
from hibana.config.resources import Resources
from hibana.devices.mmds.store import Store
from hibana.engine.interface import SHUTDOWN, Bus
from hibana.observe import log, metrics
from hibana.observe.metrics import MetricsWriter
from hibana.observe.metrics_groups import METRICS
from hibana.seccomp.filters import unfiltered
from hibana.testing.disk import grant_async
from hibana.testing.engine import FakeEngine, Step
from hibana.testing.fakes import FakeClock
from hibana.testing.net import open_fake_tap
from hibana.vmm import controller as controller_module
from hibana.vmm import vcpu_thread
from hibana.vmm.controller import Circumstances, Controller
from hibana.vmm.machine import EXIT_GENERIC, EXIT_OK
from hibana.vmm.verbs import RULES
from tests.unit.boot.images import ENTRY, Load, elf
from tests.unit.vmm.footprint import LARGE, nothing_stays

A01: Final = "The requested operation is not supported before starting the microVM."
A02: Final = "The requested operation is not supported after starting the microVM."
START: Final = ("PUT", "/actions", {"action_type": "InstanceStart"})
PAUSE: Final = ("PATCH", "/vm", {"state": "Paused"})
RESUME: Final = ("PATCH", "/vm", {"state": "Resumed"})
FLUSH: Final = ("PUT", "/actions", {"action_type": "FlushMetrics"})
KEYS: Final = ("PUT", "/actions", {"action_type": "SendCtrlAltDel"})

# A request for every verb, well enough formed to reach it.
REQUESTS: Final[dict[str, tuple[str, str, Any]]] = {
    "get_instance_info": ("GET", "/", None),
    "get_version": ("GET", "/version", None),
    "get_vm_config": ("GET", "/vm/config", None),
    "start_instance": START,
    "flush_metrics": FLUSH,
    "send_ctrl_alt_del": KEYS,
    "pause_vm": PAUSE,
    "resume_vm": RESUME,
    "get_machine_config": ("GET", "/machine-config", None),
    "put_machine_config": ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 64}),
    "patch_machine_config": ("PATCH", "/machine-config", {"mem_size_mib": 64}),
    "put_cpu_config": ("PUT", "/cpu-config", {}),
    "put_boot_source": ("PUT", "/boot-source", {"kernel_image_path": "/nowhere"}),
    "put_drive": ("PUT", "/drives/a", {"drive_id": "a", "path_on_host": "/nowhere", "is_root_device": False}),
    "patch_drive": ("PATCH", "/drives/a", {"drive_id": "a"}),
    "delete_drive": ("DELETE", "/drives/a", None),
    "put_network_interface": ("PUT", "/network-interfaces/a", {"iface_id": "a", "host_dev_name": "tap0"}),
    "patch_network_interface": ("PATCH", "/network-interfaces/a", {"iface_id": "a"}),
    "delete_network_interface": ("DELETE", "/network-interfaces/a", None),
    "put_pmem": ("PUT", "/pmem/a", {"id": "a", "path_on_host": "/nowhere"}),
    "patch_pmem": ("PATCH", "/pmem/a", {"id": "a"}),
    "delete_pmem": ("DELETE", "/pmem/a", None),
    "put_vsock": ("PUT", "/vsock", {"guest_cid": 3, "uds_path": "/nowhere"}),
    "put_entropy": ("PUT", "/entropy", {}),
    "put_serial": ("PUT", "/serial", {}),
    "get_balloon": ("GET", "/balloon", None),
    "put_balloon": ("PUT", "/balloon", {"amount_mib": 1, "deflate_on_oom": False}),
    "patch_balloon": ("PATCH", "/balloon", {"amount_mib": 1}),
    "get_balloon_statistics": ("GET", "/balloon/statistics", None),
    "patch_balloon_statistics": ("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 1}),
    "start_balloon_hinting": ("PATCH", "/balloon/hinting/start", {}),
    "get_balloon_hinting": ("GET", "/balloon/hinting/status", None),
    "stop_balloon_hinting": ("PATCH", "/balloon/hinting/stop", None),
    "get_memory_hotplug": ("GET", "/hotplug/memory", None),
    "put_memory_hotplug": ("PUT", "/hotplug/memory", {"total_size_mib": 128}),
    "patch_memory_hotplug": ("PATCH", "/hotplug/memory", {"requested_size_mib": 0}),
    "put_logger": ("PUT", "/logger", {}),
    "put_metrics": ("PUT", "/metrics", {"metrics_path": "/nowhere/metrics"}),
    "get_mmds": ("GET", "/mmds", None),
    "put_mmds": ("PUT", "/mmds", {}),
    "patch_mmds": ("PATCH", "/mmds", {}),
    "put_mmds_config": ("PUT", "/mmds/config", {"network_interfaces": []}),
    "create_snapshot": ("PUT", "/snapshot/create", {"snapshot_path": "s", "mem_file_path": "m"}),
    "load_snapshot": (
        "PUT",
        "/snapshot/load",
        {"snapshot_path": "s", "mem_backend": {"backend_path": "m", "backend_type": "File"}},
    ),
}


class Process:
    """A VMM process without a command line: controller, API and loop."""

    def __init__(self, folder: Path, boot_timer: bool = False) -> None:
        self.kernel = folder / "kernel"
        self.kernel.write_bytes(elf(Load(ENTRY, b"\xeb\xfe")))
        self.serial = folder / "serial"
        self.clock = FakeClock()
        self.loop = Loop(self.clock)
        self.controller = Controller(
            Circumstances("fake", boot_timer, unfiltered),
            Resources(open_fake_tap, grant_async),
            Store(1024),
            self.loop,
        )
        self._dispatcher = Dispatcher(self.controller)
        self._closed = False

    def ask(self, method: str, path: str, body: object = None) -> Response:
        text = None if body is None else msgspec.json.encode(body)
        return self._dispatcher.handle(Request(method, path, text))

    def done(self, method: str, path: str, body: object = None) -> None:
        response = self.ask(method, path, body)
        assert response.status == 204, response.body

    def fault(self, method: str, path: str, body: object = None) -> str:
        """Give the sentence of a refusal; empty if there is none."""
        response = self.ask(method, path, body)
        return "" if response.status < 300 else str(msgspec.json.decode(response.body or b"")["fault_message"])

    @property
    def state(self) -> str:
        return str(msgspec.json.decode(self.ask("GET", "/").body or b"")["state"])

    def configure(self) -> None:
        self.done("PUT", "/boot-source", {"kernel_image_path": str(self.kernel)})
        self.done("PUT", "/serial", {"serial_out_path": str(self.serial)})

    def boot(self) -> None:
        self.configure()
        self.done(*START)

    def serve(self) -> None:
        """Run the loop until the microVM ends."""
        self.loop.run()

    def close(self) -> int:
        """End what is still there, once; give the exit code."""
        if not self._closed:
            self._closed = True
            self.controller.close()
            self.loop.close()
        return self.controller.exit_code

    def let_pass(self, seconds: float) -> None:
        """Let time pass and the loop see it."""
        self.clock.advance(seconds)
        self.loop.after(0, self.loop.stop)
        self.loop.run()


@pytest.fixture
def process(tmp_path: Path, guest: list[Step], monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    engine(monkeypatch, guest)
    process = Process(tmp_path)
    yield process
    process.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fc_vcpu")]


@pytest.fixture
def guest() -> list[Step]:
    """Give the guest of a test; a halted one, unless the test fills it in before it boots."""
    return []


def engine(monkeypatch: pytest.MonkeyPatch, guest: Iterable[Step]) -> FakeEngine:
    fake = FakeEngine(guest)
    monkeypatch.setattr(controller_module, "choose_engine", lambda name: fake)
    return fake


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Lines":
    """Direct the metrics, which a process can do only once, to a file of this test's own."""
    writer = MetricsWriter(METRICS)
    writer.configure(str(tmp_path / "metrics"))
    for name in ("flush", "flush_or_count", "start_timer"):
        monkeypatch.setattr(metrics, name, getattr(writer, name))
    return Lines(tmp_path / "metrics")


class Lines:
    """The metrics lines so far."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return len(self._path.read_text().splitlines())


def reset(bus: Bus) -> None:
    bus.port_write(0x64, 1, 0xFE)


# --- which request is legal when --------------------------------------------------------------------------------------


def test_there_is_a_request_for_every_verb() -> None:
    assert REQUESTS.keys() == RULES.keys()


@pytest.mark.parametrize("state", ["Not started", "Running", "Paused"])
@pytest.mark.parametrize("verb", RULES)
def test_a_request_is_legal_when_the_table_says_so(
    verb: str, state: str, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "configure", lambda *_: None)
    process.configure()
    if state != "Not started":
        process.done(*START)
    if state == "Paused":
        process.done(*PAUSE)
    assert process.state == state
    fault = process.fault(*REQUESTS[verb])
    rule = RULES[verb]
    if state == "Not started":
        assert (fault == A01) == (rule.before is None)
        assert fault != A02
    else:
        assert (fault == A02) == (rule.after is None)
        assert fault != A01


def test_a_refused_verb_changes_nothing(process: Process) -> None:
    process.boot()
    for verb, rule in RULES.items():
        if rule.after is None:
            process.fault(*REQUESTS[verb])
    assert process.state == "Running"
    assert b'"mem_size_mib":128' in (process.ask("GET", "/machine-config").body or b"")


# --- the start --------------------------------------------------------------------------------------------------------


def test_a_microvm_boots_runs_and_ends_with_success(process: Process, guest: list[Step]) -> None:
    guest += [lambda bus: bus.port_write(0x3F8, 1, 0x21), reset]
    process.boot()
    process.serve()
    assert process.close() == EXIT_OK
    assert process.serial.read_bytes() == b"!"


def test_there_is_no_start_without_a_kernel(process: Process) -> None:
    assert process.fault(*START) == "Start microvm error: Cannot start microvm without kernel configuration."
    assert process.state == "Not started"


def test_a_device_that_this_build_lacks_is_named_at_the_start(process: Process) -> None:
    process.configure()
    process.done("PUT", "/vsock", {"guest_cid": 3, "uds_path": "v.sock"})
    assert process.fault(*START) == (
        "Start microvm error: This build of Hibana has no vsock device yet; remove it from the configuration to start"
        " the microVM."
    )


@pytest.mark.parametrize(
    ("method", "path", "bad", "good", "sentence"),
    [
        (
            "PUT",
            "/serial",
            {"serial_out_path": "/nowhere/serial"},
            {},
            "Failed to create device manager: Error with EventFd: No such file or directory (os error 2)",
        ),
        (
            "PATCH",
            "/machine-config",
            {"cpu_template": "T2"},
            {"cpu_template": "None"},
            "Failed to get CPU template: The soft engine has one fixed CPU and takes no CPU template.",
        ),
        (
            "PATCH",
            "/machine-config",
            {"mem_size_mib": 1 << 40},
            {"mem_size_mib": 128},
            "Invalid Memory Configuration: Cannot create mmap region: Out of memory (os error 12)",
        ),
    ],
)
def test_a_start_that_failed_can_be_tried_again(
    method: str, path: str, bad: object, good: dict[str, object], sentence: str, process: Process
) -> None:
    process.configure()
    process.done(method, path, bad)
    assert process.fault(*START) == f"Start microvm error: {sentence}"
    assert process.state == "Not started"
    process.done(method, path, good or {"serial_out_path": str(process.serial)})
    process.done(*START)
    assert process.state == "Running"


def test_a_cpu_template_that_changes_nothing_suits_every_engine(process: Process) -> None:
    process.configure()
    process.done("PUT", "/cpu-config", {})
    process.done(*START)


def test_a_host_without_room_for_a_thread_can_be_asked_again(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    process.configure()
    process.done("PATCH", "/machine-config", {"mem_size_mib": 2 * LARGE >> 20})
    with nothing_stays(), monkeypatch.context() as crowded:
        crowded.setattr(threading, "_start_new_thread", refuse)
        assert process.fault(*START) == (
            "Start microvm error: Internal error while starting microVM: Cannot spawn Vcpu thread:"
            " Resource temporarily unavailable (os error 11)"
        )
    assert process.state == "Not started"
    process.done(*START)
    assert process.state == "Running"


def test_there_is_no_second_start(process: Process) -> None:
    process.boot()
    assert process.fault(*START) == A02


def test_the_boot_timer_is_the_command_lines_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    engine(monkeypatch, [lambda bus: bus.mmio_write(0xC0000000, 1, 123), reset])
    process = Process(tmp_path, boot_timer=True)
    process.boot()
    process.serve()
    process.close()
    assert "Guest-boot-time = " in capfd.readouterr().out


# --- while it runs ----------------------------------------------------------------------------------------------------


def test_pausing_and_resuming_shows(process: Process) -> None:
    process.boot()
    for request, state in ((PAUSE, "Paused"), (PAUSE, "Paused"), (RESUME, "Running"), (RESUME, "Running")):
        process.done(*request)
        assert process.state == state


def test_vcpus_that_do_not_answer_are_reported_and_change_nothing(
    process: Process, guest: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    guest.append(lambda bus: wait_for(gate))
    process.boot()
    with monkeypatch.context() as impatient:
        impatient.setattr(vcpu_thread, "ANSWER_TIMEOUT_S", 0.01)
        for request in (PAUSE, KEYS):
            assert process.fault(*request) == "Internal VMM error: Failed to message the vCPUs."
    gate.set()
    assert process.state == "Running"
    process.done(*PAUSE)
    assert process.state == "Paused"


def wait_for(gate: threading.Event) -> None:
    assert gate.wait(30)


def test_three_keys_reach_the_keyboard_until_its_buffer_is_full(process: Process) -> None:
    process.boot()
    for _ in range(4):
        process.done(*KEYS)
    assert process.fault(*KEYS) == "Internal VMM error: I8042 error: i8042 internal buffer full."


def test_a_snapshot_needs_a_pause(process: Process) -> None:
    process.boot()
    create = REQUESTS["create_snapshot"]
    assert process.fault(*create) == (
        "Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable while"
        " running"
    )
    process.done(*PAUSE)
    assert "this build of Hibana has no snapshots yet" in process.fault(*create)


def test_the_vmms_own_lines_are_the_main_threads(process: Process, capfd: pytest.CaptureFixture[str]) -> None:
    process.boot()
    capfd.readouterr()
    former = log.set_thread_name("fc_api")
    process.done(*PAUSE)
    assert log.set_thread_name(former) == "fc_api"
    speakers = [line.split("]")[0].rpartition(":")[2] for line in capfd.readouterr().out.splitlines()]
    assert speakers == ["fc_api", "main", "fc_api", "fc_api"]


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_a_started_microvm_has_one_metrics_line_and_one_more_every_minute(process: Process, lines: Lines) -> None:
    process.configure()
    process.let_pass(600)
    assert len(lines) == 0
    process.done(*START)
    assert len(lines) == 1
    process.let_pass(59)
    assert len(lines) == 1
    process.let_pass(1)
    assert len(lines) == 2
    process.done(*FLUSH)
    assert len(lines) == 3


def test_a_pause_stops_the_metrics_but_not_those_that_are_asked_for(process: Process, lines: Lines) -> None:
    process.boot()
    process.done(*PAUSE)
    process.let_pass(60)
    process.let_pass(60)
    assert len(lines) == 1
    process.done(*FLUSH)
    assert len(lines) == 2
    process.done(*RESUME)
    process.let_pass(60)
    assert len(lines) == 3


def test_the_end_has_a_line_of_its_own(process: Process, lines: Lines, guest: list[Step]) -> None:
    guest.append(reset)
    process.boot()
    process.serve()
    process.close()
    assert len(lines) == 2


def test_a_start_that_failed_has_none(process: Process, lines: Lines) -> None:
    process.fault(*START)
    process.close()
    assert len(lines) == 0


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_guest_that_cannot_go_on_is_an_error(
    process: Process, guest: list[Step], capfd: pytest.CaptureFixture[str]
) -> None:
    guest.append(SHUTDOWN)
    process.boot()
    process.serve()
    assert process.close() == EXIT_GENERIC
    story = [line.partition("] ")[2] for line in capfd.readouterr().out.splitlines() if "request" not in line]
    assert story == ["Unexpected exit reason on vcpu run: Shutdown", "Vmm is stopping.", "Killing vCPU threads"]


def test_a_guest_that_has_ended_is_not_resumed_by_a_late_request(process: Process, guest: list[Step]) -> None:
    """The loop may find the request and the news of the end at once, in this order."""
    guest += [reset, lambda bus: bus.port_write(0x3F8, 1, 0x21)]
    process.boot()
    process.done(*PAUSE)
    process.done(*RESUME)
    process.done(*PAUSE)
    process.serve()
    assert process.serial.read_bytes() == b""


def test_a_busy_guest_can_be_ended(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch, itertools.repeat(lambda bus: None))
    process.boot()
    assert process.close() == EXIT_OK


def test_a_process_that_never_started_a_microvm_closes_its_files(tmp_path: Path) -> None:
    process = Process(tmp_path)
    with nothing_stays():
        process.configure()
        process.controller.close()
    process.loop.close()
    assert process.controller.exit_code == EXIT_OK
