"""What the host has to give: memory, cgroups, limits."""

import resource
from typing import Final

from hibana.doctor.finding import INFO, OK, WARN, Finding, Host
from hibana.errors import VmmError
from hibana.jail import cgroup

_HUGE_PAGES: Final = "/sys/kernel/mm/hugepages/hugepages-2048kB"
_ENOUGH_FILES: Final = 2048
_ENOUGH_LOCKED: Final = 8 << 20
_MANY_MOUNTS: Final = 100


def huge_pages(host: Host) -> Finding:
    """Count the pages for `huge_pages: 2M` (operations.md §5.1, check 14)."""
    total, free = host.read(f"{_HUGE_PAGES}/nr_hugepages"), host.read(f"{_HUGE_PAGES}/free_hugepages")
    if total in ("", "0"):
        text = "no huge pages are reserved: microVMs with huge_pages 2M will not start"
        return Finding("huge pages", INFO, text, "sysctl vm.nr_hugepages=NUMBER")
    return Finding("huge pages", OK, f"{free} of {total} huge pages of 2 MiB are free")


def shared_huge_pages(host: Host) -> Finding:
    """Look how shared memory gets transparent huge pages (check 15)."""
    chosen = host.read("/sys/kernel/mm/transparent_hugepage/shmem_enabled").partition("[")[2].partition("]")[0]
    if chosen in ("always", "advise", "within_size"):
        return Finding("shared huge pages", OK, f"shared memory gets transparent huge pages: {chosen}")
    fix = "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled"
    return Finding("shared huge pages", INFO, "shared guest memory gets no transparent huge pages", fix)


def cgroups(_host: Host) -> Finding:
    """Look which cgroups a jail can have (check 13)."""
    try:
        unified = cgroup.hierarchies(2)[0].folder
    except VmmError:
        unified = ""
    try:
        old = sorted({option for one in cgroup.hierarchies(1) for option in one.options} & _CONTROLLERS)
    except VmmError:
        old = []
    if old:
        text = f"cgroup version 1 has {', '.join(old)}; snapshots load faster with version 2"
        return Finding("cgroups", WARN, text, "boot with systemd.unified_cgroup_hierarchy=1")
    if not unified:
        return Finding("cgroups", WARN, "no cgroups are mounted", "mount -t cgroup2 none /sys/fs/cgroup")
    with open(f"{unified}/cgroup.controllers") as file:
        return Finding("cgroups", OK, f"cgroup version 2 has {', '.join(file.read().split())}")


_CONTROLLERS: Final = {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb"}


def limits(_host: Host) -> Finding:
    """Look at what a VMM that is started from here may have (check 27)."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= files < _ENOUGH_FILES:
        return Finding("limits", WARN, f"no more than {files} open files", f"ulimit -Hn {_ENOUGH_FILES}")
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if 0 <= locked < _ENOUGH_LOCKED:
        text = f"no more than {locked >> 10} KiB of locked memory, which io_uring counts before Linux 5.12"
        return Finding("limits", INFO, text, "ulimit -l unlimited")
    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        return Finding("limits", INFO, "the size of files is limited: drives may be larger", "ulimit -f unlimited")
    return Finding("limits", OK, "open files, locked memory and file sizes are not in the way")


def swap(host: Host) -> Finding:
    """Look for places to which guest memory could be written (check 9)."""
    if host.read("/proc/swaps").count("\n"):
        return Finding("swap", WARN, "guest memory may be written to disk", "swapoff -a")
    return Finding("swap", OK, "no swap")


def same_pages(host: Host) -> Finding:
    """Look whether equal pages of different guests are merged (check 8)."""
    if host.read("/sys/kernel/mm/ksm/run") == "1":
        text = "KSM merges equal pages: one guest can find out what is in another one's memory"
        return Finding("ksm", WARN, text, "echo 0 > /sys/kernel/mm/ksm/run")
    return Finding("ksm", OK, "equal pages are not merged")


def mounts(host: Host) -> Finding:
    """Count the mounts, all of which each jail has to copy and to let go (check 25)."""
    count = len(host.read("/proc/self/mountinfo").splitlines())
    if count > _MANY_MOUNTS:
        return Finding(
            "mounts", INFO, f"{count} mounts make each jail slower to start", "umount those that nobody needs"
        )
    return Finding("mounts", OK, f"{count} mounts")
