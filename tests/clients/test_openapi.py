"""Firecracker's OpenAPI document against our endpoints and records: same paths, methods, fields and enumerations.

`data/openapi.json` holds the document's facts; `openapi_facts.py` makes it. Where the document disagrees with the
program it describes, the exception is listed here with its reason.
"""

import json
import os
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from hibana.api import routes
from hibana.api.endpoints import ENDPOINTS, Endpoint, Fork
from hibana.config import balloon, cpu, drive, memory_hotplug, net, pmem, rate_limit, snapshot
from hibana.config.action import ActionBody
from hibana.config.boot_source import BootSourceConfig
from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.instance import InstanceInfo, VmmVersion
from hibana.config.logger import LoggerConfig
from hibana.config.machine import MachineConfig, MachineConfigUpdate
from hibana.config.metrics import MetricsConfig
from hibana.config.mmds import MmdsConfig
from hibana.config.serial import SerialConfig
from hibana.config.vm_config import VmmConfig
from hibana.config.vm_state import Vm
from hibana.config.vsock import VsockDeviceConfig
from hibana.vmm.verbs import RULES

with open(os.path.join(os.path.dirname(__file__), "data", "openapi.json"), encoding="utf-8") as _file:
    FACTS: dict[str, Any] = json.load(_file)

RECORDS: dict[str, type[msgspec.Struct]] = {
    "Balloon": balloon.BalloonDeviceConfig,
    "BalloonUpdate": balloon.BalloonUpdateConfig,
    "BalloonStats": balloon.BalloonStats,
    "BalloonStartCmd": balloon.StartHintingCmd,
    "BalloonHintingStatus": balloon.HintingStatus,
    "BalloonStatsUpdate": balloon.BalloonUpdateStatsConfig,
    "BootSource": BootSourceConfig,
    "CpuConfig": cpu.CustomCpuTemplate,
    "CpuidLeafModifier": cpu.CpuidLeafModifier,
    "CpuidRegisterModifier": cpu.CpuidRegisterModifier,
    "MsrModifier": cpu.MsrModifier,
    "Drive": drive.BlockDeviceConfig,
    "EntropyDevice": EntropyDeviceConfig,
    "FirecrackerVersion": VmmVersion,
    "FullVmConfiguration": VmmConfig,
    "InstanceActionInfo": ActionBody,
    "InstanceInfo": InstanceInfo,
    "Logger": LoggerConfig,
    "MachineConfiguration": MachineConfig,
    "MemoryBackend": snapshot.MemBackendConfig,
    "MemoryHotplugConfig": memory_hotplug.MemoryHotplugConfig,
    "MemoryHotplugSizeUpdate": memory_hotplug.MemoryHotplugSizeUpdate,
    "MemoryHotplugStatus": memory_hotplug.MemoryHotplugStatus,
    "Metrics": MetricsConfig,
    "MmdsConfig": MmdsConfig,
    "NetworkInterface": net.NetworkInterfaceConfig,
    "NetworkOverride": snapshot.NetworkOverride,
    "PartialDrive": drive.BlockDeviceUpdateConfig,
    "PartialNetworkInterface": net.NetworkInterfaceUpdateConfig,
    "PartialPmem": pmem.PmemDeviceUpdateConfig,
    "Pmem": pmem.PmemConfig,
    "RateLimiter": rate_limit.RateLimiterConfig,
    "SerialDevice": SerialConfig,
    "SnapshotCreateParams": snapshot.CreateSnapshotParams,
    "SnapshotLoadParams": snapshot.LoadSnapshotConfig,
    "TokenBucket": rate_limit.TokenBucketConfig,
    "Vm": Vm,
    "Vsock": VsockDeviceConfig,
    "VsockOverride": snapshot.VsockOverride,
}

WITHOUT_RECORD = {
    "ArmRegisterModifier": "aarch64",
    "VcpuFeatures": "aarch64",
    "CpuTemplate": "an enumeration, compared where it is used",
    "Error": "written by api/faults.py",
    "MmdsContentsObject": "any JSON",
}

AARCH64_FIELDS = {("CpuConfig", "reg_modifiers"), ("CpuConfig", "vcpu_features")}

REQUIRED_THOUGH_UNSAID = {
    # the program refuses bodies without them
    "MemoryHotplugConfig": {"total_size_mib"},
    "MemoryHotplugSizeUpdate": {"requested_size_mib"},
    # always in the answer
    "MemoryHotplugStatus": {
        "total_size_mib",
        "slot_size_mib",
        "block_size_mib",
        "plugged_size_mib",
        "requested_size_mib",
    },
    # of the configuration file, which has the same keys
    "FullVmConfiguration": {"boot-source", "drives"},
}
DEFAULTED_BY_US = {"InstanceInfo": {"vmm_version", "app_name"}, "FirecrackerVersion": {"firecracker_version"}}

CHECKED_ELSEWHERE = {
    ("Logger", "level"): "read in any case, `warn` too",
    ("CpuidRegisterModifier", "register"): "has a sentence of its own",
}


def has_default(record: type[msgspec.Struct], name: str) -> bool:
    index = record.__struct_fields__.index(name) - len(record.__struct_fields__) + len(record.__struct_defaults__)
    return index >= 0 and record.__struct_defaults__[index] is not msgspec.NODEFAULT


def keys(record: type[msgspec.Struct]) -> dict[str, str]:
    """Give the attribute of each key."""
    return dict(zip(record.__struct_encode_fields__, record.__struct_fields__, strict=True))


def bare(kind: Any) -> Any:
    """Strip what does not show in the document: annotations, and that a field may be absent."""
    if get_origin(kind) is Annotated:
        return bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        present = [each for each in get_args(kind) if each not in (NoneType, msgspec.UnsetType)]
        return bare(present[0] if len(present) == 1 else present[-1])
    return kind


def rows(place: Endpoint | Fork, path: str) -> Iterator[tuple[str, Endpoint]]:
    if isinstance(place, Endpoint):
        yield (f"{path}/{{{place.id.field}}}" if place.id else path or "/"), place
        return
    for word, way in place.ways.items():
        yield from rows(way, path if word is None else f"{path}/{word}")
    if isinstance(place.otherwise, Endpoint):
        yield path, place.otherwise


OURS = {
    (path, method): row
    for method, table in ENDPOINTS.items()
    for word, place in table.items()
    for path, row in rows(place, f"/{word}" if word else "")
}
THEIRS = {
    (path, method): operation for path, methods in FACTS["paths"].items() for method, operation in methods.items()
}


def test_the_paths_and_methods_are_theirs_and_three_that_they_forgot() -> None:
    forgotten = {(path, "DELETE") for path in ("/drives/{drive_id}", "/network-interfaces/{iface_id}", "/pmem/{id}")}
    assert OURS.keys() == THEIRS.keys() | forgotten


@pytest.mark.parametrize(("path", "method"), THEIRS, ids=str)
def test_an_operation_reads_the_body_they_describe(path: str, method: str) -> None:
    described = THEIRS[path, method]["body"]
    body = OURS[path, method].body
    if described is None:
        assert body is None
    elif described == "MmdsContentsObject":
        assert body is Any
    elif (path, method) == ("/machine-config", "PATCH"):
        assert body is MachineConfigUpdate, "the same fields, none required"
    else:
        assert body is RECORDS[described]


def test_a_change_of_the_machine_has_the_machines_fields() -> None:
    assert MachineConfigUpdate.__struct_fields__ == MachineConfig.__struct_fields__
    changes, machine = get_type_hints(MachineConfigUpdate), get_type_hints(MachineConfig)
    assert all(bare(changes[name]) == bare(machine[name]) for name in changes)


def test_every_definition_is_a_record_or_has_a_reason_not_to_be() -> None:
    assert FACTS["definitions"].keys() == RECORDS.keys() | WITHOUT_RECORD.keys()


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_has_the_keys_of_its_definition(name: str) -> None:
    described = {key for key in FACTS["definitions"][name]["properties"] if (name, key) not in AARCH64_FIELDS}
    assert set(keys(RECORDS[name])) == described


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_requires_what_its_definition_requires(name: str) -> None:
    record = RECORDS[name]
    required = {key for key, attribute in keys(record).items() if not has_default(record, attribute)}
    described = set(FACTS["definitions"][name]["required"]) | REQUIRED_THOUGH_UNSAID.get(name, set())
    assert required == described - DEFAULTED_BY_US.get(name, set())


def fits(kind: Any, described: dict[str, Any]) -> bool:
    kind = bare(kind)
    if "ref" in described:
        definition = FACTS["definitions"][described["ref"]]
        if "enum" in definition:
            return set(get_args(kind)) == set(definition["enum"]) - {"V1N1"}  # aarch64
        return kind is RECORDS[described["ref"]]
    if "enum" in described:
        return get_origin(kind) is Literal and set(get_args(kind)) == set(described["enum"])
    if described["type"] == "array":
        return get_origin(kind) is list and fits(get_args(kind)[0], described["items"])
    if described["type"] == "object":
        return get_origin(kind) is dict
    return kind is {"integer": int, "boolean": bool, "string": str}[described["type"]]


FIELDS = [
    (name, key)
    for name in RECORDS
    for key in FACTS["definitions"][name]["properties"]
    if (name, key) not in AARCH64_FIELDS | CHECKED_ELSEWHERE.keys()
]


@pytest.mark.parametrize(("name", "key"), FIELDS)
def test_a_field_has_the_type_and_the_values_they_describe(name: str, key: str) -> None:
    record = RECORDS[name]
    kind = get_type_hints(record, include_extras=True)[keys(record)[key]]
    described = FACTS["definitions"][name]["properties"][key]
    if isinstance(bare(kind), type) and issubclass(bare(kind), tuple | int) and described == {"type": "string"}:
        assert get_origin(kind) is Annotated, "a string that is read into something else"
        return
    if described == {"type": "array", "items": {"type": "string"}} and name == "CpuConfig":
        assert get_args(bare(kind))[0].__origin__ is cpu.KvmCapability, "likewise"
        return
    assert fits(kind, described)


def test_their_answers_come_from_our_verbs() -> None:
    good = {path_method: operation["status"] for path_method, operation in THEIRS.items()}
    for (path, method), status in good.items():
        assert status == (200 if method == "GET" else 204)
        verb = OURS[path, method].verb
        assert verb == "" or verb in RULES, path


def test_the_router_finds_every_path_of_theirs() -> None:
    for path, method in THEIRS:
        words = path.strip("/").replace("{", "").replace("}", "").split("/")
        assert routes._find(method, [word for word in words if word]) is OURS[path, method]


def test_the_document_is_of_the_release_whose_face_we_show() -> None:
    assert VmmVersion().firecracker_version == FACTS["version"]
