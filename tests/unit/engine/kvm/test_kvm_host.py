"""Opening /dev/kvm: in which words it fails, and that nothing stays open."""

import errno
import os
import time
from collections.abc import Iterator

import pytest

from hibana.engine.kvm import abi, host
from hibana.engine.kvm.engine import KvmEngine
from hibana.engine.kvm.host import Host
from hibana.errors import EngineError


class Kernel:
    """A /dev/kvm that the test answers for."""

    def __init__(self) -> None:
        self.version = abi.API_VERSION
        self.missing: set[int] = set()
        self.create_vm: list[int | OSError] = []
        self.slept_us: list[int] = []

    def call(self, fd: int, request: int, argument: int | bytearray = 0) -> int:
        if request == abi.KVM_GET_API_VERSION:
            return self.version
        assert request == abi.KVM_CHECK_EXTENSION
        return int(argument not in self.missing)

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        assert request == abi.KVM_CREATE_VM
        answer = self.create_vm.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer


def interrupted() -> OSError:
    return OSError(errno.EINTR, "Interrupted system call")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel()
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(host, "DEVICE", os.devnull)
    monkeypatch.setattr(abi, "call", kernel.call)
    monkeypatch.setattr(host, "ioctl", kernel.ioctl)
    monkeypatch.setattr(time, "sleep", lambda seconds: kernel.slept_us.append(round(seconds * 1e6)))
    yield kernel
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_host_with_everything_is_taken(kernel: Kernel) -> None:
    Host().close()
    assert KvmEngine().missing() is None


def test_another_version_of_the_interface_is_refused(kernel: Kernel) -> None:
    kernel.version = 11
    with pytest.raises(EngineError, match=r"^Kvm error: The host kernel reports an invalid KVM API version: 11$"):
        Host()


def test_missing_capabilities_are_listed_in_the_order_of_the_checks(kernel: Kernel) -> None:
    kernel.missing = {abi.KVM_CAP_XCRS, abi.KVM_CAP_IRQFD}
    with pytest.raises(EngineError, match=r"^Kvm error: Missing KVM capabilities: \[0x20, 0x38\]$"):
        Host()
    assert KvmEngine().missing() == "Missing KVM capabilities: [0x20, 0x38]"


def test_a_device_that_may_not_be_opened_comes_with_a_hint(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(
        EngineError,
        match=r"^Kvm error: Error creating KVM object: Permission denied \(os error 13\) Make sure the user launching "
        r"the firecracker process is configured on the /dev/kvm file's ACL\.$",
    ):
        Host()


def test_a_device_that_does_not_exist_is_named(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "DEVICE", "/dev/kvm-of-nobody")
    assert KvmEngine().missing() == "this host has no /dev/kvm-of-nobody."


def test_a_virtual_machine_whose_creation_is_interrupted_is_tried_again(
    kernel: Kernel, capfd: pytest.CaptureFixture[str]
) -> None:
    opened = Host()
    kernel.create_vm = [interrupted(), interrupted(), 77]
    assert opened.create_vm() == 77
    opened.close()
    assert kernel.slept_us == [1, 2]
    said = [line.partition("] ")[2] for line in capfd.readouterr().out.splitlines()]
    assert said == ["Attempt #1 of KVM_CREATE_VM returned EINTR", "Attempt #2 of KVM_CREATE_VM returned EINTR"]


def test_after_five_interruptions_it_is_given_up(kernel: Kernel) -> None:
    opened = Host()
    kernel.create_vm = [interrupted() for _ in range(6)]
    with pytest.raises(EngineError, match=r"^Kvm error: Failed to create VM: Interrupted system call"):
        opened.create_vm()
    opened.close()
    assert len(kernel.create_vm) == 1


def test_another_failure_is_not_tried_again(kernel: Kernel) -> None:
    opened = Host()
    kernel.create_vm = [OSError(errno.ENOMEM, "Out of memory"), 77]
    with pytest.raises(EngineError, match=r"^Kvm error: Failed to create VM: Out of memory \(os error 12\)$"):
        opened.create_vm()
    opened.close()
