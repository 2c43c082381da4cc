"""A list of CPUID leaves that can be changed leaf by leaf and bit by bit, and what Intel's and AMD's have in common."""

from collections.abc import Iterable, Iterator
from struct import pack, unpack
from typing import Final, Literal, NamedTuple

from hibana.engine.kvm.host_cpuid import HostCpuid
from hibana.engine.state import CpuidEntry

SIGNIFICANT_INDEX: Final = 1  # KVM_CPUID_FLAG_SIGNIFCANT_INDEX: ECX selects one of several subleaves

RegisterName = Literal["eax", "ebx", "ecx", "edx"]

_BRAND: Final = (0x80000002, 0x80000003, 0x80000004)
_BRAND_SIZE: Final = 48


class Place(NamedTuple):
    """Where a vCPU stands among the others: one socket, its cores, one or two threads a core."""

    vcpu: int
    vcpus: int
    threads_per_core: int


class Rule(NamedTuple):
    """Bits `high` down to `low` of a register become `value`."""

    leaf: int
    subleaf: int
    register: RegisterName
    high: int
    low: int
    value: int


class Leaves:
    """CPUID leaves by (function, index), each of them once."""

    def __init__(self, entries: Iterable[CpuidEntry]) -> None:
        self._entries = {(entry.function, entry.index): entry for entry in entries}

    def get(self, function: int, index: int = 0) -> CpuidEntry | None:
        """Give a leaf, if there is one."""
        return self._entries.get((function, index))

    def subleaves(self, function: int) -> Iterator[CpuidEntry]:
        """Give the subleaves 0, 1, 2… of a leaf, up to the first that is not there."""
        index = 0
        while (entry := self.get(function, index)) is not None:
            yield entry
            index += 1

    def put(self, entry: CpuidEntry) -> None:
        """Add a leaf, or replace it."""
        self._entries[entry.function, entry.index] = entry

    def follow(self, *rules: Rule) -> None:
        """Apply rules; those about leaves that are not there mean nothing."""
        for leaf, subleaf, register, high, low, value in rules:
            entry = self.get(leaf, subleaf)
            if entry is not None:
                mask = (1 << high + 1) - (1 << low)
                changed = getattr(entry, register) & ~mask | value << low & mask
                self.put(entry._replace(**{register: changed}))

    def entries(self) -> list[CpuidEntry]:
        """Give all leaves in ascending order."""
        return [entry for _, entry in sorted(self._entries.items())]


def share_caches(leaves: Leaves, function: int, place: Place) -> None:
    """Say who shares the caches: the threads of a core the first two levels, everybody the third.

    Leaf 4 of Intel and 0x8000001D of AMD have the same form: type in EAX[4:0] (0 ends the list), level in EAX[7:5].
    """
    sharing = {1: place.threads_per_core, 2: place.threads_per_core, 3: place.vcpus}
    for entry in leaves.subleaves(function):
        level = entry.eax >> 5 & 7
        if entry.eax & 0x1F and level in sharing:
            leaves.follow(Rule(function, entry.index, "eax", 25, 14, sharing[level] - 1))


def host_brand(host: HostCpuid) -> bytes:
    """Give the brand string of the host's CPU."""
    return b"".join(pack("<4I", *host(function, 0)) for function in _BRAND).partition(b"\0")[0]


def put_brand(leaves: Leaves, brand: bytes) -> None:
    """Write a brand string; what does not fit is cut off."""
    words = unpack("<12I", brand[:_BRAND_SIZE].ljust(_BRAND_SIZE, b"\0"))
    for number, function in enumerate(_BRAND):
        eax, ebx, ecx, edx = words[4 * number : 4 * number + 4]
        leaves.put(CpuidEntry(function, 0, 0, eax, ebx, ecx, edx))
