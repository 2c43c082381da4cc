"""The checks that one resource needs on its own."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.config import machine, memory_hotplug, mmds
from hibana.config import net as net_rules
from hibana.config.boot_source import DEFAULT_BOOT_ARGS, BootSource, BootSourceConfig
from hibana.config.cpu import KvmCapability, RegisterValueFilter, bitmap, kvm_capability, number
from hibana.config.drive import BlockDeviceConfig, Drive
from hibana.config.host_file import open_host_file, read_host_file
from hibana.config.machine import MachineConfig, MachineConfigUpdate
from hibana.config.memory_hotplug import MemoryHotplugConfig
from hibana.config.mmds import MmdsConfig, dotted_quad
from hibana.config.net import NetworkInterfaceConfig, mac_address
from hibana.config.rate_limit import RateLimiterConfig, TokenBucketConfig, effective
from hibana.config.snapshot import LoadSnapshotConfig, MemBackendConfig
from hibana.errors import (
    CreateDriveError,
    CreateNetworkError,
    HostFileError,
    InitrdFileError,
    InvalidCmdline,
    InvalidMemorySize,
    InvalidVcpuCount,
    JsonError,
    KernelFileError,
    MmdsAddressNotLinkLocal,
    NoMmdsInterface,
    UnknownMmdsInterface,
    VmmError,
)

# --- machine ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "smt"), [(1, False), (1, True), (2, True), (3, False), (32, True), (31, False)])
def test_good_vcpu_counts(count: int, smt: bool) -> None:
    machine.check(MachineConfig(vcpu_count=count, mem_size_mib=128, smt=smt))


@pytest.mark.parametrize(("count", "smt"), [(0, False), (33, False), (255, False), (3, True), (31, True)])
def test_bad_vcpu_counts(count: int, smt: bool) -> None:
    with pytest.raises(InvalidVcpuCount):
        machine.check(MachineConfig(vcpu_count=count, mem_size_mib=128, smt=smt))


def test_huge_pages_want_an_even_number_of_megabytes() -> None:
    machine.check(MachineConfig(vcpu_count=1, mem_size_mib=129))
    for pages in ("Transparent", "2M"):
        machine.check(MachineConfig(vcpu_count=1, mem_size_mib=128, huge_pages=pages))
        with pytest.raises(InvalidMemorySize):
            machine.check(MachineConfig(vcpu_count=1, mem_size_mib=129, huge_pages=pages))


def test_no_memory_is_not_enough() -> None:
    with pytest.raises(InvalidMemorySize):
        machine.check(MachineConfig(vcpu_count=1, mem_size_mib=0))


def test_vcpus_are_checked_before_memory() -> None:
    with pytest.raises(InvalidVcpuCount):
        machine.check(MachineConfig(vcpu_count=0, mem_size_mib=0))


def test_a_change_leaves_alone_what_it_does_not_name() -> None:
    before = MachineConfig(vcpu_count=4, mem_size_mib=256, smt=True, cpu_template="T2", track_dirty_pages=True)
    after = machine.updated(before, MachineConfigUpdate(mem_size_mib=512))
    assert after == MachineConfig(vcpu_count=4, mem_size_mib=512, smt=True, cpu_template="T2", track_dirty_pages=True)


def test_the_template_called_none_removes_the_template() -> None:
    before = MachineConfig(vcpu_count=1, mem_size_mib=128, cpu_template="T2")
    assert machine.updated(before, MachineConfigUpdate(cpu_template="None")) == machine.DEFAULT


# --- boot source ------------------------------------------------------------------------------------------------------


def test_a_boot_source_holds_its_files_open(tmp_path: Path) -> None:
    kernel, initrd = tmp_path / "kernel", tmp_path / "initrd"
    kernel.write_bytes(b"kernel")
    initrd.write_bytes(b"initrd")
    source = BootSource(BootSourceConfig(str(kernel), str(initrd)))
    kernel.unlink()
    assert os.pread(source.kernel_fd, 9, 0) == b"kernel"
    assert source.initrd_fd is not None
    assert os.pread(source.initrd_fd, 9, 0) == b"initrd"
    source.close()


def test_absent_boot_args_are_the_default_and_empty_ones_are_not(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.touch()
    for given_args, used in ((None, DEFAULT_BOOT_ARGS), ("", ""), ("quiet", "quiet")):
        source = BootSource(BootSourceConfig(str(kernel), boot_args=given_args))
        assert source.boot_args == used
        source.close()


def test_a_boot_source_says_which_file_is_missing(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    with pytest.raises(KernelFileError, match=r"^The kernel file cannot be opened: No such file or directory \(os err"):
        BootSource(BootSourceConfig(str(kernel)))
    kernel.touch()
    with pytest.raises(InitrdFileError, match=r"invalid permissions\. No such file or directory \(os error 2\)$"):
        BootSource(BootSourceConfig(str(kernel), "/nowhere"))


def test_a_command_line_of_2047_bytes_fits_and_one_more_does_not(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.touch()
    BootSource(BootSourceConfig(str(kernel), boot_args="x" * 2047)).close()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InvalidCmdline, match=r"^The kernel command line is invalid: Invalid cmdline cap"):
        BootSource(BootSourceConfig(str(kernel), boot_args="é" * 1024))
    assert len(os.listdir("/proc/self/fd")) == before, "the kernel file is closed again"


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/nowhere", "No such file or directory (os error 2)"),
        ("", "No such file or directory (os error 2)"),
        ("/etc/passwd/x", "Not a directory (os error 20)"),
        ("/" + "x" * 300, "Filename too long (os error 36)"),
        ("/a\0b", "file name contained an unexpected NUL byte"),
    ],
)
def test_a_file_that_cannot_be_opened_has_the_systems_sentence(path: str, sentence: str) -> None:
    with pytest.raises(HostFileError) as refused:
        open_host_file(path, os.O_RDONLY)
    assert str(refused.value) == sentence


def test_opening_a_fifo_waits_for_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fd = open_host_file(str(tmp_path / "fifo"), os.O_RDONLY)
    assert os.get_blocking(fd)
    os.close(fd)


def test_reading_a_directory_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(HostFileError, match=r"^Is a directory \(os error 21\)$"):
        read_host_file(str(tmp_path))


# --- drives -----------------------------------------------------------------------------------------------------------


def test_a_drive_is_measured_and_shown_with_its_defaults(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(1024))
    drive = Drive(BlockDeviceConfig(drive_id="a", is_root_device=True, path_on_host=str(image)))
    assert drive.size == 1024
    assert (drive.config.is_read_only, drive.config.io_engine, drive.config.cache_type) == (False, "Sync", "Unsafe")
    drive.close()


def test_a_drive_of_no_size_is_legal(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.touch()
    drive = Drive(BlockDeviceConfig(drive_id="a", is_root_device=False, path_on_host=str(image)))
    assert drive.size == 0
    drive.close()


def test_a_vhost_user_drive_is_shown_without_the_fields_of_a_file() -> None:
    config = BlockDeviceConfig(drive_id="a", is_root_device=False, socket="/s")
    drive = Drive(config)
    assert drive.config == config
    assert drive.fd is None


@pytest.mark.parametrize(
    "config",
    [
        BlockDeviceConfig(drive_id="a", is_root_device=False),
        BlockDeviceConfig(drive_id="a", is_root_device=False, path_on_host="/p", socket="/s"),
        BlockDeviceConfig(drive_id="a", is_root_device=False, socket="/s", is_read_only=False),
        BlockDeviceConfig(drive_id="a", is_root_device=False, socket="/s", io_engine="Sync"),
        BlockDeviceConfig(drive_id="a", is_root_device=False, socket="/s", rate_limiter=RateLimiterConfig()),
    ],
)
def test_a_drive_is_either_a_file_or_a_socket(config: BlockDeviceConfig) -> None:
    with pytest.raises(CreateDriveError, match=r"^Unable to create the virtio block device: Invalid block config\.$"):
        Drive(config)


def test_a_missing_image_is_named() -> None:
    with pytest.raises(CreateDriveError) as refused:
        Drive(BlockDeviceConfig(drive_id="a", is_root_device=False, path_on_host="foo.bar"))
    assert str(refused.value) == (
        "Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: "
        "No such file or directory (os error 2) foo.bar"
    )


def test_a_fifo_is_no_drive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CreateDriveError, match=r"Invalid seek \(os error 29\)"):
        Drive(BlockDeviceConfig(drive_id="a", is_root_device=False, path_on_host=str(tmp_path / "fifo")))
    assert len(os.listdir("/proc/self/fd")) == before


# --- network ----------------------------------------------------------------------------------------------------------


def test_a_mac_address_is_shown_in_lower_case() -> None:
    assert mac_address("06:00:C0:A8:00:0F") == "06:00:c0:a8:00:0f"


@pytest.mark.parametrize(
    "text", ["", "06:00", "6:0:0:0:0:0", "06-00-00-00-00-00", "0g:00:00:00:00:00", "06:00:00:00:00:00 "]
)
def test_not_a_mac_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"^The provided MAC address is invalid\.$"):
        mac_address(text)


def test_a_tap_name_of_sixteen_bytes_is_too_long() -> None:
    net_rules.checked(NetworkInterfaceConfig("a", "x" * 15))
    with pytest.raises(CreateNetworkError) as refused:
        net_rules.checked(NetworkInterfaceConfig("a", "x" * 16))
    assert str(refused.value) == "Could not create the network device: Open tap device failed: Invalid interface name"


def test_an_mtu_below_68_is_refused() -> None:
    net_rules.checked(NetworkInterfaceConfig("a", "tap0", mtu=68))
    with pytest.raises(CreateNetworkError) as refused:
        net_rules.checked(NetworkInterfaceConfig("a", "tap0", mtu=67))
    assert str(refused.value) == "Could not create the network device: MTU 67 is out of range [68, 65535]"


# --- rate limiters ----------------------------------------------------------------------------------------------------

BUCKET = TokenBucketConfig(size=1, refill_time=1)


@pytest.mark.parametrize(
    ("limiter", "shown"),
    [
        (None, None),
        (RateLimiterConfig(), None),
        (RateLimiterConfig(BUCKET), RateLimiterConfig(BUCKET)),
        (RateLimiterConfig(TokenBucketConfig(size=0, refill_time=1)), None),
        (RateLimiterConfig(BUCKET, TokenBucketConfig(size=1, refill_time=0)), RateLimiterConfig(BUCKET)),
        (RateLimiterConfig(TokenBucketConfig(size=1, refill_time=(1 << 64) // 10**6 + 1)), None),
        (RateLimiterConfig(TokenBucketConfig(size=1, one_time_burst=0, refill_time=1)), RateLimiterConfig(BUCKET)),
    ],
)
def test_what_does_not_limit_is_not_shown(limiter: RateLimiterConfig | None, shown: RateLimiterConfig | None) -> None:
    assert effective(limiter) == shown


# --- hotpluggable memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "block", "slot", "sentence"),
    [
        (1024, 1, 1, "Block size must not be lower than 2 MiB"),
        (1024, 3, 1, "Block size must be a power of 2"),
        (1024, 2, 64, "Slot size must not be lower than 128 MiB"),
        (1024, 256, 128, "Slot size must be a multiple of block size (256 MiB)"),
        (64, 2, 128, "Total size must not be lower than slot size (128 MiB)"),
        (192, 2, 128, "Total size must be a multiple of slot size (128 MiB)"),
    ],
)
def test_the_sizes_of_hotpluggable_memory_fit_each_other(total: int, block: int, slot: int, sentence: str) -> None:
    with pytest.raises(VmmError) as refused:
        memory_hotplug.check(MemoryHotplugConfig(total, block, slot))
    assert str(refused.value) == sentence


def test_good_sizes_of_hotpluggable_memory() -> None:
    memory_hotplug.check(MemoryHotplugConfig(1024))
    memory_hotplug.check(MemoryHotplugConfig(512, 4, 256))


# --- metadata service -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["169.254.1.0", "169.254.254.255", "169.254.169.254"])
def test_link_local_addresses(address: str) -> None:
    mmds.check(MmdsConfig(network_interfaces=["a"], ipv4_address=address), ["a"])


@pytest.mark.parametrize("address", ["169.254.0.255", "169.254.255.0", "10.0.0.1", "169.253.1.1"])
def test_other_addresses_are_refused_before_anything_else(address: str) -> None:
    with pytest.raises(MmdsAddressNotLinkLocal):
        mmds.check(MmdsConfig(network_interfaces=[], ipv4_address=address), [])


def test_the_metadata_service_wants_interfaces_that_exist() -> None:
    with pytest.raises(NoMmdsInterface):
        mmds.check(MmdsConfig(network_interfaces=[]), ["a"])
    with pytest.raises(UnknownMmdsInterface):
        mmds.check(MmdsConfig(network_interfaces=["a", "b"]), ["a"])


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", "1..2.3", "a.b.c.d", "１.2.3.4"]
)
def test_not_a_dotted_quad(text: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid IPv4 address syntax$"):
        dotted_quad(text)


# --- CPU templates ----------------------------------------------------------------------------------------------------


def test_numbers_have_prefixes() -> None:
    assert number(32)("0x1F") == 31
    assert number(32)("0b101") == 5
    assert number(32)("0xffffffff") == 0xFFFFFFFF
    with pytest.raises(ValueError, match="No supported number system prefix found in value"):
        number(32)("31")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0x", "Empty"),
        ("0x+", "InvalidDigit"),
        ("0b2", "InvalidDigit"),
        ("0x1_0", "InvalidDigit"),
        ("0x100000000", "PosOverflow"),
    ],
)
def test_what_is_wrong_with_a_number(text: str, kind: str) -> None:
    with pytest.raises(ValueError, match=rf"ParseIntError {{ kind: {kind} }}$"):
        number(32)(text)


def test_a_bitmap_says_which_bits_change_and_into_what() -> None:
    assert bitmap(32)("0b1x_0") == RegisterValueFilter(0b101, 0b100)
    assert bitmap(32)("") == RegisterValueFilter(0, 0)
    assert bitmap(32)("1" * 32) == RegisterValueFilter(0xFFFFFFFF, 0xFFFFFFFF)


@given(st.text("01x", min_size=1, max_size=64), st.integers(0, (1 << 64) - 1))
def test_applying_a_bitmap_touches_only_the_named_bits(text: str, register: int) -> None:
    result = bitmap(64)(text).apply(register)
    for bit, mark in enumerate(reversed(text.rjust(64, "x"))):
        expected = {"0": 0, "1": 1, "x": register >> bit & 1}[mark]
        assert result >> bit & 1 == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [("0b1y", "unknown character: 121"), ("1" * 33, "string is too long"), ("y" * 33, "unknown character: 121")],
)
def test_what_is_wrong_with_a_bitmap(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"as a bitmap - {problem}$"):
        bitmap(32)(text)


def test_capabilities_are_added_and_removed() -> None:
    assert kvm_capability("171") == KvmCapability(171, added=True)
    assert kvm_capability("!171") == KvmCapability(171, added=False)
    for text, problem in (("", "empty string"), ("!!1", "invalid digit"), ("9" * 5000, "number too large")):
        with pytest.raises(ValueError, match=problem):
            kvm_capability(text)


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_memory_comes_from_one_of_two_fields() -> None:
    backend = MemBackendConfig("/m", "File")
    assert LoadSnapshotConfig("/s", mem_file_path="/m").memory() == backend
    assert LoadSnapshotConfig("/s", mem_backend=backend).memory() == backend
    with pytest.raises(JsonError) as both:
        LoadSnapshotConfig("/s", mem_file_path="/m", mem_backend=backend).memory()
    assert str(both.value) == "too many fields: either `mem_backend` or `mem_file_path` exclusively is required"
    with pytest.raises(JsonError) as neither:
        LoadSnapshotConfig("/s").memory()
    assert str(neither.value) == "missing field: either `mem_backend` or `mem_file_path` is required"
