"""What the doctor says about hosts, good and bad; hosts are folders that look like one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hibana.doctor import engines, kernel, production, resources
from hibana.doctor.checks import CHECKS, examine
from hibana.doctor.finding import ERROR, INFO, OK, WARN, Finding, Host

CPU = "/sys/devices/system/cpu"
KVM = "/sys/module/kvm/parameters"
HUGE = "/sys/kernel/mm/hugepages/hugepages-2048kB"
SHARED = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
SEVEN = {"/proc/7/comm": "firecracker", "/proc/7/status": "Name:\tfirecracker\nUid:\t7\t7\t7\t7\nSeccomp:\t2"}
EIGHT = {"/proc/8/comm": "firecracker", "/proc/8/status": "Uid:\t8\t8\t8\t8\nSeccomp:\t2"}


def host(folder: Path, files: dict[str, str]) -> Host:
    for path, text in files.items():
        file = folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return Host(str(folder))


@pytest.mark.parametrize(
    ("check", "files", "level", "words"),
    [
        (engines.kvm, {}, INFO, "there is no /dev/kvm"),
        (engines.kvm, {"/dev/kvm": ""}, ERROR, "/dev/kvm is not KVM"),
        (engines.nested, {"/proc/cpuinfo": "flags\t\t: fpu vmx"}, OK, "no virtual machine"),
        (engines.nested, {"/proc/cpuinfo": "flags\t\t: fpu hypervisor"}, WARN, "a virtual machine itself"),
        (engines.ept, {}, OK, ""),
        (engines.ept, {"/sys/module/kvm_intel/parameters/ept": "Y"}, OK, ""),
        (engines.ept, {"/sys/module/kvm_intel/parameters/ept": "N"}, WARN, "EPT is off"),
        (engines.msrs, {f"{KVM}/ignore_msrs": "N"}, OK, ""),
        (engines.msrs, {f"{KVM}/ignore_msrs": "Y"}, INFO, "ignores"),
        (engines.timer, {f"{KVM}/min_timer_period_us": "200"}, OK, "200 µs"),
        (engines.timer, {"/proc/9/comm": "kvm-pit/8"}, INFO, "1 kvm-pit threads"),
        (kernel.seccomp, {"/proc/sys/kernel/seccomp/actions_avail": "kill_process trap errno"}, OK, ""),
        (kernel.seccomp, {}, ERROR, "CONFIG_SECCOMP_FILTER"),
        (kernel.tun, {}, WARN, "there is no /dev/net/tun"),
        (kernel.tun, {"/dev/net/tun": ""}, WARN, "cannot be used"),
        (resources.huge_pages, {}, INFO, "no huge pages"),
        (resources.huge_pages, {f"{HUGE}/nr_hugepages": "8", f"{HUGE}/free_hugepages": "3"}, OK, "3 of 8"),
        (resources.shared_huge_pages, {SHARED: "always [advise] never"}, OK, "advise"),
        (resources.shared_huge_pages, {SHARED: "always advise [never]"}, INFO, "no transparent"),
        (resources.swap, {"/proc/swaps": "Filename Type Size"}, OK, ""),
        (resources.swap, {"/proc/swaps": "Filename Type Size\n/dev/sda2 partition 1"}, WARN, "written to disk"),
        (resources.same_pages, {"/sys/kernel/mm/ksm/run": "0"}, OK, ""),
        (resources.same_pages, {"/sys/kernel/mm/ksm/run": "1"}, WARN, "KSM"),
        (resources.mounts, {"/proc/self/mountinfo": "x\n" * 7}, OK, "7 mounts"),
        (resources.mounts, {"/proc/self/mountinfo": "x\n" * 101}, INFO, "101 mounts"),
        (production.vulnerabilities, {f"{CPU}/vulnerabilities/mds": "Mitigation: x"}, OK, "1 known"),
        (production.vulnerabilities, {f"{CPU}/vulnerabilities/mds": "Vulnerable: no microcode"}, WARN, "mds"),
        (production.page_tables, {f"{CPU}/vulnerabilities/meltdown": "Mitigation: PTI"}, OK, "PTI"),
        (production.page_tables, {f"{CPU}/vulnerabilities/meltdown": "Vulnerable"}, WARN, "meltdown"),
        (production.threads, {f"{CPU}/smt/active": "0"}, OK, ""),
        (production.threads, {f"{CPU}/smt/active": "1"}, WARN, "SMT is on"),
        (production.microcode, {"/proc/cpuinfo": "model name\t: A CPU\nmicrocode\t: 0x1"}, INFO, "0x1 on A CPU"),
        (production.creation, {f"{KVM}/nx_huge_pages": "never", f"{CPU}/vulnerabilities/itlb_multihit": "Not affected"},
         OK, ""),
        (production.creation, {f"{KVM}/nx_huge_pages": "auto", f"{CPU}/vulnerabilities/itlb_multihit": "Not affected"},
         WARN, "slow to create"),
        (production.creation, {f"{KVM}/nx_huge_pages": "Y", "/proc/mounts": "… rw 0 0"}, INFO, "favour"),
        (production.creation, {f"{KVM}/nx_huge_pages": "Y", "/proc/mounts": "… rw,favordynmods 0 0"}, OK, ""),
        (production.console, {"/proc/sys/kernel/printk": "1\t4\t1\t7"}, OK, ""),
        (production.console, {"/proc/sys/kernel/printk": "7\t4\t1\t7"}, INFO, "level 7"),
        (production.jail_folder, {}, INFO, "does not exist"),
        (production.running, {}, OK, "0 VMMs"),
        (production.running, SEVEN | EIGHT, OK, "2 VMMs"),
        (production.running, SEVEN | {"/proc/8/comm": "firecracker", "/proc/8/status": SEVEN["/proc/7/status"]},
         WARN, "share a user"),
        (production.running, {"/proc/8/comm": "firecracker", "/proc/8/status": "Uid:\t0\t0\t0\t0"}, WARN, "as root"),
        (production.running, {"/proc/8/comm": "firecracker", "/proc/8/status": "Uid:\t8\t8\t8\t8\nSeccomp:\t0"},
         WARN, "without seccomp"),
    ],
)  # fmt: skip
def test_a_host_gets_the_finding_it_deserves(
    check: Callable[[Host], Finding], files: dict[str, str], level: str, words: str, tmp_path: Path
) -> None:
    finding = check(host(tmp_path, files))
    assert finding.level == level, finding
    assert words in finding.text
    if level == WARN and check is not engines.nested:
        assert finding.fix, "what is not as it should be can be mended"


def test_what_kvm_stands_on(tmp_path: Path) -> None:
    assert engines.kind(host(tmp_path, {})) == "of an unknown kind"
    assert engines.kind(host(tmp_path, {"/sys/module/kvm_amd/x": ""})) == "on AMD's SVM"
    nested = host(tmp_path, {"/proc/cpuinfo": "flags: hypervisor"})
    assert engines.kind(nested) == "on AMD's SVM, itself in a virtual machine"


def test_the_folder_of_the_jails_belongs_to_root_alone(tmp_path: Path) -> None:
    found = host(tmp_path, {"/srv/jailer/x": ""})
    folder = tmp_path / "srv/jailer"
    folder.chmod(0o777)
    assert "may change" in production.jail_folder(found).text
    assert production.jail_folder(found).fix.startswith("chown root: /")


def test_this_machine_can_be_examined() -> None:
    findings = examine(Host())
    assert len(findings) == len(CHECKS)
    assert len({finding.check for finding in findings}) == len(CHECKS), "every line has a name of its own"
    assert {finding.level for finding in findings} <= {OK, INFO, WARN, ERROR}
    assert all("\n" not in finding.text for finding in findings)
