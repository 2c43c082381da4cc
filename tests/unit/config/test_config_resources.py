"""The notebook: what is written down, what is refused, and what it shows."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hibana.config.balloon import BalloonDeviceConfig
from hibana.config.boot_source import BootSourceConfig
from hibana.config.cpu import CustomCpuTemplate, KvmCapability
from hibana.config.drive import BlockDeviceConfig
from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.machine import DEFAULT, MachineConfig, MachineConfigUpdate
from hibana.config.memory_hotplug import MemoryHotplugConfig
from hibana.config.mmds import MmdsConfig
from hibana.config.net import NetworkInterfaceConfig
from hibana.config.pmem import PmemConfig
from hibana.config.rate_limit import RateLimiterConfig, TokenBucketConfig
from hibana.config.resources import Resources
from hibana.config.vsock import VsockDeviceConfig
from hibana.errors import (
    BalloonTooLarge,
    CreateDriveError,
    CreateNetworkError,
    InvalidVcpuCount,
    KernelFileError,
    MacInUse,
    MissingDevice,
    NoBalloon,
    RootDriveExists,
    RootIsDrive,
    RootIsPmem,
    RootPmemExists,
    SmallerThanBalloon,
    UnknownMmdsInterface,
)
from hibana.testing.disk import grant_async
from hibana.testing.net import open_fake_tap


@pytest.fixture
def resources() -> Iterator[Resources]:
    resources = Resources(open_fake_tap, grant_async)
    yield resources
    resources.close()


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "image"
    path.write_bytes(bytes(512))
    return str(path)


def drive(name: str, path: str, root: bool = False) -> BlockDeviceConfig:
    return BlockDeviceConfig(drive_id=name, is_root_device=root, path_on_host=path)


def ids(resources: Resources) -> list[str]:
    return [drive.config.drive_id for drive in resources.drives]


# --- the machine ------------------------------------------------------------------------------------------------------


def test_put_goes_back_to_defaults_except_for_the_template(resources: Resources) -> None:
    resources.put_machine(MachineConfig(vcpu_count=2, mem_size_mib=256, smt=True, cpu_template="T2"))
    resources.put_machine(MachineConfig(vcpu_count=1, mem_size_mib=128))
    assert resources.machine == MachineConfig(vcpu_count=1, mem_size_mib=128, cpu_template="T2")


def test_a_refused_machine_changes_nothing(resources: Resources) -> None:
    with pytest.raises(InvalidVcpuCount):
        resources.patch_machine(MachineConfigUpdate(vcpu_count=33, mem_size_mib=512))
    assert resources.machine == DEFAULT


def test_static_and_custom_templates_replace_each_other(resources: Resources) -> None:
    resources.put_machine(MachineConfig(vcpu_count=1, mem_size_mib=128, cpu_template="T2"))
    resources.put_cpu_template(CustomCpuTemplate())
    assert resources.machine == DEFAULT
    assert resources.cpu_template == CustomCpuTemplate()
    resources.patch_machine(MachineConfigUpdate(mem_size_mib=256))
    assert resources.cpu_template is not None
    resources.patch_machine(MachineConfigUpdate(cpu_template="None"))
    assert resources.cpu_template is None


def test_the_template_that_counts_is_the_last_and_one_that_changes_something(resources: Resources) -> None:
    assert resources.chosen_cpu_template is None
    resources.put_cpu_template(CustomCpuTemplate())
    assert resources.chosen_cpu_template is None
    custom = CustomCpuTemplate([KvmCapability(171, added=True)])
    resources.put_cpu_template(custom)
    assert resources.chosen_cpu_template == custom
    resources.patch_machine(MachineConfigUpdate(cpu_template="T2S"))
    assert resources.chosen_cpu_template == "T2S"
    resources.patch_machine(MachineConfigUpdate(cpu_template="None"))
    assert resources.chosen_cpu_template is None


def test_balloon_and_memory_fit_each_other_in_both_directions(resources: Resources) -> None:
    with pytest.raises(BalloonTooLarge):
        resources.put_balloon(BalloonDeviceConfig(129, True))
    resources.put_balloon(BalloonDeviceConfig(128, True))
    with pytest.raises(SmallerThanBalloon):
        resources.patch_machine(MachineConfigUpdate(mem_size_mib=127))
    resources.patch_machine(MachineConfigUpdate(mem_size_mib=128))


def test_a_refused_boot_source_leaves_the_previous_one(resources: Resources, image: str) -> None:
    resources.put_boot_source(BootSourceConfig(image))
    with pytest.raises(KernelFileError):
        resources.put_boot_source(BootSourceConfig("/nowhere"))
    assert resources.boot_source is not None
    assert os.pread(resources.boot_source.kernel_fd, 1, 0) == b"\0"


def test_replaced_files_are_closed(resources: Resources, image: str) -> None:
    resources.put_boot_source(BootSourceConfig(image, image))
    resources.put_drive(drive("a", image))
    resources.put_net(NetworkInterfaceConfig("a", "tap0"))
    before = len(os.listdir("/proc/self/fd"))
    resources.put_boot_source(BootSourceConfig(image, image))
    resources.put_drive(drive("a", image))
    resources.put_net(NetworkInterfaceConfig("a", "tap0"))
    assert len(os.listdir("/proc/self/fd")) == before


# --- drives and persistent memory -------------------------------------------------------------------------------------


def test_the_root_drive_comes_first(resources: Resources, image: str) -> None:
    resources.put_drive(drive("a", image))
    resources.put_drive(drive("b", image))
    resources.put_drive(drive("root", image, root=True))
    assert ids(resources) == ["root", "a", "b"]


def test_there_is_one_root_drive(resources: Resources, image: str) -> None:
    resources.put_drive(drive("root", image, root=True))
    resources.put_drive(drive("a", image))
    for name in ("a", "new"):
        with pytest.raises(RootDriveExists):
            resources.put_drive(drive(name, image, root=True))
    resources.put_drive(drive("root", image, root=True))
    assert ids(resources) == ["root", "a"]


def test_a_drive_that_becomes_root_changes_places_with_the_first(resources: Resources, image: str) -> None:
    for name in ("a", "b", "c"):
        resources.put_drive(drive(name, image))
    resources.put_drive(drive("c", image, root=True))
    assert ids(resources) == ["c", "b", "a"]


def test_a_root_drive_may_stop_being_root(resources: Resources, image: str) -> None:
    resources.put_drive(drive("a", image, root=True))
    resources.put_drive(drive("a", image))
    resources.put_drive(drive("b", image, root=True))
    assert ids(resources) == ["b", "a"]


def test_a_refused_drive_leaves_the_previous_one(resources: Resources, image: str) -> None:
    resources.put_drive(drive("a", image))
    with pytest.raises(CreateDriveError):
        resources.put_drive(drive("a", "/nowhere"))
    assert resources.drives[0].config.path_on_host == image


def test_root_is_a_drive_or_persistent_memory_but_not_both(resources: Resources, image: str) -> None:
    resources.put_pmem(PmemConfig("p", "/p", root_device=True))
    with pytest.raises(RootIsPmem):
        resources.put_drive(drive("root", image, root=True))
    with pytest.raises(RootPmemExists):
        resources.put_pmem(PmemConfig("q", "/q", root_device=True))
    resources.put_pmem(PmemConfig("p", "/p2"))
    resources.put_drive(drive("root", image, root=True))
    with pytest.raises(RootIsDrive):
        resources.put_pmem(PmemConfig("p", "/p", root_device=True))
    assert resources.pmems == [PmemConfig("p", "/p2")]


# --- network interfaces and metadata ----------------------------------------------------------------------------------


def test_a_replaced_interface_goes_to_the_end_and_the_last_takes_its_place(resources: Resources) -> None:
    for name in ("a", "b", "c"):
        resources.put_net(NetworkInterfaceConfig(name, "tap0"))
    resources.put_net(NetworkInterfaceConfig("a", "tap1"))
    assert [net.config.iface_id for net in resources.nets] == ["c", "b", "a"]


def test_a_mac_address_belongs_to_one_interface(resources: Resources) -> None:
    mac = "06:00:00:00:00:01"
    resources.put_net(NetworkInterfaceConfig("a", "tap0", mac))
    resources.put_net(NetworkInterfaceConfig("a", "tap1", mac))
    resources.put_net(NetworkInterfaceConfig("b", "tap2"))
    with pytest.raises(MacInUse, match=f"^The MAC address is already in use: {mac}$"):
        resources.put_net(NetworkInterfaceConfig("b", "tap2", mac))
    assert [net.config.iface_id for net in resources.nets] == ["a", "b"], "refused before the old interface is removed"


def test_an_interface_whose_successor_is_refused_is_gone(resources: Resources) -> None:
    resources.put_net(NetworkInterfaceConfig("a", "tap0"))
    with pytest.raises(CreateNetworkError):
        resources.put_net(NetworkInterfaceConfig("a", "tap0", mtu=1))
    assert resources.nets == []


def test_metadata_is_served_on_the_listed_interfaces_only(resources: Resources) -> None:
    with pytest.raises(UnknownMmdsInterface):
        resources.put_mmds_config(MmdsConfig(network_interfaces=["a"]))
    for name in ("a", "b"):
        resources.put_net(NetworkInterfaceConfig(name, "tap0"))
    resources.put_mmds_config(MmdsConfig(network_interfaces=["b", "a"]))
    assert resources.mmds is not None
    assert resources.mmds.network_interfaces == ["a", "b"], "in the order of the devices"
    assert resources.mmds.ipv4_address == "169.254.169.254"
    resources.put_mmds_config(MmdsConfig(version="V2", network_interfaces=["b"]))
    assert resources.mmds.version == "V2"
    assert resources.mmds.network_interfaces == ["b"]


def test_a_replaced_interface_no_longer_serves_metadata(resources: Resources) -> None:
    resources.put_net(NetworkInterfaceConfig("a", "tap0"))
    resources.put_mmds_config(MmdsConfig(network_interfaces=["a"]))
    resources.put_net(NetworkInterfaceConfig("a", "tap0"))
    assert resources.mmds is None


# --- all of it --------------------------------------------------------------------------------------------------------


def test_there_is_no_balloon_until_one_is_wanted(resources: Resources) -> None:
    with pytest.raises(NoBalloon):
        resources.get_balloon()


def test_an_empty_notebook_shows_every_key() -> None:
    assert msgspec.json.encode(Resources(open_fake_tap, grant_async).render()) == (
        b'{"balloon":null,"drives":[],'
        b'"boot-source":{"kernel_image_path":"","initrd_path":null,"boot_args":null},'
        b'"cpu-config":null,"logger":null,'
        b'"machine-config":{"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false,"huge_pages":"None"},'
        b'"metrics":null,"mmds-config":null,"network-interfaces":[],"vsock":null,"entropy":null,"pmem":[],'
        b'"memory-hotplug":null}'
    )


def test_a_full_notebook_shows_what_was_wanted(resources: Resources, image: str) -> None:
    unlimited = TokenBucketConfig(size=0, refill_time=0)
    resources.put_boot_source(BootSourceConfig(image, boot_args="quiet"))
    resources.put_machine(MachineConfig(vcpu_count=1, mem_size_mib=128, cpu_template="T2"))
    resources.put_drive(drive("root", image, root=True))
    resources.put_net(NetworkInterfaceConfig("eth0", "tap0", mtu=1500))
    resources.put_vsock(VsockDeviceConfig(vsock_id="old", guest_cid=3, uds_path="/v"))
    resources.put_entropy(EntropyDeviceConfig(RateLimiterConfig(unlimited)))
    resources.put_pmem(PmemConfig("p", "/p", rate_limiter=RateLimiterConfig(unlimited)))
    resources.put_memory_hotplug(MemoryHotplugConfig(1024))
    shown = msgspec.json.decode(msgspec.json.encode(resources.render()))
    assert shown["boot-source"] == {"kernel_image_path": image, "initrd_path": None, "boot_args": "quiet"}
    assert shown["machine-config"]["cpu_template"] == "T2"
    assert shown["drives"] == [
        {
            "drive_id": "root",
            "partuuid": None,
            "is_root_device": True,
            "cache_type": "Unsafe",
            "is_read_only": False,
            "path_on_host": image,
            "rate_limiter": None,
            "io_engine": "Sync",
            "socket": None,
        }
    ]
    assert shown["vsock"] == {"guest_cid": 3, "uds_path": "/v"}
    assert shown["entropy"] == {"rate_limiter": None}
    bucket = {"size": 0, "one_time_burst": None, "refill_time": 0}
    assert shown["pmem"][0]["rate_limiter"] == {"bandwidth": bucket, "ops": None}, "as given"
    assert shown["memory-hotplug"] == {"total_size_mib": 1024, "block_size_mib": 2, "slot_size_mib": 128}


def test_a_device_that_this_build_lacks_is_named(resources: Resources) -> None:
    resources.refuse_missing_devices()
    resources.put_vsock(VsockDeviceConfig(guest_cid=3, uds_path="/v"))
    with pytest.raises(MissingDevice, match="no vsock device yet"):
        resources.refuse_missing_devices()
