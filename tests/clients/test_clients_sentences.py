"""Refusals whose exact words clients match (api.md §5.2), asked over the API of a process that has not started."""

import os
from collections.abc import Iterator

import msgspec
import pytest

from hibana.api.http import Request
from hibana.api.routes import Dispatcher
from hibana.config.resources import Resources
from hibana.devices.mmds.store import Store
from hibana.testing.disk import grant_async
from hibana.testing.net import open_fake_tap
from hibana.vmm.preboot import PreBoot

PRESENT = "/dev/zero"
ROOT_DRIVE = {"drive_id": "r", "is_root_device": True, "path_on_host": "disk"}
ROOT_PMEM = {"id": "r", "path_on_host": "disk", "root_device": True}
BALLOON = {"amount_mib": 100, "deflate_on_oom": True}


def unused(*_: object) -> None:
    raise AssertionError


@pytest.fixture
def api(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Dispatcher]:
    monkeypatch.chdir(tmp_path)
    with open("disk", "wb") as disk:
        disk.write(bytes(512))
    resources = Resources(open_fake_tap, grant_async)
    yield Dispatcher(PreBoot(resources, Store(64), unused, unused))
    resources.close()


def put(api: Dispatcher, path: str, body: object) -> tuple[int, str]:
    response = api.handle(Request("PUT", path, msgspec.json.encode(body)))
    answer: dict[str, str] = msgspec.json.decode(response.body or b"{}")
    return response.status, answer.get("fault_message", "")


@pytest.mark.parametrize(
    ("before", "path", "body", "sentence"),
    [
        (
            {},
            "/machine-config",
            {"vcpu_count": 33, "mem_size_mib": 128},
            "Machine config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even"
            " number if SMT is enabled.",
        ),
        (
            {},
            "/machine-config",
            {"vcpu_count": 1, "mem_size_mib": 129, "huge_pages": "2M"},
            "Machine config error: The memory size (MiB) is either 0, or not a multiple of the configured page size.",
        ),
        (
            {"/balloon": BALLOON},
            "/machine-config",
            {"vcpu_count": 1, "mem_size_mib": 99},
            "Machine config error: The memory size (MiB) is smaller than the previously set balloon device target"
            " size.",
        ),
        (
            {},
            "/balloon",
            {"amount_mib": 129, "deflate_on_oom": True},
            "Balloon config error: Amount of pages requested is too large.",
        ),
        (
            {},
            "/boot-source",
            {"kernel_image_path": "foo"},
            "Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)",
        ),
        (
            {},
            "/boot-source",
            {"kernel_image_path": PRESENT, "initrd_path": "foo"},
            "Boot source error: The initrd file cannot be opened due to invalid path or invalid permissions. No such"
            " file or directory (os error 2)",
        ),
        (
            {"/drives/r": ROOT_DRIVE},
            "/drives/s",
            {**ROOT_DRIVE, "drive_id": "s"},
            "Drive config error: A root block device already exists!",
        ),
        (
            {"/pmem/r": ROOT_PMEM},
            "/drives/r",
            ROOT_DRIVE,
            "Drive config error: Attempt to add block as a root device while the root device defined as a pmem device",
        ),
        (
            {"/drives/r": ROOT_DRIVE},
            "/pmem/r",
            ROOT_PMEM,
            "Pmem config error: Attempt to add pmem as a root device while the root device defined as a block device",
        ),
        (
            {"/pmem/r": ROOT_PMEM},
            "/pmem/s",
            {**ROOT_PMEM, "id": "s"},
            "Pmem config error: A root pmem device already exist",
        ),
        (
            {},
            "/mmds/config",
            {"network_interfaces": [], "ipv4_address": "1.2.3.4"},
            "MMMDS config error: The MMDS IPv4 address is not link local.",
        ),
        (
            {},
            "/mmds/config",
            {"network_interfaces": []},
            "MMMDS config error: The list of network interface IDs that allow forwarding MMDS requests is empty.",
        ),
        (
            {},
            "/hotplug/memory",
            {"total_size_mib": 300},
            "Memory hotplug config error: Total size must be a multiple of slot size (128 MiB)",
        ),
        (
            {},
            "/metrics",
            {"metrics_path": "/"},
            "Metrics error: Cannot initialize the metrics system due to bad user input: Is a directory (os error 21)",
        ),
        ({}, "/logger", {"log_path": "/"}, "Logger error: Failed to open target file: Is a directory (os error 21)"),
    ],
)
def test_a_refusal_has_the_words_that_clients_match(
    before: dict[str, object], path: str, body: object, sentence: str, api: Dispatcher
) -> None:
    for earlier, wish in before.items():
        assert put(api, earlier, wish) == (204, "")
    assert put(api, path, body) == (400, sentence)
