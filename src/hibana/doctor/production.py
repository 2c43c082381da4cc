"""A host of strangers' guests: what Firecracker's rules for production say, as far as a program can see it."""

import os
import stat
from collections.abc import Iterator
from typing import Final

from hibana.doctor.finding import INFO, OK, WARN, Finding, Host

_VULNERABILITIES: Final = "/sys/devices/system/cpu/vulnerabilities"
_NX_HUGE_PAGES: Final = "/sys/module/kvm/parameters/nx_huge_pages"
_JAILS: Final = "/srv/jailer"
_VMM: Final = "firecracker"
_FILTERED: Final = "2"


def vulnerabilities(host: Host) -> Finding:
    """Read what the kernel says about the CPU's holes (operations.md §5.1, check 5)."""
    names = host.names(_VULNERABILITIES)
    open_ones = [name for name in names if "Vulnerable" in host.read(f"{_VULNERABILITIES}/{name}")]
    if open_ones:
        text = f"the CPU leaks, and the kernel does not prevent it: {', '.join(open_ones)}"
        return Finding(
            "vulnerabilities", WARN, text, "apt-get install intel-microcode amd64-microcode linux-image-amd64"
        )
    return Finding("vulnerabilities", OK, f"{len(names)} known ones, none open")


def page_tables(host: Host) -> Finding:
    """Look whether kernel memory is hidden from guests where the CPU needs that (check 6)."""
    state = host.read(f"{_VULNERABILITIES}/meltdown")
    if state in ("", "Not affected", "Mitigation: PTI"):
        return Finding("kpti", OK, state or "the kernel says nothing about it")
    return Finding("kpti", WARN, f"meltdown: {state}", "boot with pti=on")


def threads(host: Host) -> Finding:
    """Look whether two guests may share a core (check 7)."""
    if host.read("/sys/devices/system/cpu/smt/active") == "1":
        fix = "echo off > /sys/devices/system/cpu/smt/control"
        return Finding("smt", WARN, "SMT is on: guests that share a core can spy on each other", fix)
    return Finding("smt", OK, "no two guests share a core")


def microcode(host: Host) -> Finding:
    """Read the revision of the microcode (check 28)."""
    revision = host.cpu_field("microcode")
    return Finding(
        "microcode", INFO, f"revision {revision or 'unknown'} on {host.cpu_field('model name') or 'this CPU'}"
    )


def creation(host: Host) -> Finding:
    """Look for what makes the creation of a VM slow since Linux 6.1 (check 10)."""
    if host.read(f"{_VULNERABILITIES}/itlb_multihit") == "Not affected" and host.exists(_NX_HUGE_PAGES):
        if host.read(_NX_HUGE_PAGES) not in ("never", "N", "0"):
            text = "KVM guards against a hole that this CPU does not have, and is slow to create VMs"
            return Finding("vm creation", WARN, text, f"echo never > {_NX_HUGE_PAGES}")
    elif host.exists(_NX_HUGE_PAGES) and "favordynmods" not in host.read("/proc/mounts"):
        fix = "mount -o remount,favordynmods /sys/fs/cgroup"
        return Finding("vm creation", INFO, "VMs are created faster with cgroups that favour changes", fix)
    return Finding("vm creation", OK, "nothing known makes it slow")


def console(host: Host) -> Finding:
    """Look whether the host's kernel talks while it starts guests (check 12)."""
    level = host.read("/proc/sys/kernel/printk").split()[:1]
    if level and level[0].isdigit() and int(level[0]) > 4:
        text = f"the host's console prints messages up to level {level[0]}, which can slow the start of VMs down"
        return Finding("console", INFO, text, "dmesg -n 1")
    return Finding("console", OK, "the host's console is quiet")


def jail_folder(host: Host) -> Finding:
    """Look who else could change the folder of the jails (check 18)."""
    if not host.exists(_JAILS):
        return Finding("jails", INFO, f"{_JAILS}, where jails are made, does not exist", f"install -d -m 755 {_JAILS}")
    for path in ("/", "/srv", _JAILS):
        status = os.stat(host.path(path))
        if status.st_uid or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            fix = f"chown root: {path} && chmod go-w {path}"
            return Finding("jails", WARN, f"others than root may change {path}", fix)
    return Finding("jails", OK, f"only root may change {_JAILS}")


def running(host: Host) -> Finding:
    """Look at the VMMs that run now: users of their own, none of them root, and filtered (checks 19 and 20)."""
    vmms = list(_vmms(host))
    users = [fields["Uid"].split()[0] for fields in vmms]
    if "0" in users:
        return Finding("users", WARN, "a VMM runs as root", "start it with jailer --uid UID --gid GID")
    if len(set(users)) < len(users):
        return Finding("users", WARN, "VMMs share a user: who breaks out of one reaches the other", "jailer --uid UID")
    if any(fields.get("Seccomp", _FILTERED) != _FILTERED for fields in vmms):
        return Finding("users", WARN, "a VMM runs without seccomp filters", "start it without --no-seccomp")
    return Finding("users", OK, f"{len(vmms)} VMMs run now, each with a user of its own")


def _vmms(host: Host) -> Iterator[dict[str, str]]:
    for name in host.names("/proc"):
        if name.isdigit() and host.read(f"/proc/{name}/comm") == _VMM:
            rows = (row.partition(":") for row in host.read(f"/proc/{name}/status").splitlines())
            fields = {key: value.strip() for key, _, value in rows}
            if "Uid" in fields:
                yield fields


ADVICE: Final = (
    "One tenant per process; keep host, guests and microcode up to date.",
    "Memory without rowhammer: ECC, DDR4 with TRR.",
    "Give each microVM cgroup limits for memory, CPU and I/O; rate limiters for its drives and network interfaces.",
    "Send the console to a bounded place, or the guest off it (8250.nr_uarts=0); bound log, metrics and snapshots too.",
    "Filter what guests send; keep them from the metadata service of a cloud (169.254.169.254).",
    "Let a watchdog kill VMMs that do not answer.",
)
"""What nobody can check from here (operations.md §5.2)."""
