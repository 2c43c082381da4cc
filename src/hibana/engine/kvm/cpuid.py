"""What a guest sees of its CPU: what KVM supports here, and each vCPU's place in one socket (machine.md §3.6)."""

from collections.abc import Sequence
from typing import Final, NamedTuple

_TSC_DEADLINE: Final = 1 << 24  # leaf 1, ECX
_HYPERVISOR: Final = 1 << 31
_HYPER_THREADING: Final = 1 << 28  # leaf 1, EDX
_CLFLUSH_64_BYTES: Final = 8 << 8  # leaf 1, EBX


class CpuidEntry(NamedTuple):
    """The answer to one leaf and subleaf (struct kvm_cpuid_entry2)."""

    function: int
    index: int  # type: ignore[assignment]  # the kernel's name, and a method of tuples that nobody needs
    flags: int
    eax: int
    ebx: int
    ecx: int
    edx: int


def normalize(supported: Sequence[CpuidEntry], vcpu_index: int, vcpu_count: int) -> list[CpuidEntry]:
    """Give the leaves of vCPU `vcpu_index`, made from those that the host supports."""
    return [_normalized(entry, vcpu_index, vcpu_count) for entry in supported]


def _normalized(entry: CpuidEntry, vcpu_index: int, vcpu_count: int) -> CpuidEntry:
    if entry.function == 0x1:
        siblings = 1 << (vcpu_count - 1).bit_length()
        return entry._replace(
            ebx=entry.ebx & 0xFF | _CLFLUSH_64_BYTES | siblings << 16 | vcpu_index << 24,
            ecx=entry.ecx | _TSC_DEADLINE | _HYPERVISOR,
            edx=entry.edx & ~_HYPER_THREADING | (_HYPER_THREADING if vcpu_count > 1 else 0),
        )
    if entry.function in (0xB, 0x1F):
        return entry._replace(edx=vcpu_index)
    if entry.function == 0x80000008:
        return entry._replace(ecx=entry.ecx & ~0xFF | vcpu_count - 1)
    if entry.function == 0x8000001E:
        return entry._replace(eax=vcpu_index, ebx=entry.ebx & ~0xFF | vcpu_index)
    return entry
