"""The CPUID of a vCPU: what KVM offers, made consistent with the machine the guest is in (machine.md §3.6-§3.9).

KVM offers what the host's CPU can do. What depends on the number of vCPUs, and what guests shall see the same on every
host, is written over it here: by rules for every CPU in this file, by those of its vendor in `cpuid_intel.py` and
`cpuid_amd.py`. CPU templates come before; these rules overrule them.
"""

from collections.abc import Sequence
from typing import Final

from hibana.engine.kvm import cpuid_amd, cpuid_intel
from hibana.engine.kvm.cpuid_leaves import SIGNIFICANT_INDEX, Leaves, Place, Rule
from hibana.engine.kvm.host_cpuid import HostCpuid, execute, vendor_of
from hibana.engine.state import CpuidEntry
from hibana.errors import GuestConfigError, UnknownCpuVendor
from hibana.observe import log

_VENDORS: Final = {b"GenuineIntel": cpuid_intel.normalize, b"AuthenticAMD": cpuid_amd.normalize}
_TOPOLOGY: Final = 0xB
_LEVEL_SMT: Final = 1 << 8
_LEVEL_CORE: Final = 2 << 8
_PACKAGE_BITS: Final = 5  # 32 vCPUs at most
_L1_CACHES: Final = 0x80000005
_L2_L3_CACHES: Final = 0x80000006


def normalize(
    supported: Sequence[CpuidEntry],
    vcpu_index: int,
    vcpu_count: int,
    *,
    smt: bool = False,
    host: HostCpuid = execute,
) -> list[CpuidEntry]:
    """Make the leaves of one vCPU; `host` is CPUID as the host's CPU itself answers it. Raises GuestConfigError."""
    vendor = vendor_of(host)
    if vendor not in _VENDORS:
        raise GuestConfigError(cause=UnknownCpuVendor(vendor=vendor.decode("ascii", "replace")))
    place = Place(vcpu_index, vcpu_count, 2 if smt and vcpu_count > 1 else 1)
    leaves = Leaves(supported)
    _copy_from_host(leaves, host)
    leaves.follow(*_rules(place))
    _describe_topology(leaves, place)
    _VENDORS[vendor](leaves, place, host)
    return leaves.entries()


def _rules(place: Place) -> tuple[Rule, ...]:
    """Leaf 1 (SDM vol. 2, CPUID, "Feature Information") and the associativity of the caches."""
    apic_ids = 1 << (place.vcpus - 1).bit_length()
    return (
        Rule(0x1, 0, "ebx", 15, 8, 8),  # CLFLUSH flushes 8 quadwords
        Rule(0x1, 0, "ebx", 23, 16, apic_ids),  # reserved for this package
        Rule(0x1, 0, "ebx", 31, 24, place.vcpu),  # initial APIC ID
        Rule(0x1, 0, "ecx", 15, 15, 0),  # PDCM: no performance counters
        Rule(0x1, 0, "ecx", 24, 24, 1),  # TSC deadline: KVM's local APIC has it, whatever KVM says here
        Rule(0x1, 0, "ecx", 31, 31, 1),  # running under a hypervisor
        Rule(0x1, 0, "edx", 28, 28, int(place.vcpus > 1)),  # HTT: the package has several logical processors
        Rule(_L2_L3_CACHES, 0, "edx", 17, 16, 0),
    )


def _copy_from_host(leaves: Leaves, host: HostCpuid) -> None:
    """Take from the host's CPU what no template may change, and what older kernels leave out."""
    _, ebx, ecx, edx = host(0, 0)
    highest = leaves.get(0)
    if highest is not None:
        leaves.put(highest._replace(ebx=ebx, ecx=ecx, edx=edx))
    for function in (_L1_CACHES, _L2_L3_CACHES):
        if leaves.get(function) is not None:
            leaves.put(CpuidEntry(function, 0, 0, *host(function, 0)))


def _describe_topology(leaves: Leaves, place: Place) -> None:
    """Write leaf 0xB: threads are level 0, cores level 1, and there is one package."""
    threads = leaves.get(_TOPOLOGY, 0)
    if threads is None:
        return
    thread_bits = place.threads_per_core - 1  # one thread needs no bit, two need one
    leaves.put(_level(0, thread_bits, place.threads_per_core, _LEVEL_SMT, place))
    leaves.put(_level(1, _PACKAGE_BITS, place.vcpus, _LEVEL_CORE, place))
    index = 2
    while leaves.get(_TOPOLOGY, index) is not None:
        log.warn(f"Subleaf {index} not expected for CPUID leaf 0xB.")
        leaves.put(_level(index, 0, 0, 0, place))
        index += 1


def _level(index: int, bits: int, processors: int, kind: int, place: Place) -> CpuidEntry:
    return CpuidEntry(_TOPOLOGY, index, SIGNIFICANT_INDEX, bits, processors, kind | index, place.vcpu)
