"""A tiny guest of the contract tests, with the kernel's descriptors at hand, and KVM_RUN without our runner."""

import errno
import mmap
import struct
import threading
from collections.abc import Callable
from fcntl import ioctl
from struct import Struct
from types import TracebackType
from typing import Final, NamedTuple

import pytest

from hibana.engine.kvm import abi, kick
from hibana.engine.kvm.engine import KvmEngine
from hibana.engine.kvm.vcpu import KvmVcpu
from hibana.engine.kvm.vm import KvmVm
from tests.contract.engine.harness import Guest

PATIENCE_S: Final = 20.0

# What only tests ask of the kernel.
MSI: Final = Struct("<IIII16x")  # address_lo, address_hi, data, flags
IRQ_LEVEL: Final = Struct("<II")  # irq, level
TRANSLATION: Final = Struct("<QQBBB5x")  # linear_address, physical_address, valid, writeable, usermode
GUEST_DEBUG: Final = Struct("<II8Q")  # control, pad, debugreg
ENABLE_CAP: Final = Struct("<II4Q64x")  # cap, flags, args
FPU: Final = Struct("<416s")
KVM_GET_MSR_FEATURE_INDEX_LIST: Final = abi.iowr(0x0A, abi.MSR_LIST)
KVM_IRQ_LINE: Final = abi.iow(0x61, IRQ_LEVEL)
KVM_TRANSLATE: Final = abi.iowr(0x85, TRANSLATION)
KVM_GET_FPU: Final = abi.ior(0x8C, FPU)
KVM_SET_FPU: Final = abi.iow(0x8D, FPU)
KVM_GET_CPUID2: Final = abi.iowr(0x91, abi.CPUID2)
KVM_NMI: Final = abi.io(0x9A)
KVM_SET_GUEST_DEBUG: Final = abi.iow(0x9B, GUEST_DEBUG)
KVM_ENABLE_CAP: Final = abi.iow(0xA3, ENABLE_CAP)
KVM_SIGNAL_MSI: Final = abi.iow(0xA5, MSI)
KVM_GET_STATS_FD: Final = abi.io(0xCE)

EXIT_DEBUG: Final = 4
EXIT_RDMSR: Final = 29


class KvmGuest(Guest):
    """A guest whose virtual machine is known to be the kernel's."""

    def __init__(self, source: str, *, memory_mib: int = 16, vcpus: int = 1) -> None:
        super().__init__(KvmEngine(), source, memory_mib=memory_mib, vcpus=vcpus)

    @property
    def kvm(self) -> KvmVm:
        """The virtual machine."""
        assert isinstance(self.vm, KvmVm)
        return self.vm

    @property
    def vcpu(self) -> KvmVcpu:
        """The first CPU."""
        return self.kvm.vcpus[0]


class PortAccess(NamedTuple):
    """What an exit says about IN or OUT."""

    direction: int
    size: int
    port: int
    count: int  # type: ignore[assignment]  # the kernel's name
    content: bytes


class Run:
    """KVM_RUN by hand: enter the guest, look at the shared page; a watchdog ends a guest that hangs."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.page = mmap.mmap(fd, 3 * mmap.PAGESIZE)
        kick.admit()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.page.close()

    def enter(self) -> int:
        """Run the guest until it comes back; give the exit reason, or the negative number of the error."""
        watchdog = threading.Timer(PATIENCE_S, kick.poke, (threading.get_native_id(),))
        watchdog.start()
        try:
            ioctl(self._fd, abi.KVM_RUN, 0)
        except OSError as error:
            if watchdog.finished.is_set():
                pytest.fail(f"the guest does not come back by itself: {error}")
            return -(error.errno or 0)
        finally:
            watchdog.cancel()
        (reason,) = struct.unpack_from("<I", self.page, abi.RUN_EXIT_REASON)
        return int(reason)

    def port(self) -> PortAccess:
        """Read the access to a port that the guest has come back with."""
        direction, size, port, count, offset = abi.EXIT_IO.unpack_from(self.page, abi.RUN_UNION)
        return PortAccess(direction, size, port, count, self.page[offset : offset + size * count])

    def until_said(self) -> int:
        """Run the guest to its next OUT; give the value."""
        reason = self.enter()
        assert reason == abi.KVM_EXIT_IO, f"exit reason {reason}"
        return int.from_bytes(self.port().content, "little")

    def finish_instruction(self) -> None:
        """Let the kernel complete the access it came back with, and go no further."""
        self.page[abi.RUN_IMMEDIATE_EXIT] = 1
        assert self.enter() == -errno.EINTR
        self.page[abi.RUN_IMMEDIATE_EXIT] = 0


def later(action: Callable[[], object], seconds: float = 0.02) -> threading.Thread:
    """Do something from another thread, when the guest is probably under way; wait for that thread in the end."""
    thread = threading.Timer(seconds, action)
    thread.start()
    return thread


def refused(fd: int, request: int, argument: int | bytearray = 0) -> str:
    """Make a request that fails; give the name of the error."""
    try:
        ioctl(fd, request, argument)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "nothing"
