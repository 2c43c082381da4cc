"""The whole-VM file: read at once, applied in order, refused with the file's own prefixes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hibana.config.cpu import CustomCpuTemplate, KvmCapability
from hibana.config.file import apply, read_config, read_metadata
from hibana.config.logger import LoggerConfig
from hibana.config.metrics import MetricsConfig
from hibana.config.resources import Resources
from hibana.errors import ConfigFileError, InvalidMetadata, LogFileError, MetricsConfiguredTwice, MmdsDoesNotFit
from hibana.testing.disk import grant_async
from hibana.testing.net import open_fake_tap


class Notes:
    """Surroundings that write down what they are told, or refuse it."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.refusals: dict[str, Exception] = {}

    def put_logger(self, config: LoggerConfig, /) -> None:
        self._note("logger", config)

    def put_metrics(self, config: MetricsConfig, /) -> None:
        self._note("metrics", config)

    def put_mmds(self, value: Any, /) -> None:
        self._note("mmds", value)

    def _note(self, what: str, value: object) -> None:
        if what in self.refusals:
            raise self.refusals[what]
        self.told.append(value)


@pytest.fixture
def resources() -> Iterator[Resources]:
    resources = Resources(open_fake_tap, grant_async)
    yield resources
    resources.close()


@pytest.fixture
def complete(tmp_path: Path) -> dict[str, Any]:
    """A file that spells out every key, as GET /vm/config shows it."""
    (tmp_path / "kernel").touch()
    (tmp_path / "rootfs").write_bytes(bytes(1024))
    return {
        "balloon": {
            "amount_mib": 1,
            "deflate_on_oom": True,
            "stats_polling_interval_s": 0,
            "free_page_hinting": False,
            "free_page_reporting": False,
        },
        "drives": [
            {
                "drive_id": "rootfs",
                "partuuid": None,
                "is_root_device": True,
                "cache_type": "Unsafe",
                "is_read_only": False,
                "path_on_host": str(tmp_path / "rootfs"),
                "rate_limiter": None,
                "io_engine": "Sync",
                "socket": None,
            }
        ],
        "boot-source": {
            "kernel_image_path": str(tmp_path / "kernel"),
            "initrd_path": None,
            "boot_args": "console=ttyS0 reboot=k panic=1",
        },
        "cpu-config": None,
        "logger": None,
        "machine-config": {
            "vcpu_count": 2,
            "mem_size_mib": 1024,
            "smt": False,
            "track_dirty_pages": False,
            "huge_pages": "None",
        },
        "metrics": None,
        "mmds-config": {
            "version": "V2",
            "network_interfaces": ["1"],
            "ipv4_address": "169.254.169.250",
            "imds_compat": True,
        },
        "network-interfaces": [
            {
                "iface_id": "1",
                "host_dev_name": "tap0",
                "guest_mac": "06:00:c0:a8:00:02",
                "mtu": None,
                "rx_rate_limiter": None,
                "tx_rate_limiter": None,
            }
        ],
        "vsock": {"guest_cid": 3, "uds_path": "/v"},
        "entropy": {"rate_limiter": None},
        "pmem": [
            {"id": "p", "path_on_host": "/p", "root_device": False, "read_only": False, "rate_limiter": None},
        ],
        "memory-hotplug": {"total_size_mib": 128, "block_size_mib": 2, "slot_size_mib": 128},
    }


def read_and_apply(document: object, resources: Resources, around: Notes, metadata: Any = None) -> None:
    apply(read_config(msgspec.json.encode(document)), resources, around, metadata)


def refusal(document: object, resources: Resources, around: Notes, metadata: Any = None) -> str:
    with pytest.raises(ConfigFileError) as refused:
        read_and_apply(document, resources, around, metadata)
    prefix = "Configuration for VMM from one single json failed: "
    assert str(refused.value).startswith(prefix)
    return str(refused.value).removeprefix(prefix)


def test_a_file_that_spells_out_every_key_is_shown_as_it_is(complete: dict[str, Any], resources: Resources) -> None:
    read_and_apply(complete, resources, Notes())
    assert msgspec.json.decode(msgspec.json.encode(resources.render())) == complete


def test_logger_metrics_and_metadata_go_where_they_belong(
    complete: dict[str, Any], resources: Resources, capfd: pytest.CaptureFixture[str]
) -> None:
    around = Notes()
    complete["logger"] = {"log_path": "/l", "level": "Debug"}
    complete["metrics"] = {"metrics_path": "/m"}
    read_and_apply(complete, resources, around, {"latest": 1})
    assert around.told == [LoggerConfig("/l", "debug"), MetricsConfig("/m"), {"latest": 1}]
    assert "] Successfully added metadata to mmds from file\n" in capfd.readouterr().out


def test_unknown_keys_are_ignored_at_the_top_and_refused_below(complete: dict[str, Any], resources: Resources) -> None:
    complete["serial"] = {"x": 1}
    read_and_apply(complete, resources, Notes())
    complete["vsock"]["x"] = 1
    assert refusal(complete, resources, Notes()).startswith("Invalid JSON: unknown field `x`, expected one of ")


@pytest.mark.parametrize("missing", ["drives", "boot-source"])
def test_drives_and_boot_source_are_required(complete: dict[str, Any], resources: Resources, missing: str) -> None:
    del complete[missing]
    assert refusal(complete, resources, Notes()).startswith(f"Invalid JSON: missing field `{missing}` at line 1")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"machine-config": {"vcpu_count": 0, "mem_size_mib": 1}}, "VM config error: The number of vCPUs must be "),
        ({"cpu-config": "/nowhere"}, "File operation error: No such file or directory (os error 2)"),
        ({"cpu-config": "/dev/zero"}, "File operation error: File too large (os error 27)"),
        (
            {"boot-source": {"kernel_image_path": "/nowhere"}},
            "Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)",
        ),
        (
            {"drives": [{"drive_id": "a", "is_root_device": False}]},
            "Block device error: Unable to create the virtio block device: Invalid block config.",
        ),
        (
            {"network-interfaces": [{"iface_id": "1", "host_dev_name": "tap0", "mtu": 1}]},
            "Network device error: Could not create the network device: MTU 1 is out of range [68, 65535]",
        ),
        (
            {"balloon": {"amount_mib": 2048, "deflate_on_oom": True}},
            "Balloon device error: Amount of pages requested is too large.",
        ),
        (
            {"mmds-config": {"network_interfaces": []}},
            "MMDS config error: The list of network interface IDs that allow forwarding MMDS requests is empty.",
        ),
        (
            {"pmem": [{"id": "p", "path_on_host": "/p", "root_device": True}]},
            "Pmem device error: Attempt to add pmem as a root device while the root device defined as a block device",
        ),
        (
            {"memory-hotplug": {"total_size_mib": 1}},
            "Memory hotplug config error: Total size must not be lower than slot size (128 MiB)",
        ),
    ],
)
def test_every_part_has_its_prefix(
    complete: dict[str, Any], resources: Resources, change: dict[str, Any], sentence: str
) -> None:
    assert refusal(complete | change, resources, Notes()).startswith(sentence)


@pytest.mark.parametrize(
    ("what", "error", "sentence"),
    [
        ("logger", LogFileError(cause="x"), "Logger error: Failed to open target file: x"),
        ("metrics", MetricsConfiguredTwice(), "Metrics error: Reinitialization of metrics not allowed."),
        ("mmds", MmdsDoesNotFit(), "MMDS error: The MMDS patch request doesn't fit."),
    ],
)
def test_what_the_surroundings_refuse_is_prefixed_too(
    complete: dict[str, Any], resources: Resources, what: str, error: Exception, sentence: str
) -> None:
    around = Notes()
    around.refusals[what] = error
    complete |= {"logger": {}, "metrics": {"metrics_path": "/m"}}
    assert refusal(complete, resources, around, {"a": 1}) == sentence


def test_the_first_part_that_is_refused_ends_it(complete: dict[str, Any], resources: Resources) -> None:
    complete["boot-source"]["kernel_image_path"] = "/nowhere"
    complete["machine-config"]["vcpu_count"] = 3
    refusal(complete, resources, Notes())
    assert resources.machine.vcpu_count == 3
    assert resources.drives == []


def test_a_cpu_template_is_inline_or_a_file(complete: dict[str, Any], resources: Resources, tmp_path: Path) -> None:
    template = {"kvm_capabilities": ["171"]}
    wanted = CustomCpuTemplate([KvmCapability(171, added=True)])
    read_and_apply(complete | {"cpu-config": template}, resources, Notes())
    assert resources.cpu_template == wanted
    resources.cpu_template = None
    (tmp_path / "template").write_bytes(msgspec.json.encode(template))
    read_and_apply(complete | {"cpu-config": str(tmp_path / "template")}, resources, Notes())
    assert resources.cpu_template == wanted
    (tmp_path / "template").write_bytes(b"{")
    sentence = refusal(complete | {"cpu-config": str(tmp_path / "template")}, resources, Notes())
    assert sentence == "Invalid JSON: EOF while parsing an object at line 1 column 1"


def test_metadata_that_is_no_json_is_quoted_as_rust_would() -> None:
    assert read_metadata(b'{"latest": {}}') == {"latest": {}}
    with pytest.raises(InvalidMetadata) as refused:
        read_metadata(b'{\n "latest": 1\n')
    assert str(refused.value) == (
        'MMDS error: metadata provided not valid json: Error("EOF while parsing an object", line: 3, column: 0)'
    )
