"""The host's KVM as a whole: opened, asked what it can do, and asked for virtual machines."""

import os
import time
from fcntl import ioctl
from struct import unpack_from
from typing import Final

from hibana.engine.kvm import abi
from hibana.engine.kvm.cpuid import CpuidEntry
from hibana.errors import EngineError, os_text
from hibana.observe import log

DEVICE: Final = "/dev/kvm"

REQUIRED: Final = (
    abi.KVM_CAP_IRQCHIP,
    abi.KVM_CAP_IOEVENTFD,
    abi.KVM_CAP_IRQFD,
    abi.KVM_CAP_USER_MEMORY,
    abi.KVM_CAP_SET_TSS_ADDR,
    abi.KVM_CAP_PIT2,
    abi.KVM_CAP_PIT_STATE2,
    abi.KVM_CAP_ADJUST_CLOCK,
    abi.KVM_CAP_DEBUGREGS,
    abi.KVM_CAP_MP_STATE,
    abi.KVM_CAP_VCPU_EVENTS,
    abi.KVM_CAP_XCRS,
    abi.KVM_CAP_XSAVE,
    abi.KVM_CAP_EXT_CPUID,
)
"""Capabilities that nothing here works without, in the order in which they are checked (machine.md §4.2)."""

_ATTEMPTS: Final = 5
_MOST_CPUID_ENTRIES: Final = 256
_MOST_MSRS: Final = 1024


class Host:
    """An open /dev/kvm."""

    def __init__(self) -> None:
        """Open it and check what it can do. Raises EngineError."""
        try:
            self.fd: Final = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            hint = "Make sure the user launching the firecracker process is configured on the /dev/kvm file's ACL."
            raise EngineError(cause=f"Error creating KVM object: {os_text(error)} {hint}") from error
        try:
            self._check()
        except EngineError:
            self.close()
            raise

    def capability(self, number: int) -> int:
        """Tell what the host says about a capability; 0 when it does not have it."""
        return abi.call(self.fd, abi.KVM_CHECK_EXTENSION, number)

    def create_vm(self) -> int:
        """Make a virtual machine and give its descriptor. Raises EngineError.

        The kernel gives up when a signal comes in between, so that is tried again.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return ioctl(self.fd, abi.KVM_CREATE_VM, 0)
            except InterruptedError as error:
                failure: OSError = error
                log.info(f"Attempt #{attempt} of KVM_CREATE_VM returned EINTR")
                time.sleep(2 ** (attempt - 1) / 1e6)
            except OSError as error:
                failure = error
                break
        raise EngineError(cause=f"Failed to create VM: {os_text(failure)}") from failure

    def vcpu_page_size(self) -> int:
        """Give the size of the memory that a vCPU shares with us."""
        return abi.call(self.fd, abi.KVM_GET_VCPU_MMAP_SIZE)

    def supported_cpuid(self) -> list[CpuidEntry]:
        """List the CPUID leaves that a guest may see here."""
        head, size = abi.CPUID2.size, abi.CPUID_ENTRY2.size
        buffer = bytearray(head + _MOST_CPUID_ENTRIES * size)
        abi.CPUID2.pack_into(buffer, 0, _MOST_CPUID_ENTRIES, 0)
        abi.call(self.fd, abi.KVM_GET_SUPPORTED_CPUID, buffer)
        count = abi.CPUID2.unpack_from(buffer)[0]
        return [CpuidEntry(*abi.CPUID_ENTRY2.unpack_from(buffer, head + size * i)) for i in range(count)]

    def msr_index_list(self) -> list[int]:
        """List the MSRs that belong to the state of a vCPU."""
        buffer = bytearray(abi.MSR_LIST.size + 4 * _MOST_MSRS)
        abi.MSR_LIST.pack_into(buffer, 0, _MOST_MSRS)
        abi.call(self.fd, abi.KVM_GET_MSR_INDEX_LIST, buffer)
        (count,) = abi.MSR_LIST.unpack_from(buffer)
        return list(unpack_from(f"<{count}I", buffer, abi.MSR_LIST.size))

    def close(self) -> None:
        """Close it; virtual machines live on."""
        os.close(self.fd)

    def _check(self) -> None:
        version = abi.call(self.fd, abi.KVM_GET_API_VERSION)
        if version != abi.API_VERSION:
            raise EngineError(cause=f"The host kernel reports an invalid KVM API version: {version}")
        if missing := [number for number in REQUIRED if not self.capability(number)]:
            raise EngineError(cause=f"Missing KVM capabilities: [{', '.join(f'{number:#x}' for number in missing)}]")
