"""A microVM at the other end of its API socket: one method per verb, waiting for the answer."""

import http.client
import socket
import time
from types import TracebackType
from typing import Any, Final, TypeVar

import msgspec

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
from hibana.config.drive import BlockDeviceConfig, BlockDeviceUpdateConfig
from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.instance import InstanceInfo, VmmVersion
from hibana.config.logger import LoggerConfig
from hibana.config.machine import MachineConfig, MachineConfigUpdate
from hibana.config.memory_hotplug import MemoryHotplugConfig, MemoryHotplugSizeUpdate, MemoryHotplugStatus
from hibana.config.metrics import MetricsConfig
from hibana.config.mmds import MmdsConfig
from hibana.config.net import NetworkInterfaceConfig, NetworkInterfaceUpdateConfig
from hibana.config.pmem import PmemConfig, PmemDeviceUpdateConfig
from hibana.config.serial import SerialConfig
from hibana.config.snapshot import CreateSnapshotParams, LoadSnapshotConfig
from hibana.config.vm_config import VmmConfig
from hibana.config.vm_state import Vm
from hibana.config.vsock import VsockDeviceConfig

T = TypeVar("T")

_POLL_S: Final = 0.01


class ApiError(Exception):
    """The server refused; `str(error)` is its sentence."""

    def __init__(self, status: int, fault_message: str) -> None:
        super().__init__(fault_message)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path instead of to a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.close()
            raise


class Machine:
    """A microVM, by the path of its API socket. Methods raise ApiError, or OSError when there is no server."""

    def __init__(self, socket_path: str, timeout_s: float = 60.0) -> None:
        self._connection = _UnixConnection(socket_path, timeout_s)

    def __enter__(self) -> "Machine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the microVM goes on."""
        self._connection.close()

    def wait_until_ready(self, timeout_s: float = 10.0) -> InstanceInfo:
        """Wait for the server to answer. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self.get_instance_info()
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if time.monotonic() > deadline:
                    raise TimeoutError("no answer on the API socket") from error
                time.sleep(_POLL_S)

    # --- the microVM as a whole -------------------------------------------------------------------------------------

    def get_instance_info(self) -> InstanceInfo:
        return self._get("/", InstanceInfo)

    def get_version(self) -> VmmVersion:
        return self._get("/version", VmmVersion)

    def get_vm_config(self) -> VmmConfig:
        return self._get("/vm/config", VmmConfig)

    def start_instance(self) -> None:
        self._put("/actions", ActionBody("InstanceStart"))

    def flush_metrics(self) -> None:
        self._put("/actions", ActionBody("FlushMetrics"))

    def send_ctrl_alt_del(self) -> None:
        self._put("/actions", ActionBody("SendCtrlAltDel"))

    def pause_vm(self) -> None:
        self._patch("/vm", Vm("Paused"))

    def resume_vm(self) -> None:
        self._patch("/vm", Vm("Resumed"))

    def create_snapshot(self, params: CreateSnapshotParams) -> None:
        self._put("/snapshot/create", params)

    def load_snapshot(self, config: LoadSnapshotConfig) -> None:
        self._put("/snapshot/load", config)

    # --- the machine ------------------------------------------------------------------------------------------------

    def get_machine_config(self) -> MachineConfig:
        return self._get("/machine-config", MachineConfig)

    def put_machine_config(self, config: MachineConfig) -> None:
        self._put("/machine-config", config)

    def patch_machine_config(self, change: MachineConfigUpdate) -> None:
        self._patch("/machine-config", change)

    def put_cpu_config(self, template: dict[str, Any]) -> None:
        """Set a custom CPU template, as it stands in a template file."""
        self._put("/cpu-config", template)

    def put_boot_source(self, config: BootSourceConfig) -> None:
        self._put("/boot-source", config)

    def put_serial(self, config: SerialConfig) -> None:
        self._put("/serial", config)

    # --- devices ----------------------------------------------------------------------------------------------------

    def put_drive(self, config: BlockDeviceConfig) -> None:
        self._put(f"/drives/{config.drive_id}", config)

    def patch_drive(self, change: BlockDeviceUpdateConfig) -> None:
        self._patch(f"/drives/{change.drive_id}", change)

    def delete_drive(self, drive_id: str) -> None:
        self._request("DELETE", f"/drives/{drive_id}")

    def put_network_interface(self, config: NetworkInterfaceConfig) -> None:
        self._put(f"/network-interfaces/{config.iface_id}", config)

    def patch_network_interface(self, change: NetworkInterfaceUpdateConfig) -> None:
        self._patch(f"/network-interfaces/{change.iface_id}", change)

    def delete_network_interface(self, iface_id: str) -> None:
        self._request("DELETE", f"/network-interfaces/{iface_id}")

    def put_pmem(self, config: PmemConfig) -> None:
        self._put(f"/pmem/{config.id}", config)

    def patch_pmem(self, change: PmemDeviceUpdateConfig) -> None:
        self._patch(f"/pmem/{change.id}", change)

    def delete_pmem(self, pmem_id: str) -> None:
        self._request("DELETE", f"/pmem/{pmem_id}")

    def put_vsock(self, config: VsockDeviceConfig) -> None:
        self._put("/vsock", config)

    def put_entropy(self, config: EntropyDeviceConfig) -> None:
        self._put("/entropy", config)

    def get_balloon(self) -> BalloonDeviceConfig:
        return self._get("/balloon", BalloonDeviceConfig)

    def put_balloon(self, config: BalloonDeviceConfig) -> None:
        self._put("/balloon", config)

    def patch_balloon(self, change: BalloonUpdateConfig) -> None:
        self._patch("/balloon", change)

    def get_balloon_statistics(self) -> BalloonStats:
        return self._get("/balloon/statistics", BalloonStats)

    def patch_balloon_statistics(self, change: BalloonUpdateStatsConfig) -> None:
        self._patch("/balloon/statistics", change)

    def start_balloon_hinting(self, command: StartHintingCmd | None = None) -> None:
        self._patch("/balloon/hinting/start", command or StartHintingCmd())

    def get_balloon_hinting(self) -> HintingStatus:
        return self._get("/balloon/hinting/status", HintingStatus)

    def stop_balloon_hinting(self) -> None:
        self._request("PATCH", "/balloon/hinting/stop")

    def get_memory_hotplug(self) -> MemoryHotplugStatus:
        return self._get("/hotplug/memory", MemoryHotplugStatus)

    def put_memory_hotplug(self, config: MemoryHotplugConfig) -> None:
        self._put("/hotplug/memory", config)

    def patch_memory_hotplug(self, change: MemoryHotplugSizeUpdate) -> None:
        self._patch("/hotplug/memory", change)

    # --- metadata ---------------------------------------------------------------------------------------------------

    def get_mmds(self) -> Any:
        return self._get("/mmds", object)

    def put_mmds(self, value: Any) -> None:
        self._put("/mmds", value)

    def patch_mmds(self, patch: Any) -> None:
        self._patch("/mmds", patch)

    def put_mmds_config(self, config: MmdsConfig) -> None:
        self._put("/mmds/config", config)

    # --- what the operator sees -------------------------------------------------------------------------------------

    def put_logger(self, config: LoggerConfig) -> None:
        self._put("/logger", config)

    def put_metrics(self, config: MetricsConfig) -> None:
        self._put("/metrics", config)

    # --- requests ---------------------------------------------------------------------------------------------------

    def _get(self, path: str, kind: type[T]) -> T:
        return msgspec.json.decode(self._request("GET", path), type=kind)

    def _put(self, path: str, body: object) -> None:
        self._request("PUT", path, msgspec.json.encode(body))

    def _patch(self, path: str, body: object) -> None:
        self._request("PATCH", path, msgspec.json.encode(body))

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        try:
            self._connection.request(method, path, body)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()  # the next request starts afresh
            raise
        if response.status >= 300:
            raise ApiError(response.status, _sentence(answer))
        return answer


def _sentence(answer: bytes) -> str:
    """Find the sentence in an error's body; what is no request at all gets something that is not quite JSON."""
    try:
        faults = msgspec.json.decode(answer, type=dict[str, str])
    except msgspec.MsgspecError:
        return answer.decode("utf-8", "replace")
    return faults.get("fault_message") or faults.get("error") or answer.decode()
