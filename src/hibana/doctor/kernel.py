"""The kernel, and the parts of it that the VMM uses."""

import ctypes
import errno
import fcntl
import os
from typing import Final

from hibana.doctor.finding import ERROR, INFO, OK, WARN, Finding, Host, running_kernel, supported_machine
from hibana.errors import VmmError
from hibana.host.io_uring import FSYNC, READ, WRITE, Ring

_OLDEST: Final = (5, 10)
_VALIDATED: Final = ((5, 10), (6, 1), (6, 18))
_TUNGETFEATURES: Final = 0x800454CF
_USERFAULTFD: Final = 323  # x86_64
_PIDFD_OPEN: Final = 434

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def version(_host: Host) -> Finding:
    """Compare the kernel with those that the reference supports (operations.md §5.1, check 2; §5.3)."""
    release, running = os.uname().release, running_kernel()
    if not supported_machine():
        return Finding("kernel", ERROR, f"{os.uname().sysname} on {os.uname().machine}: guests need Linux on x86_64")
    if running < _OLDEST:
        return Finding("kernel", ERROR, f"Linux {release} is older than 5.10", "apt-get install linux-image-amd64")
    if running in _VALIDATED:
        return Finding("kernel", OK, f"Linux {release}")
    text = f"Linux {release} is not one of the series that Firecracker is validated on: 5.10, 6.1, 6.18"
    return Finding("kernel", INFO, text)


def seccomp(host: Host) -> Finding:
    """Look for system call filters that can trap (check 16)."""
    if "trap" in host.read("/proc/sys/kernel/seccomp/actions_avail").split():
        return Finding("seccomp", OK, "system calls can be filtered")
    return Finding("seccomp", ERROR, "this kernel cannot filter system calls: it needs CONFIG_SECCOMP_FILTER")


def system_calls(_host: Host) -> Finding:
    """Try the system calls without which the jailer, and tools that watch processes, cannot be (check 16)."""
    missing = []
    if _errno_of(436, 1 << 30, 0, 0) == errno.ENOSYS:  # an empty range, from the last to the first
        missing.append("close_range")
    if _errno_of(_PIDFD_OPEN, -1, 0) == errno.ENOSYS:
        missing.append("pidfd_open")
    if missing:
        return Finding("syscalls", ERROR, f"this kernel has no {' and no '.join(missing)}")
    return Finding("syscalls", OK, "close_range and pidfd_open are there")


def io_uring(host: Host) -> Finding:
    """Set a ring up (check 30)."""
    try:
        with open(os.devnull, "rb") as file:
            Ring(1, file.fileno(), (READ, WRITE, FSYNC)).close()
    except VmmError as error:
        disabled = host.read("/proc/sys/kernel/io_uring_disabled") not in ("", "0")
        fix = "sysctl kernel.io_uring_disabled=0" if disabled else ""
        return Finding("io_uring", INFO, f"drives with io_engine Async are refused: {error}", fix)
    return Finding("io_uring", OK, "drives may have io_engine Async")


def userfaultfd(host: Host) -> Finding:
    """Try both ways to a userfaultfd (check 17)."""
    if host.exists("/dev/userfaultfd") and os.access(host.path("/dev/userfaultfd"), os.R_OK | os.W_OK):
        return Finding("userfaultfd", OK, "/dev/userfaultfd can be opened")
    fd = _LIBC.syscall(_USERFAULTFD, os.O_CLOEXEC)
    if fd >= 0:
        os.close(fd)
        return Finding("userfaultfd", OK, "the system call is allowed")
    text = "snapshots cannot be loaded through a page-fault handler"
    return Finding("userfaultfd", INFO, text, "sysctl vm.unprivileged_userfaultfd=1")


def tun(host: Host) -> Finding:
    """Open the device that tap interfaces come from (check 26)."""
    path = host.path("/dev/net/tun")
    if not os.path.exists(path):
        return Finding("tun", WARN, "there is no /dev/net/tun: no network interfaces", "modprobe tun")
    try:
        with open(path, "r+b", buffering=0) as device:
            fcntl.ioctl(device, _TUNGETFEATURES, bytes(4))
    except OSError as error:
        fix = f"setfacl -m u:{os.getuid()}:rw /dev/net/tun"
        return Finding("tun", WARN, f"/dev/net/tun cannot be used: {os.strerror(error.errno or 0)}", fix)
    return Finding("tun", OK, "tap interfaces can be opened")


def _errno_of(number: int, *arguments: int) -> int:
    ctypes.set_errno(0)
    _LIBC.syscall(number, *arguments)
    return ctypes.get_errno()
