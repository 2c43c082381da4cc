# ruff: noqa: E501
"""What serde_json says of every kind of bad body, with its line and column (api.md §1.7).

The sentences are facts: they were compared with a program that declares the same records in Rust.
"""

import msgspec
import pytest

from hibana.config.action import ActionBody
from hibana.config.balloon import BalloonDeviceConfig, BalloonUpdateConfig
from hibana.config.cpu import CustomCpuTemplate
from hibana.config.drive import BlockDeviceConfig
from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.logger import LoggerConfig
from hibana.config.machine import MachineConfig
from hibana.config.memory_hotplug import MemoryHotplugConfig
from hibana.config.metrics import MetricsConfig
from hibana.config.mmds import MmdsConfig
from hibana.config.net import NetworkInterfaceConfig
from hibana.config.pmem import PmemConfig
from hibana.config.serial import SerialConfig
from hibana.config.snapshot import CreateSnapshotParams, LoadSnapshotConfig
from hibana.config.vm_config import VmmConfig
from hibana.config.vm_state import Vm
from hibana.config.vsock import VsockDeviceConfig
from hibana.errors import JsonError
from hibana.serde.records import decode

SENTENCES: list[tuple[type[msgspec.Struct], bytes, str]] = [
    # the vectors of api.md §1.7
    (MachineConfig, b'{"mem_size_mib": 128}', "missing field `vcpu_count` at line 1 column 21"),
    (MachineConfig, b'{"vcpu_count": 2}', "missing field `mem_size_mib` at line 1 column 17"),
    (
        MachineConfig,
        b'{"foo": false}',
        "unknown field `foo`, expected one of `vcpu_count`, `mem_size_mib`, `smt`, `cpu_template`, `track_dirty_pages`, `huge_pages` at line 1 column 6",
    ),
    (
        MachineConfig,
        b'{\n  "vcpu_count": 1,\n  "mem_size_mib": 2,\n  "smt": false,\n            }',
        "trailing comma at line 5 column 13",
    ),
    # syntax
    (MachineConfig, b"", "EOF while parsing a value at line 1 column 0"),
    (MachineConfig, b" \n ", "EOF while parsing a value at line 2 column 1"),
    (MachineConfig, b"x", "expected value at line 1 column 1"),
    (MachineConfig, b"\xef\xbb\xbf{}", "expected value at line 1 column 1"),
    (MachineConfig, b"nul", "EOF while parsing a value at line 1 column 3"),
    (MachineConfig, b"nulx", "expected ident at line 1 column 4"),
    (MachineConfig, b"{", "EOF while parsing an object at line 1 column 1"),
    (MachineConfig, b'{"vcpu_count"', "EOF while parsing an object at line 1 column 13"),
    (MachineConfig, b'{"vcpu_count" 1}', "expected `:` at line 1 column 15"),
    (MachineConfig, b'{"vcpu_count":', "EOF while parsing a value at line 1 column 14"),
    (MachineConfig, b'{"vcpu_count":1', "EOF while parsing an object at line 1 column 15"),
    (MachineConfig, b'{"vcpu_count":1,', "EOF while parsing a value at line 1 column 16"),
    (MachineConfig, b'{"vcpu_count":1 "smt":true}', "expected `,` or `}` at line 1 column 17"),
    (MachineConfig, b'{,"vcpu_count":1}', "key must be a string at line 1 column 2"),
    (MachineConfig, b"{vcpu_count:1}", "key must be a string at line 1 column 2"),
    (MachineConfig, b"{1:1}", "key must be a string at line 1 column 2"),
    (MachineConfig, b'{"vcpu_count":1,"mem_size_mib":1} x', "trailing characters at line 1 column 35"),
    (MachineConfig, b'{"vcpu_count":1,"mem_size_mib":1}}', "trailing characters at line 1 column 34"),
    (MachineConfig, b'{"vcpu_count":+1}', "expected value at line 1 column 15"),
    (MachineConfig, b'{"vcpu_count":NaN}', "expected value at line 1 column 15"),
    (MachineConfig, b'{"vcpu_count":01}', "invalid number at line 1 column 16"),
    (MachineConfig, b'{"vcpu_count":-}', "invalid number at line 1 column 16"),
    (MachineConfig, b'{"vcpu_count":1.}', "invalid number at line 1 column 17"),
    (MachineConfig, b'{"vcpu_count":1e}', "invalid number at line 1 column 17"),
    (MachineConfig, b'{"vcpu_count":1e400}', "number out of range at line 1 column 19"),
    (BlockDeviceConfig, b'{"drive_id":"a', "EOF while parsing a string at line 1 column 14"),
    (BlockDeviceConfig, b'{"drive_id":"\\q"}', "invalid escape at line 1 column 15"),
    (BlockDeviceConfig, b'{"drive_id":"\\ud800"}', "unexpected end of hex escape at line 1 column 20"),
    (BlockDeviceConfig, b'{"drive_id":"\\ud800\\u0041"}', "lone leading surrogate in hex escape at line 1 column 25"),
    (BlockDeviceConfig, b'{"drive_id":"\\udc00"}', "lone leading surrogate in hex escape at line 1 column 19"),
    (BlockDeviceConfig, b'{"drive_id":"\\u12"}', "invalid escape at line 1 column 19"),
    (BlockDeviceConfig, b'{"drive_id":"\xff"}', "invalid unicode code point at line 1 column 15"),
    (
        BlockDeviceConfig,
        b'{"drive_id":"a\nb"}',
        "control character (\\u0000-\\u001F) found while parsing a string at line 2 column 0",
    ),
    (MmdsConfig, b'{"network_interfaces":["a",]}', "trailing comma at line 1 column 28"),
    (MmdsConfig, b'{"network_interfaces":["a" "b"]}', "expected `,` or `]` at line 1 column 28"),
    (MmdsConfig, b'{"network_interfaces":["a"', "EOF while parsing a list at line 1 column 26"),
    (MmdsConfig, b'{"network_interfaces":[,]}', "expected value at line 1 column 24"),
    # types
    (MachineConfig, b"[]", "invalid length 0, expected struct MachineConfig with 6 elements at line 1 column 2"),
    (MachineConfig, b'[1,2,true,null,false,"None",7]', "trailing characters at line 1 column 29"),
    (MachineConfig, b'"x"', 'invalid type: string "x", expected struct MachineConfig at line 1 column 3'),
    (MachineConfig, b"5", "invalid type: integer `5`, expected struct MachineConfig at line 1 column 1"),
    (MachineConfig, b"null", "invalid type: null, expected struct MachineConfig at line 1 column 4"),
    (MachineConfig, b"true", "invalid type: boolean `true`, expected struct MachineConfig at line 1 column 4"),
    (MachineConfig, b'{"vcpu_count":"2"}', 'invalid type: string "2", expected u8 at line 1 column 17'),
    (MachineConfig, b'{"vcpu_count":300}', "invalid value: integer `300`, expected u8 at line 1 column 17"),
    (MachineConfig, b'{"vcpu_count":-2}', "invalid value: integer `-2`, expected u8 at line 1 column 16"),
    (MachineConfig, b'{"mem_size_mib":-2}', "invalid value: integer `-2`, expected usize at line 1 column 18"),
    (MachineConfig, b'{"vcpu_count":2.0}', "invalid type: floating point `2.0`, expected u8 at line 1 column 17"),
    (MachineConfig, b'{"vcpu_count":1e2}', "invalid type: floating point `100.0`, expected u8 at line 1 column 17"),
    (MachineConfig, b'{"vcpu_count":-0}', "invalid type: floating point `-0.0`, expected u8 at line 1 column 16"),
    (
        MachineConfig,
        b'{"vcpu_count":18446744073709551616}',
        "invalid type: floating point `1.8446744073709552e+19`, expected u8 at line 1 column 34",
    ),
    (MachineConfig, b'{"vcpu_count":true}', "invalid type: boolean `true`, expected u8 at line 1 column 18"),
    (MachineConfig, b'{"vcpu_count":null}', "invalid type: null, expected u8 at line 1 column 18"),
    (MachineConfig, b'{"vcpu_count":[1]}', "invalid type: sequence, expected u8 at line 1 column 14"),
    (MachineConfig, b'{"vcpu_count":{}}', "invalid type: map, expected u8 at line 1 column 14"),
    (MachineConfig, b'{"smt":"true"}', 'invalid type: string "true", expected a boolean at line 1 column 13'),
    (MachineConfig, b'{"smt":null}', "invalid type: null, expected a boolean at line 1 column 11"),
    (MachineConfig, b'{"smt":0}', "invalid type: integer `0`, expected a boolean at line 1 column 8"),
    (
        MachineConfig,
        b'{"huge_pages":"4M"}',
        "unknown variant `4M`, expected one of `None`, `Transparent`, `2M` at line 1 column 18",
    ),
    (MachineConfig, b'{"huge_pages":null}', "expected value at line 1 column 15"),
    (MachineConfig, b'{"huge_pages": 2}', "expected value at line 1 column 16"),
    (
        MachineConfig,
        b'{"cpu_template":"T9"}',
        "unknown variant `T9`, expected one of `C3`, `T2`, `T2S`, `None`, `T2CL`, `T2A` at line 1 column 20",
    ),
    (BlockDeviceConfig, b'{"drive_id":1}', "invalid type: integer `1`, expected a string at line 1 column 13"),
    (
        BlockDeviceConfig,
        b'{"is_root_device":"a\\"b\\n\xc3\xa9\\u0001"}',
        'invalid type: string "a\\"b\\né\\u{1}", expected a boolean at line 1 column 34',
    ),
    (
        BlockDeviceConfig,
        b'{"cache_type":"x"}',
        "unknown variant `x`, expected `Unsafe` or `Writeback` at line 1 column 17",
    ),
    (BlockDeviceConfig, b'{"io_engine":"x"}', "unknown variant `x`, expected `Async` or `Sync` at line 1 column 16"),
    (
        BlockDeviceConfig,
        b'{"rate_limiter":1}',
        "invalid type: integer `1`, expected struct RateLimiterConfig at line 1 column 17",
    ),
    (
        BlockDeviceConfig,
        b'{"rate_limiter":{"bandwidth":{"size":1}}}',
        "missing field `refill_time` at line 1 column 39",
    ),
    (
        BlockDeviceConfig,
        b'{"rate_limiter":{"rate":1}}',
        "unknown field `rate`, expected `bandwidth` or `ops` at line 1 column 23",
    ),
    (
        BlockDeviceConfig,
        b'{"rate_limiter":{"ops":{"size":1,"refill_time":-1}}}',
        "invalid value: integer `-1`, expected u64 at line 1 column 49",
    ),
    (MetricsConfig, b'{"metrics_path":1}', "invalid type: integer `1`, expected path string at line 1 column 17"),
    (
        MetricsConfig,
        b'{"metrics_path":"m","properties":{"a":1}}',
        "invalid type: integer `1`, expected a string at line 1 column 39",
    ),
    (
        MetricsConfig,
        b'{"metrics_path":"m","properties":["a"]}',
        "invalid type: sequence, expected a map at line 1 column 33",
    ),
    (MetricsConfig, b'{"ignored":[1,{"a":null}]}', "missing field `metrics_path` at line 1 column 26"),
    (
        MmdsConfig,
        b'{"network_interfaces":"eth0"}',
        'invalid type: string "eth0", expected a sequence at line 1 column 28',
    ),
    (MmdsConfig, b'{"network_interfaces":[1]}', "invalid type: integer `1`, expected a string at line 1 column 24"),
    (Vm, b'{"state":"Stopped"}', "unknown variant `Stopped`, expected `Paused` or `Resumed` at line 1 column 18"),
    (Vm, b'{"state":{"Paused":1}}', "invalid type: integer `1`, expected unit at line 1 column 20"),
    (Vm, b"{}", "missing field `state` at line 1 column 2"),
    (NetworkInterfaceConfig, b'{"mtu":65536}', "invalid value: integer `65536`, expected u16 at line 1 column 12"),
    # fields
    (Vm, b'{"State":"Paused"}', "unknown field `State`, expected `state` at line 1 column 8"),
    (Vm, b'{"state":"Paused","state":"Paused"}', "duplicate field `state` at line 1 column 25"),
    (Vm, b'{"state":"Paused","state"  :"Paused"}', "duplicate field `state` at line 1 column 27"),
    (
        BlockDeviceConfig,
        b'{"rate_limiter":{"x":1}}',
        "unknown field `x`, expected `bandwidth` or `ops` at line 1 column 20",
    ),
    # strings with rules
    (
        NetworkInterfaceConfig,
        b'{"iface_id":"a","host_dev_name":"b","guest_mac":"06:00"}',
        "The provided MAC address is invalid. at line 1 column 56",
    ),
    (
        NetworkInterfaceConfig,
        b'{"iface_id":"a","guest_mac":"06:00" ,"host_dev_name":"b"}',
        "The provided MAC address is invalid. at line 1 column 36",
    ),
    (
        MmdsConfig,
        b'{"network_interfaces":["a"],"ipv4_address":"1.2.3"}',
        "invalid IPv4 address syntax at line 1 column 50",
    ),
    (
        MmdsConfig,
        b'{"network_interfaces":["a"],"ipv4_address":7}',
        "invalid type: integer `7`, expected IPv4 address at line 1 column 44",
    ),
    (
        CustomCpuTemplate,
        b'{"kvm_capabilities":["1","x"]}',
        "Failed to parse string [x] as a kvm capability - can not convert to numeric: invalid digit found in string at line 1 column 29",
    ),
    (
        CustomCpuTemplate,
        b'{"kvm_capabilities":["x", "1"]}',
        "Failed to parse string [x] as a kvm capability - can not convert to numeric: invalid digit found in string at line 1 column 26",
    ),
    (
        CustomCpuTemplate,
        b'{"msr_modifiers":[{"addr":"16","bitmap":"0b1"}]}',
        "No supported number system prefix found in value [16]. Make sure to prefix the number with '0x' for hexadecimal numbers or '0b' for binary numbers. at line 1 column 30",
    ),
    (
        CustomCpuTemplate,
        b'{"msr_modifiers":[{"addr":"0xg","bitmap":"0b1"}]}',
        "Failed to parse string [0xg] as a number for CPU template - ParseIntError { kind: InvalidDigit } at line 1 column 31",
    ),
    (
        VmmConfig,
        b'{"drives":[],"cpu-config":5}',
        "data did not match any variant of untagged enum CustomCpuTemplateOrPath at line 1 column 28",
    ),
    (
        VmmConfig,
        b'{"drives":[],"cpu-config":{"x":1}, "y":2}',
        "data did not match any variant of untagged enum CustomCpuTemplateOrPath at line 1 column 33",
    ),
    (VmmConfig, b"{}", "missing field `drives` at line 1 column 2"),
    # one or two of every other record
    (
        ActionBody,
        b'{"action_type":"Explode"}',
        "unknown variant `Explode`, expected one of `FlushMetrics`, `InstanceStart`, `SendCtrlAltDel` at line 1 column 24",
    ),
    (
        ActionBody,
        b'{"action_type":"FlushMetrics","payload":1}',
        "unknown field `payload`, expected `action_type` at line 1 column 39",
    ),
    (LoggerConfig, b'{"level":"loud"}', "Invalid LevelFilter at line 1 column 16"),
    (LoggerConfig, b'{"level":"loud","module":"m"}', "Invalid LevelFilter at line 1 column 15"),
    (LoggerConfig, b'{"log_path":1}', "invalid type: integer `1`, expected path string at line 1 column 13"),
    (BalloonDeviceConfig, b'{"deflate_on_oom":true}', "missing field `amount_mib` at line 1 column 23"),
    (
        BalloonDeviceConfig,
        b'{"amount_mib":-2,"deflate_on_oom":true}',
        "invalid value: integer `-2`, expected u32 at line 1 column 16",
    ),
    (
        BalloonDeviceConfig,
        b'{"amount_mib":1,"deflate_on_oom":true,"stats_polling_interval_s":65536}',
        "invalid value: integer `65536`, expected u16 at line 1 column 70",
    ),
    (
        BalloonUpdateConfig,
        b'{"amount_mib":4294967296}',
        "invalid value: integer `4294967296`, expected u32 at line 1 column 24",
    ),
    (VsockDeviceConfig, b'{"guest_cid":"3"}', 'invalid type: string "3", expected u32 at line 1 column 16'),
    (EntropyDeviceConfig, b'{"rate":1}', "unknown field `rate`, expected `rate_limiter` at line 1 column 7"),
    (SerialConfig, b'{"serial_out_path":1}', "invalid type: integer `1`, expected path string at line 1 column 20"),
    (SerialConfig, b'{"rate_limiter":{"size":1}}', "missing field `refill_time` at line 1 column 26"),
    (PmemConfig, b'{"id":"a"}', "missing field `path_on_host` at line 1 column 10"),
    (MemoryHotplugConfig, b'{"block_size_mib":2}', "missing field `total_size_mib` at line 1 column 20"),
    (
        CreateSnapshotParams,
        b'{"snapshot_type":"Half"}',
        "unknown variant `Half`, expected `Diff` or `Full` at line 1 column 23",
    ),
    (
        LoadSnapshotConfig,
        b'{"snapshot_path":"a","mem_backend":{"backend_type":"Disk"}}',
        "unknown variant `Disk`, expected `File` or `Uffd` at line 1 column 57",
    ),
    (
        LoadSnapshotConfig,
        b'{"snapshot_path":"a","network_overrides":[{"iface_id":"a"}]}',
        "missing field `host_dev_name` at line 1 column 58",
    ),
    (LoadSnapshotConfig, b'{"snapshot_path":"a","vsock_override":{}}', "missing field `uds_path` at line 1 column 40"),
    (
        LoadSnapshotConfig,
        b'{"huge_pages":"1G"}',
        "unknown variant `1G`, expected one of `Snapshot`, `None`, `Transparent`, `2M` at line 1 column 18",
    ),
    (
        CustomCpuTemplate,
        b'{"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[{"register":"rax","bitmap":"0b1"}]}]}',
        "Invalid CPUID register. Must be one of [eax, ebx, ecx, edx] at line 1 column 90",
    ),
    (
        CustomCpuTemplate,
        b'{"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[{"register":"eax","bitmap":"0b2"}]}]}',
        "Failed to parse string [0b2] as a bitmap - unknown character: 50 at line 1 column 106",
    ),
    (
        CustomCpuTemplate,
        b'{"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[{"register":"eax","bitmap":"0b000000000000000000000000000000000"}]}]}',
        "Failed to parse string [0b000000000000000000000000000000000] as a bitmap - string is too long at line 1 column 138",
    ),
    (
        CustomCpuTemplate,
        b'{"cpuid_modifiers":[{"leaf":"0x100000000"}]}',
        "Failed to parse string [0x100000000] as a number for CPU template - ParseIntError { kind: PosOverflow } at line 1 column 42",
    ),
]


@pytest.mark.parametrize(("kind", "body", "sentence"), SENTENCES)
def test_a_bad_body_gets_its_sentence_and_place(kind: type[msgspec.Struct], body: bytes, sentence: str) -> None:
    with pytest.raises(JsonError) as refused:
        decode(body, kind)
    assert str(refused.value) == sentence
