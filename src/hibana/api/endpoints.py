"""The table of what can be asked (api.md §1.5, §2): path, body, verb. A new endpoint is a row here and a method there.

A path is walked word by word. A row that is reached ends the walk, and further words are ignored; a `Fork` looks at
the next word. Order of columns: verb, record of the body, name in the API metrics.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from hibana.config.action import ActionBody
from hibana.config.balloon import (
    BalloonDeviceConfig,
    BalloonUpdateConfig,
    BalloonUpdateStatsConfig,
    StartHintingCmd,
)
from hibana.config.boot_source import BootSourceConfig
from hibana.config.cpu import CustomCpuTemplate
from hibana.config.drive import BlockDeviceConfig, BlockDeviceUpdateConfig
from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.logger import LoggerConfig
from hibana.config.machine import MachineConfig, MachineConfigUpdate
from hibana.config.memory_hotplug import MemoryHotplugConfig, MemoryHotplugSizeUpdate
from hibana.config.metrics import MetricsConfig
from hibana.config.mmds import MmdsConfig
from hibana.config.net import NetworkInterfaceConfig, NetworkInterfaceUpdateConfig
from hibana.config.pmem import PmemConfig, PmemDeviceUpdateConfig
from hibana.config.serial import SerialConfig
from hibana.config.snapshot import CreateSnapshotParams, LoadSnapshotConfig
from hibana.config.vm_state import Vm
from hibana.config.vsock import VsockDeviceConfig
from hibana.errors import (
    EmptyPatch,
    IdMismatch,
    InterfaceIdMismatch,
    InvalidPathMethod,
    MissingSnapshotOperation,
    RequestError,
    UnrecognizedPath,
)
from hibana.vmm.verbs import Call


class Id(NamedTuple):
    """The word after the first is an id; a body repeats it in `field`."""

    field: str
    mismatch: type[RequestError] = IdMismatch


class Deprecation(NamedTuple):
    """When using an endpoint deserves a warning."""

    applies: Callable[[Any], bool]
    notice: str


class Endpoint(NamedTuple):
    """One row: what a request means."""

    verb: str
    body: Any = None
    """Its record; `Any` for any JSON value, None for no body."""
    counter: str = ""
    id: Id | None = None
    interpret: Callable[[Any], Call] | None = None
    """Where the verb depends on the body, or the body has rules of its own."""
    deprecation: Deprecation | None = None
    body_optional: bool = False


class Fork(NamedTuple):
    """A place where the next word decides; its key is None where the path ends."""

    ways: Mapping[str | None, "Endpoint | Fork"]
    otherwise: "Endpoint | Callable[[str, str], RequestError]"
    """What any other word means, or the refusal (of method and word)."""
    counter: str = ""


# --- bodies with rules of their own -----------------------------------------------------------------------------------


def _action(body: ActionBody) -> Call:
    verbs = {"InstanceStart": "start_instance", "FlushMetrics": "flush_metrics", "SendCtrlAltDel": "send_ctrl_alt_del"}
    return Call(verbs[body.action_type])


def _vm_state(body: Vm) -> Call:
    return Call("pause_vm" if body.state == "Paused" else "resume_vm")


def _machine_update(body: MachineConfigUpdate) -> Call:
    if body == MachineConfigUpdate():
        raise EmptyPatch
    return Call("patch_machine_config", (body,))


def _load_snapshot(body: LoadSnapshotConfig) -> Call:
    body.memory()  # raises JsonError
    return Call("load_snapshot", (body,))


def _names_template(body: MachineConfig | MachineConfigUpdate) -> bool:
    return bool(body.cpu_template)


def _is_old_snapshot_request(body: LoadSnapshotConfig) -> bool:
    return body.mem_file_path is not None or body.enable_diff_snapshots


# --- refusals ---------------------------------------------------------------------------------------------------------


def _nothing_there(first: str) -> Callable[[str, str], RequestError]:
    return lambda method, word: InvalidPathMethod(method, first)


def _unrecognized(prefix: str) -> Callable[[str, str], RequestError]:
    return lambda method, word: UnrecognizedPath(method=method, path=prefix + word)


def _no_snapshot_operation(method: str, word: str) -> RequestError:
    return InvalidPathMethod(method, f"/snapshot/{word}") if word else MissingSnapshotOperation()


# --- the table --------------------------------------------------------------------------------------------------------

_DRIVE: Final = Id("drive_id")
_PMEM: Final = Id("id")
_INTERFACE: Final = Id("iface_id", InterfaceIdMismatch)

_GET: Final[dict[str, Endpoint | Fork]] = {
    "": Endpoint("get_instance_info", counter="instance_info"),
    "balloon": Fork(
        {
            None: Endpoint("get_balloon"),
            "statistics": Endpoint("get_balloon_statistics"),
            "hinting": Fork({"status": Endpoint("get_balloon_hinting")}, otherwise=_unrecognized("/hinting/")),
        },
        otherwise=_unrecognized(""),
    ),
    "hotplug": Fork(
        {"memory": Endpoint("get_memory_hotplug", counter="hotplug_memory")}, otherwise=_nothing_there("hotplug")
    ),
    "machine-config": Endpoint("get_machine_config", counter="machine_cfg"),
    "mmds": Endpoint("get_mmds", counter="mmds"),
    "version": Endpoint("get_version", counter="vmm_version"),
    "vm": Fork({"config": Endpoint("get_vm_config")}, otherwise=_nothing_there("vm")),
}

_PUT: Final[dict[str, Endpoint | Fork]] = {
    "actions": Endpoint("", ActionBody, "actions", interpret=_action),
    "balloon": Endpoint("put_balloon", BalloonDeviceConfig),
    "boot-source": Endpoint("put_boot_source", BootSourceConfig, "boot_source"),
    "cpu-config": Endpoint("put_cpu_config", CustomCpuTemplate, "cpu_cfg"),
    "drives": Endpoint("put_drive", BlockDeviceConfig, "drive", _DRIVE),
    "entropy": Endpoint("put_entropy", EntropyDeviceConfig),
    "hotplug": Fork(
        {"memory": Endpoint("put_memory_hotplug", MemoryHotplugConfig, "hotplug_memory")},
        otherwise=_nothing_there("hotplug"),
    ),
    "logger": Endpoint("put_logger", LoggerConfig, "logger"),
    "machine-config": Endpoint(
        "put_machine_config",
        MachineConfig,
        "machine_cfg",
        deprecation=Deprecation(_names_template, "PUT /machine-config: cpu_template field is deprecated."),
    ),
    "metrics": Endpoint("put_metrics", MetricsConfig, "metrics"),
    "mmds": Fork(
        {
            None: Endpoint("put_mmds", Any, "mmds"),
            "config": Endpoint(
                "put_mmds_config",
                MmdsConfig,
                "mmds",
                deprecation=Deprecation(
                    lambda body: body.version == "V1", "PUT /mmds/config: V1 is deprecated. Use V2 instead."
                ),
            ),
        },
        otherwise=_unrecognized(""),
        counter="mmds",
    ),
    "network-interfaces": Endpoint("put_network_interface", NetworkInterfaceConfig, "network", _INTERFACE),
    "pmem": Endpoint("put_pmem", PmemConfig, "pmem", _PMEM),
    "serial": Endpoint("put_serial", SerialConfig, "serial"),
    "snapshot": Fork(
        {
            "create": Endpoint("create_snapshot", CreateSnapshotParams),
            "load": Endpoint(
                "load_snapshot",
                LoadSnapshotConfig,
                interpret=_load_snapshot,
                deprecation=Deprecation(
                    _is_old_snapshot_request,
                    "PUT /snapshot/load: mem_file_path and enable_diff_snapshots fields are deprecated.",
                ),
            ),
        },
        otherwise=_no_snapshot_operation,
    ),
    "vsock": Endpoint(
        "put_vsock",
        VsockDeviceConfig,
        "vsock",
        deprecation=Deprecation(
            lambda body: isinstance(body.vsock_id, str), "PUT /vsock: vsock_id field is deprecated."
        ),
    ),
}

_PATCH: Final[dict[str, Endpoint | Fork]] = {
    "balloon": Fork(
        {
            "statistics": Endpoint("patch_balloon_statistics", BalloonUpdateStatsConfig),
            "hinting": Fork(
                {
                    "start": Endpoint("start_balloon_hinting", StartHintingCmd, body_optional=True),
                    "stop": Endpoint("stop_balloon_hinting", body_optional=True),
                },
                otherwise=_unrecognized("/hinting/"),
            ),
        },
        otherwise=Endpoint("patch_balloon", BalloonUpdateConfig),
    ),
    "drives": Endpoint("patch_drive", BlockDeviceUpdateConfig, "drive", _DRIVE),
    "hotplug": Fork(
        {"memory": Endpoint("patch_memory_hotplug", MemoryHotplugSizeUpdate, "hotplug_memory")},
        otherwise=_nothing_there("hotplug"),
    ),
    "machine-config": Endpoint(
        "patch_machine_config",
        MachineConfigUpdate,
        "machine_cfg",
        interpret=_machine_update,
        deprecation=Deprecation(_names_template, "PATCH /machine-config: cpu_template field is deprecated."),
    ),
    "mmds": Endpoint("patch_mmds", Any, "mmds"),
    "network-interfaces": Endpoint("patch_network_interface", NetworkInterfaceUpdateConfig, "network", _INTERFACE),
    "pmem": Endpoint("patch_pmem", PmemDeviceUpdateConfig, "pmem", _PMEM),
    "vm": Endpoint("", Vm, interpret=_vm_state),
}

_DELETE: Final[dict[str, Endpoint | Fork]] = {
    "drives": Endpoint("delete_drive", id=_DRIVE),
    "network-interfaces": Endpoint("delete_network_interface", id=_INTERFACE),
    "pmem": Endpoint("delete_pmem", id=_PMEM),
}

ENDPOINTS: Final[dict[str, dict[str, Endpoint | Fork]]] = {
    "GET": _GET,
    "PUT": _PUT,
    "PATCH": _PATCH,
    "DELETE": _DELETE,
}
