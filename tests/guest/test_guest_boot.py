"""A stock Debian kernel comes up, sees the machine it was given, and goes down again."""

import hashlib
import re

import pytest

from tests.guest.conftest import Boot

MIB = 1 << 20


@pytest.mark.parametrize("kernel", ["vmlinux", "bzImage"])
def test_an_unmodified_kernel_boots_to_a_shell(boot: Boot, kernel: str) -> None:
    vm = boot(kernel=kernel)
    assert "Linux hibana 6.1." in vm.run("uname -a")


@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_every_cpu_is_there_and_works(boot: Boot, vcpus: int) -> None:
    vm = boot(vcpus=vcpus)
    assert vm.run("nproc") == str(vcpus)
    for cpu in range(vcpus):
        # Field 39 of stat: the CPU that the reader itself runs on.
        assert vm.run(f"taskset {1 << cpu:x} cut -d' ' -f39 /proc/self/stat") == str(cpu)


def test_cpus_work_at_the_same_time(boot: Boot) -> None:
    vm = boot(vcpus=4)
    count = "i=0; while [ $i -lt 5000 ]; do i=$((i + 1)); done; echo $i"
    together = "; ".join(f"taskset {1 << cpu:x} sh -c '{count}' &" for cpu in range(4)).replace("&;", "&")
    assert vm.run(f"{together} wait") == "\n".join(["5000"] * 4)


@pytest.mark.parametrize("mem", [128, 1024, 3072, 5120])
def test_all_memory_is_usable(boot: Boot, mem: int) -> None:
    vm = boot(mem=mem)
    total = int(vm.run("awk '/MemTotal/ { print $2 }' /proc/meminfo")) / 1024
    assert mem * 0.9 - 64 < total < mem
    # Linux allocates from the highest zone first: with 5 GiB this lies above the MMIO gap.
    size = min(mem // 4, 48)
    vm.run(f"dd if=/dev/zero bs=1M count={size} 2>/dev/null | tr '\\0' 'h' >/tmp/block")
    assert vm.run("sha256sum /tmp/block").startswith(hashlib.sha256(b"h" * (size * MIB)).hexdigest())


def test_memory_goes_on_above_the_gap(boot: Boot) -> None:
    vm = boot(mem=5120)
    ranges = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) : System RAM", vm.run("cat /proc/iomem"), re.MULTILINE)
    assert (f"{4 << 30:08x}", f"{(6 << 30) - 1:08x}") in ranges
    assert f"{(3 << 30) - 1:08x}" in [end for _, end in ranges]


def test_the_command_line_arrives(boot: Boot) -> None:
    vm = boot(cmdline="hibana.word=spark")
    assert "hibana.word=spark" in vm.run("cat /proc/cmdline")


def test_the_kernel_finds_nothing_to_complain_about(boot: Boot) -> None:
    vm = boot(vcpus=2)
    vm.run("sleep 1")
    log = vm.run("dmesg")
    for complaint in ("WARNING:", "BUG:", "Oops", "unstable", "rcu_sched self-detected", "soft lockup", "nobody cared"):
        assert complaint not in log


def test_twenty_boots_in_a_row(boot: Boot) -> None:
    for _ in range(20):
        vm = boot(shell=False, mem=128)
        vm.wait_for("hibana:/# ")
        vm.send("reboot -f\n")
        assert vm.exit_code == 0
