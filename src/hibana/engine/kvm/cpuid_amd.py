"""What is particular to the CPUID of AMD CPUs (machine.md §3.8)."""

from typing import Final

from hibana.engine.kvm.cpuid_leaves import SIGNIFICANT_INDEX, Leaves, Place, Rule, put_brand, share_caches
from hibana.engine.kvm.host_cpuid import HostCpuid
from hibana.engine.state import CpuidEntry

_HIGHEST: Final = 0x80000000
_CACHES: Final = 0x8000001D
_TOPOLOGY: Final = 0x8000001E
_MAX_CACHES: Final = 16
_BRAND: Final = b"AMD EPYC"


def normalize(leaves: Leaves, place: Place, host: HostCpuid) -> None:
    """Apply the rules for AMD CPUs."""
    _copy_from_host(leaves, host)
    core = place.vcpu // place.threads_per_core
    leaves.follow(
        Rule(0x7, 0, "edx", 29, 29, 0),  # ARCH_CAPABILITIES: an MSR of Intel's that KVM emulates
        Rule(0x80000001, 0, "ecx", 22, 22, 1),  # topology extensions: leaves 0x8000001D and 0x8000001E
        Rule(0x80000008, 0, "ecx", 15, 12, 7),  # width of an APIC ID
        Rule(0x80000008, 0, "ecx", 7, 0, place.vcpus - 1),
        Rule(_TOPOLOGY, 0, "eax", 31, 0, place.vcpu),  # APIC ID
        Rule(_TOPOLOGY, 0, "ebx", 7, 0, core),
        Rule(_TOPOLOGY, 0, "ebx", 15, 8, place.threads_per_core - 1),
        Rule(_TOPOLOGY, 0, "ecx", 10, 8, 0),  # one node a package
        Rule(_TOPOLOGY, 0, "ecx", 7, 0, 0),  # which is node 0
    )
    share_caches(leaves, _CACHES, place)
    put_brand(leaves, _BRAND)


def _copy_from_host(leaves: Leaves, host: HostCpuid) -> None:
    """Take the leaves about caches and topology from the host's CPU: older kernels leave them out."""
    highest, *_ = host(_HIGHEST, 0)
    if highest >= _TOPOLOGY:
        leaves.put(CpuidEntry(_TOPOLOGY, 0, 0, *host(_TOPOLOGY, 0)))
        for index in range(_MAX_CACHES):
            registers = host(_CACHES, index)
            if not registers[0] & 0xF:
                break
            leaves.put(CpuidEntry(_CACHES, index, SIGNIFICANT_INDEX, *registers))
