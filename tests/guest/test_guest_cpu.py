"""What Linux makes of its CPUs: one socket, cores, threads and caches; and what a CPU template changes."""

import pytest

from tests.guest.conftest import Boot
from tests.guest.microvm import MicroVm

CPUS = "/sys/devices/system/cpu"

AES = 25  # leaf 1, ECX
NO_AES = {
    "cpuid_modifiers": [
        {
            "leaf": "0x1",
            "subleaf": "0x0",
            "flags": 0,
            "modifiers": [{"register": "ecx", "bitmap": "0b0" + "x" * AES}],
        }
    ]
}


def topology(vm: MicroVm, what: str) -> list[str]:
    """Read a fact about every CPU, in the order of their numbers."""
    return vm.run(f"cd {CPUS}; for cpu in cpu[0-9]*; do cat $cpu/topology/{what}; done").split("\n")


def caches(vm: MicroVm) -> dict[tuple[str, str], str]:
    """Tell who shares each cache of the first CPU: (level, type) → CPUs."""
    read = "for cache in index[0-9]*; do cat $cache/level $cache/type $cache/shared_cpu_list; done"
    words = vm.run(f"cd {CPUS}/cpu0/cache && {read}").split("\n")
    return {(words[at], words[at + 1]): words[at + 2] for at in range(0, len(words), 3)}


def flags(vm: MicroVm) -> list[list[str]]:
    """Give the flags of every CPU."""
    return [line.split(":")[1].split() for line in vm.run("grep ^flags /proc/cpuinfo").split("\n")]


def test_the_name_of_the_cpu_is_the_same_on_all_hosts_of_a_kind(boot: Boot, engine: str) -> None:
    names = {"soft": ("Hibana software CPU",), "kvm": ("AMD EPYC", "Intel(R) Xeon(R) Processor")}[engine]
    (name,) = boot().run("grep '^model name' /proc/cpuinfo | cut -d: -f2").split("\n")
    assert name.strip().partition(" @ ")[0] in names


def test_vcpus_are_the_cores_of_one_socket(boot: Boot) -> None:
    vm = boot(vcpus=4)
    assert topology(vm, "physical_package_id") == ["0"] * 4
    assert len(set(topology(vm, "core_id"))) == 4
    assert topology(vm, "thread_siblings_list") == ["0", "1", "2", "3"]
    assert topology(vm, "core_siblings_list") == ["0-3"] * 4


def test_the_third_level_of_cache_is_everybodys(boot: Boot) -> None:
    shared = caches(boot(vcpus=2))
    assert {kind: cpus for kind, cpus in shared.items() if kind[0] != "3"} == {
        ("1", "Data"): "0",
        ("1", "Instruction"): "0",
        ("2", "Unified"): "0",
    }
    assert shared["3", "Unified"] == "0-1"


def test_all_cpus_have_the_same_features(boot: Boot) -> None:
    first, *others = flags(boot(vcpus=2))
    assert "hypervisor" in first
    assert others == [first]


def test_with_smt_two_vcpus_are_one_core(boot: Boot, engine: str) -> None:
    if engine == "soft":
        pytest.skip("the CPU of the soft engine has no threads")
    vm = boot(vcpus=4, smt=True)
    assert topology(vm, "thread_siblings_list") == ["0-1", "0-1", "2-3", "2-3"]
    assert topology(vm, "core_siblings_list") == ["0-3"] * 4
    assert caches(vm)["2", "Unified"] == "0-1"


def test_a_feature_that_a_template_hides_is_gone(boot: Boot, engine: str) -> None:
    if engine == "soft":
        pytest.skip("the soft engine has one fixed CPU")
    assert "aes" in flags(boot())[0]
    hidden = boot(prepare=lambda api: api.put_cpu_config(NO_AES))
    assert "aes" not in flags(hidden)[0]
