"""The client for people, at the other end of a real socket."""

import inspect
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hibana.api.http import BadRequest, Parser, Request, Response, render, render_bad_request
from hibana.api.routes import Dispatcher
from hibana.config.action import ActionBody
from hibana.config.balloon import (
    BalloonDeviceConfig,
    BalloonStats,
    BalloonUpdateConfig,
    BalloonUpdateStatsConfig,
    HintingStatus,
    StartHintingCmd,
)
from hibana.config.boot_source import BootSourceConfig
from hibana.config.cpu import CustomCpuTemplate, KvmCapability
from hibana.config.drive import BlockDeviceConfig, BlockDeviceUpdateConfig
from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.instance import InstanceInfo, VmmVersion
from hibana.config.logger import LoggerConfig
from hibana.config.machine import DEFAULT, MachineConfig, MachineConfigUpdate
from hibana.config.memory_hotplug import MemoryHotplugConfig, MemoryHotplugSizeUpdate, MemoryHotplugStatus
from hibana.config.metrics import MetricsConfig
from hibana.config.mmds import MmdsConfig
from hibana.config.net import NetworkInterfaceConfig, NetworkInterfaceUpdateConfig
from hibana.config.pmem import PmemConfig, PmemDeviceUpdateConfig
from hibana.config.rate_limit import RateLimiterConfig, TokenBucketConfig
from hibana.config.resources import Resources
from hibana.config.serial import SerialConfig
from hibana.config.snapshot import CreateSnapshotParams, LoadSnapshotConfig, MemBackendConfig
from hibana.config.vsock import VsockDeviceConfig
from hibana.errors import NotAfterStart
from hibana.sdk.machine import ApiError, Machine
from hibana.testing.disk import grant_async
from hibana.testing.net import open_fake_tap
from hibana.vmm.verbs import RULES, Call

Handle = Callable[[Request], Response]


class Server(threading.Thread):
    """A server for one client at a time, as simple as it can be."""

    def __init__(self, path: str, handle: Handle) -> None:
        super().__init__()
        self._handle = handle
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            with connection:
                parser = Parser()
                while received := connection.recv(4096):
                    for event in parser.feed(received):
                        if isinstance(event, Request):
                            connection.sendall(render(self._handle(event)))
                        elif isinstance(event, BadRequest):
                            connection.sendall(render_bad_request(event))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.join()
        self._listener.close()


class Recorder:
    """A controller that writes down what it is asked and gives a prepared answer."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answer: object = None

    def perform(self, call: Call, /) -> object:
        self.calls.append(call)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def controller() -> Recorder:
    return Recorder()


@pytest.fixture
def machine(tmp_path: Path, controller: Recorder) -> Iterator[Machine]:
    path = str(tmp_path / "socket")
    server = Server(path, Dispatcher(controller).handle)
    server.start()
    with Machine(path) as machine:
        yield machine
    server.close()


LIMITER = RateLimiterConfig(TokenBucketConfig(size=1, refill_time=2))

# verb, what the method is given, what the controller is given
COMMANDS: list[tuple[str, tuple[Any, ...]]] = [
    ("start_instance", ()),
    ("flush_metrics", ()),
    ("send_ctrl_alt_del", ()),
    ("pause_vm", ()),
    ("resume_vm", ()),
    ("create_snapshot", (CreateSnapshotParams(snapshot_path="s", mem_file_path="m"),)),
    ("load_snapshot", (LoadSnapshotConfig("s", mem_backend=MemBackendConfig("m", "Uffd"), resume_vm=True),)),
    ("put_machine_config", (MachineConfig(vcpu_count=2, mem_size_mib=256, cpu_template="T2"),)),
    ("patch_machine_config", (MachineConfigUpdate(smt=True),)),
    ("put_boot_source", (BootSourceConfig("k", boot_args="é"),)),
    ("put_serial", (SerialConfig("out", TokenBucketConfig(size=1, refill_time=2)),)),
    ("put_drive", (BlockDeviceConfig(drive_id="a", is_root_device=True, path_on_host="p", rate_limiter=LIMITER),)),
    ("patch_drive", (BlockDeviceUpdateConfig("a", "p"),)),
    ("delete_drive", ("a",)),
    ("put_network_interface", (NetworkInterfaceConfig("a", "tap0", "06:00:00:00:00:01", tx_rate_limiter=LIMITER),)),
    ("patch_network_interface", (NetworkInterfaceUpdateConfig("a"),)),
    ("delete_network_interface", ("a",)),
    ("put_pmem", (PmemConfig("a", "p"),)),
    ("patch_pmem", (PmemDeviceUpdateConfig("a"),)),
    ("delete_pmem", ("a",)),
    ("put_vsock", (VsockDeviceConfig(guest_cid=3, uds_path="v"),)),
    ("put_entropy", (EntropyDeviceConfig(LIMITER),)),
    ("put_balloon", (BalloonDeviceConfig(1, True),)),
    ("patch_balloon", (BalloonUpdateConfig(1),)),
    ("patch_balloon_statistics", (BalloonUpdateStatsConfig(1),)),
    ("start_balloon_hinting", (StartHintingCmd(False),)),
    ("stop_balloon_hinting", ()),
    ("put_memory_hotplug", (MemoryHotplugConfig(128),)),
    ("patch_memory_hotplug", (MemoryHotplugSizeUpdate(2),)),
    ("put_mmds", (None,)),
    ("patch_mmds", ({"a": [1]},)),
    ("put_mmds_config", (MmdsConfig(version="V2", network_interfaces=["a"]),)),
    ("put_logger", (LoggerConfig("l", "debug"),)),
    ("put_metrics", (MetricsConfig("m", properties={"a": "b"}),)),
]

QUESTIONS: list[tuple[str, Any]] = [
    ("get_instance_info", InstanceInfo("id", "Paused")),
    ("get_version", VmmVersion()),
    ("get_vm_config", Resources(open_fake_tap, grant_async).render()),
    ("get_machine_config", DEFAULT),
    ("get_balloon", BalloonDeviceConfig(1, True)),
    ("get_balloon_statistics", BalloonStats(1, 2, 3, 4, swap_in=5)),
    ("get_balloon_hinting", HintingStatus(1)),
    ("get_memory_hotplug", MemoryHotplugStatus(1, 2, 3, 4, 5)),
    ("get_mmds", {"a": [None, 1.5]}),
]


@pytest.mark.parametrize(("verb", "arguments"), COMMANDS)
def test_a_command_arrives_as_it_was_given(
    verb: str, arguments: tuple[Any, ...], machine: Machine, controller: Recorder
) -> None:
    getattr(machine, verb)(*arguments)
    assert controller.calls == [Call(verb, arguments)]


@pytest.mark.parametrize(("verb", "answer"), QUESTIONS)
def test_an_answer_comes_back_as_it_was_given(verb: str, answer: Any, machine: Machine, controller: Recorder) -> None:
    controller.answer = answer
    assert getattr(machine, verb)() == answer
    assert controller.calls == [Call(verb)]


def test_a_cpu_template_is_sent_as_it_stands_in_its_file(machine: Machine, controller: Recorder) -> None:
    machine.put_cpu_config({"kvm_capabilities": ["!171"]})
    assert controller.calls == [Call("put_cpu_config", (CustomCpuTemplate([KvmCapability(171, False)]),))]


def test_there_is_a_method_for_every_verb() -> None:
    tried = {verb for verb, _ in COMMANDS} | {verb for verb, _ in QUESTIONS} | {"put_cpu_config"}
    methods = {name for name, _ in inspect.getmembers(Machine, inspect.isfunction) if not name.startswith("_")}
    assert tried == RULES.keys()
    assert methods == RULES.keys() | {"close", "wait_until_ready"}
    assert ActionBody.__struct_fields__ == ("action_type",)


def test_a_refusal_is_an_error_with_the_servers_sentence(machine: Machine, controller: Recorder) -> None:
    controller.answer = NotAfterStart()
    with pytest.raises(ApiError) as refused:
        machine.put_boot_source(BootSourceConfig("k"))
    assert refused.value.status == 400
    assert str(refused.value) == "The requested operation is not supported after starting the microVM."
    controller.answer = VmmVersion()
    assert machine.get_version() == VmmVersion(), "the connection goes on"


def test_what_is_no_request_at_all_is_an_error_too(machine: Machine) -> None:
    with pytest.raises(ApiError, match="Request payload with size 60002 is larger than the limit of 51200"):
        machine.put_mmds("x" * 60_000)


def test_a_client_waits_for_its_server(tmp_path: Path, controller: Recorder) -> None:
    path = str(tmp_path / "socket")
    controller.answer = InstanceInfo("id", "Running")
    with Machine(path) as machine:
        with pytest.raises(TimeoutError):
            machine.wait_until_ready(timeout_s=0)
        server = Server(path, Dispatcher(controller).handle)
        server.start()
        assert machine.wait_until_ready().state == "Running"
    server.close()


def test_a_client_finds_a_server_that_was_restarted(tmp_path: Path, controller: Recorder) -> None:
    path = tmp_path / "socket"
    with Machine(str(path)) as machine:
        for _ in range(2):
            server = Server(str(path), Dispatcher(controller).handle)
            server.start()
            machine.start_instance()
            machine.close()
            server.close()
            path.unlink()
    assert len(controller.calls) == 2
