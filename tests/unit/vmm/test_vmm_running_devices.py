"""A running microVM, changed over the API while its guest looks on."""

import threading
from collections.abc import Callable

import pytest

from hibana.config.drive import BlockDeviceConfig, BlockDeviceUpdateConfig
from hibana.config.net import NetworkInterfaceConfig, NetworkInterfaceUpdateConfig
from hibana.config.rate_limit import RateLimiterConfig, TokenBucketConfig
from hibana.devices.mmds.store import Store
from hibana.devices.virtio import mmio
from hibana.errors import ActionError
from hibana.vmm.attached import AttachedDrive, AttachedInterface
from hibana.vmm.machine import Machine
from hibana.vmm.running import Running
from hibana.vmm.verbs import Call, perform
from tests.unit.vmm.conftest import Workshop

DRIVE, INTERFACE = 0xC0001000, 0xC0002000
BUCKET = TokenBucketConfig(size=100, refill_time=1000)
NO_BUCKET = TokenBucketConfig(size=0, refill_time=0)


class Vmm:
    """A microVM with a drive and an interface, and its API."""

    def __init__(self, workshop: Workshop) -> None:
        resources = workshop.resources
        path = workshop.file("disk", bytes(4096))
        resources.put_drive(BlockDeviceConfig(drive_id="data", is_root_device=False, path_on_host=path))
        resources.put_net(NetworkInterfaceConfig("eth0", "tap0"))
        self.workshop = workshop
        self.machine: Machine = workshop.run()
        self._running = Running(self.machine, resources, Store(1024))

    def ask(self, verb: str, *arguments: object) -> object:
        return perform(self._running, Call(verb, arguments), started=True)

    def shown_drive(self) -> BlockDeviceConfig:
        return self.workshop.resources.render().drives[0]

    def shown_interface(self) -> NetworkInterfaceConfig:
        return self.workshop.resources.render().network_interfaces[0]

    def capacity(self) -> int:
        return self.workshop.engine.vm.bus.mmio_read(DRIVE + mmio.CONFIG, 8)


@pytest.fixture
def vmm(workshop: Workshop) -> Vmm:
    return Vmm(workshop)


def refusal(ask: Callable[[], object]) -> str:
    with pytest.raises(ActionError) as refused:
        ask()
    return str(refused.value)


# --- drives -----------------------------------------------------------------------------------------------------------


def test_a_drive_gets_another_file(vmm: Vmm) -> None:
    assert vmm.capacity() == 8
    path = vmm.workshop.file("larger", bytes(8192))
    vmm.ask("patch_drive", BlockDeviceUpdateConfig("data", path_on_host=path))
    assert vmm.capacity() == 16
    assert vmm.shown_drive().path_on_host == path


def test_the_same_file_may_have_another_size_now(vmm: Vmm) -> None:
    path = vmm.workshop.file("disk", bytes(5 * 512))
    vmm.ask("patch_drive", BlockDeviceUpdateConfig("data", path_on_host=path))
    assert vmm.capacity() == 5


def test_a_file_that_cannot_be_opened_changes_nothing(vmm: Vmm) -> None:
    before = vmm.shown_drive().path_on_host
    change = BlockDeviceUpdateConfig("data", "foo.bar", RateLimiterConfig(bandwidth=BUCKET))
    assert refusal(lambda: vmm.ask("patch_drive", change)) == (
        "Drive config error: Unable to patch the block device: Block: Virtio backend error: Error manipulating the"
        " backing file: No such file or directory (os error 2) foo.bar Please verify the request arguments."
    )
    assert vmm.capacity() == 8
    assert (vmm.shown_drive().path_on_host, vmm.shown_drive().rate_limiter) == (before, None)


def test_a_drive_gets_rate_limits_bucket_by_bucket(vmm: Vmm) -> None:
    vmm.ask("patch_drive", BlockDeviceUpdateConfig("data", rate_limiter=RateLimiterConfig(bandwidth=BUCKET)))
    vmm.ask("patch_drive", BlockDeviceUpdateConfig("data", rate_limiter=RateLimiterConfig(ops=BUCKET)))
    drive = vmm.machine.drives["data"]
    assert isinstance(drive, AttachedDrive)
    limiter = drive.device.limiter
    assert limiter.bandwidth
    assert limiter.ops
    assert vmm.shown_drive().rate_limiter == RateLimiterConfig(BUCKET, BUCKET)
    vmm.ask("patch_drive", BlockDeviceUpdateConfig("data", rate_limiter=RateLimiterConfig(bandwidth=NO_BUCKET)))
    assert limiter.bandwidth is None
    assert vmm.shown_drive().rate_limiter == RateLimiterConfig(None, BUCKET)


def test_a_drive_that_is_asked_for_nothing_says_whose_question_that_is(vmm: Vmm) -> None:
    assert refusal(lambda: vmm.ask("patch_drive", BlockDeviceUpdateConfig("data"))) == (
        "Drive config error: Unable to patch the block device: Block: Running method expected different backend."
        " Please verify the request arguments."
    )


def test_there_is_no_such_drive(vmm: Vmm) -> None:
    assert refusal(lambda: vmm.ask("patch_drive", BlockDeviceUpdateConfig("eth0", path_on_host="x"))) == (
        "Drive config error: Unable to patch the block device: Failed perform action on device: Device not found"
        " Please verify the request arguments."
    )


# --- network interfaces -----------------------------------------------------------------------------------------------


def test_an_interface_gets_rate_limits_each_way(vmm: Vmm) -> None:
    change = NetworkInterfaceUpdateConfig("eth0", RateLimiterConfig(ops=BUCKET), RateLimiterConfig(bandwidth=BUCKET))
    vmm.ask("patch_network_interface", change)
    interface = vmm.machine.interfaces["eth0"]
    assert isinstance(interface, AttachedInterface)
    assert interface.device.rx_limiter.ops
    assert interface.device.tx_limiter.bandwidth
    shown = vmm.shown_interface()
    assert (shown.rx_rate_limiter, shown.tx_rate_limiter) == (
        RateLimiterConfig(None, BUCKET),
        RateLimiterConfig(BUCKET, None),
    )
    vmm.ask("patch_network_interface", NetworkInterfaceUpdateConfig("eth0"))
    assert vmm.shown_interface() == shown


def test_there_is_no_such_interface(vmm: Vmm) -> None:
    change = NetworkInterfaceUpdateConfig("data")
    assert refusal(lambda: vmm.ask("patch_network_interface", change)) == (
        "Network config error: Unable to update the net device: Failed perform action on device: Device not found"
    )


# --- paused -----------------------------------------------------------------------------------------------------------


def test_a_paused_microvm_can_be_changed(vmm: Vmm) -> None:
    vmm.ask("pause_vm")
    path = vmm.workshop.file("larger", bytes(8192))
    vmm.ask("patch_drive", BlockDeviceUpdateConfig("data", path_on_host=path))
    assert vmm.capacity() == 16
    vmm.ask("resume_vm")


def test_while_it_is_paused_the_outside_world_waits(vmm: Vmm) -> None:
    seen: list[str] = []
    arrived = threading.Event()

    def see(what: str) -> None:
        seen.append(f"{what} on {threading.current_thread().name}")
        if what == "last":
            arrived.set()

    vmm.machine.post_to_devices(lambda: see("before"))
    vmm.ask("pause_vm")
    assert seen == ["before on fc_vcpu 0"]
    vmm.machine.post_to_devices(lambda: see("frame"))
    vmm.machine.post_to_devices(lambda: see("timer"))
    assert vmm.machine.ask_devices(lambda: list(seen)) == ["before on fc_vcpu 0"]
    vmm.ask("resume_vm")
    vmm.machine.post_to_devices(lambda: see("last"))
    assert arrived.wait(60)
    assert seen[1:] == ["frame on fc_vcpu 0", "timer on fc_vcpu 0", "last on fc_vcpu 0"]
