"""What is particular to the CPUID of Intel CPUs (machine.md §3.7)."""

import re
from typing import Final

from hibana.engine.kvm.cpuid_leaves import Leaves, Place, Rule, host_brand, put_brand, share_caches
from hibana.engine.kvm.host_cpuid import HostCpuid

_CACHES: Final = 0x4
_TOPOLOGY: Final = 0xB
_TOPOLOGY_V2: Final = 0x1F
_BRAND: Final = b"Intel(R) Xeon(R) Processor"
_FREQUENCY: Final = re.compile(rb"[0-9.]+[TGM]Hz.*", re.DOTALL)

_RULES: Final = (
    Rule(0x6, 0, "eax", 1, 1, 0),  # turbo boost
    Rule(0x6, 0, "ecx", 3, 3, 0),  # energy performance bias
    Rule(0x7, 0, "ebx", 6, 6, 1),  # x87 data pointer changes on exceptions only
    Rule(0x7, 0, "ebx", 13, 13, 1),  # x87 saves no CS and DS
    Rule(0x7, 0, "ecx", 5, 5, 0),  # WAITPKG
    Rule(0xA, 0, "eax", 31, 0, 0),  # no performance counters
    Rule(0xA, 0, "ebx", 31, 0, 0),
    Rule(0xA, 0, "ecx", 31, 0, 0),
    Rule(0xA, 0, "edx", 31, 0, 0),
)


def normalize(leaves: Leaves, place: Place, host: HostCpuid) -> None:
    """Apply the rules for Intel CPUs."""
    leaves.follow(*_RULES)
    share_caches(leaves, _CACHES, place)
    cores = place.vcpus // place.threads_per_core
    for cache in leaves.subleaves(_CACHES):
        if cache.eax & 0x1F:
            leaves.follow(Rule(_CACHES, cache.index, "eax", 31, 26, cores - 1))
    if leaves.get(_TOPOLOGY_V2) is not None:
        for level in list(leaves.subleaves(_TOPOLOGY)):
            leaves.put(level._replace(function=_TOPOLOGY_V2))
    put_brand(leaves, guest_brand(host_brand(host)))


def guest_brand(brand: bytes) -> bytes:
    """Name the CPU without its model: guests shall see the same on all hosts, but for the frequency."""
    frequency = _FREQUENCY.search(brand)
    return _BRAND if frequency is None else _BRAND + b" @ " + frequency[0]
