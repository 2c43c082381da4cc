"""KVM, and which engine the VMM would take."""

import fcntl
import os
from typing import Final

from hibana.doctor.finding import ERROR, INFO, OK, WARN, Finding, Host
from hibana.errors import VmmError
from hibana.vmm.engines import select

_DEVICE: Final = "/dev/kvm"
_KVM_GET_API_VERSION: Final = 0xAE00
_API_VERSION: Final = 12
_KINDS: Final = {
    "kvm_intel": "on Intel's VT-x",
    "kvm_amd": "on AMD's SVM",
    "kvm_pvm": "on PVM, which emulates ring 0",
}


def kvm(host: Host) -> Finding:
    """Open /dev/kvm (operations.md §5.1, check 1)."""
    path = host.path(_DEVICE)
    if not os.path.exists(path):
        return Finding(
            "kvm", INFO, "there is no /dev/kvm: guests run on the soft engine", "modprobe kvm_intel || modprobe kvm_amd"
        )
    try:
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        fix = f"setfacl -m u:{os.getuid()}:rw {_DEVICE}"
        return Finding("kvm", WARN, f"/dev/kvm cannot be opened: {os.strerror(error.errno or 0)}", fix)
    try:
        version = fcntl.ioctl(device, _KVM_GET_API_VERSION)
    except OSError:
        return Finding("kvm", ERROR, "/dev/kvm is not KVM", "rm /dev/kvm && mknod -m 660 /dev/kvm c 10 232")
    finally:
        os.close(device)
    if version != _API_VERSION:
        return Finding("kvm", ERROR, f"/dev/kvm speaks version {version} of its interface, and not {_API_VERSION}")
    return Finding("kvm", OK, f"/dev/kvm can be opened; KVM {kind(host)}")


def kind(host: Host) -> str:
    """Say what KVM stands on here."""
    names = [words for module, words in _KINDS.items() if host.exists(f"/sys/module/{module}")]
    kinds = " or ".join(names) or "of an unknown kind"
    return f"{kinds}, itself in a virtual machine" if "hypervisor" in host.cpu_flags() else kinds


def engine(_host: Host) -> Finding:
    """Choose as the VMM does."""
    try:
        chosen, why = select("auto")
    except VmmError as error:
        return Finding("engine", ERROR, str(error), "pip install --only-binary :all: unicorn==2.1.4")
    return Finding("engine", OK, f"auto takes {chosen.name}: {why.removesuffix('.')}")


def nested(host: Host) -> Finding:
    """Look for a hypervisor below this one (check 3)."""
    if "hypervisor" in host.cpu_flags():
        return Finding("nesting", WARN, "this host is a virtual machine itself: slower, and not for strangers' guests")
    return Finding("nesting", OK, "this host is no virtual machine")


def ept(host: Host) -> Finding:
    """Look whether Intel's CPUs translate guest addresses themselves (check 4)."""
    value = host.read("/sys/module/kvm_intel/parameters/ept")
    if value in ("", "Y", "1"):
        return Finding("ept", OK, "nothing in the way of second-level address translation")
    fix = "modprobe -r kvm_intel && modprobe kvm_intel ept=1"
    return Finding("ept", WARN, "KVM keeps page tables in software: EPT is off", fix)


def msrs(host: Host) -> Finding:
    """Look whether guests may use model-specific registers that do not exist (check 29)."""
    if host.read("/sys/module/kvm/parameters/ignore_msrs") in ("Y", "1"):
        fix = "echo 0 > /sys/module/kvm/parameters/ignore_msrs"
        return Finding("msrs", INFO, "KVM ignores accesses to unknown MSRs instead of refusing them", fix)
    return Finding("msrs", OK, "KVM refuses unknown MSRs")


def timer(host: Host) -> Finding:
    """Look how often a guest may have its timer ring (check 11)."""
    value = host.read("/sys/module/kvm/parameters/min_timer_period_us")
    threads = sum(1 for name in _process_names(host) if name.startswith("kvm-pit/"))
    if threads:
        text = f"{threads} kvm-pit threads run outside the cgroups of their microVMs"
        return Finding("pit", INFO, text, "echo PID > …/cgroup.procs, for each of them")
    return Finding("pit", OK, f"no kvm-pit threads; shortest timer period {value or '?'} µs")


def _process_names(host: Host) -> list[str]:
    return [host.read(f"/proc/{name}/comm") for name in host.names("/proc") if name.isdigit()]
