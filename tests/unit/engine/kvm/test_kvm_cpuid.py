"""The CPUID of a vCPU on KVM: consistent with the number of vCPUs, and the same on hosts that differ in little."""

import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.engine.kvm.cpuid import normalize
from hibana.engine.kvm.cpuid_intel import guest_brand
from hibana.engine.kvm.host_cpuid import HostCpuid
from hibana.engine.state import CpuidEntry
from hibana.errors import GuestConfigError
from hibana.observe import log
from tests.unit.engine.kvm.recorded_cpuid import AMD, AMD_HOST, INTEL, INTEL_HOST

BOTH = pytest.mark.parametrize(("supported", "host"), [(AMD, AMD_HOST), (INTEL, INTEL_HOST)], ids=["amd", "intel"])
MOST_ENTRIES = 256  # KVM_MAX_CPUID_ENTRIES

COUNTS = st.sampled_from([1, 2, 3, 4, 6, 8, 16, 31, 32])


class Cpu:
    """The leaves of one vCPU."""

    def __init__(
        self, supported: Sequence[CpuidEntry], host: HostCpuid, index: int = 0, count: int = 1, smt: bool = False
    ) -> None:
        self.entries = normalize(supported, index, count, smt=smt, host=host)
        self._by_key = {(entry.function, entry.index): entry for entry in self.entries}

    def leaf(self, function: int, index: int = 0) -> CpuidEntry:
        return self._by_key[function, index]

    def has(self, function: int, index: int = 0) -> bool:
        return (function, index) in self._by_key

    def bits(self, where: tuple[int, int], register: str, high: int, low: int) -> int:
        value: int = getattr(self.leaf(*where), register)
        return value >> low & (1 << high - low + 1) - 1

    @property
    def brand(self) -> bytes:
        leaves = [self.leaf(function) for function in (0x80000002, 0x80000003, 0x80000004)]
        return b"".join(struct.pack("<4I", *leaf[3:]) for leaf in leaves)


def intel(**place: Any) -> Cpu:
    return Cpu(INTEL, INTEL_HOST, **place)


def amd(**place: Any) -> Cpu:
    return Cpu(AMD, AMD_HOST, **place)


# --- every CPU --------------------------------------------------------------------------------------------------------


@BOTH
def test_leaf_1_says_who_and_how_many(supported: Sequence[CpuidEntry], host: HostCpuid) -> None:
    cpu = Cpu(supported, host, index=4, count=5)
    assert cpu.bits((1, 0), "ebx", 31, 24) == 4
    assert cpu.bits((1, 0), "ebx", 23, 16) == 8
    assert cpu.bits((1, 0), "ebx", 15, 8) == 8
    assert cpu.bits((1, 0), "ecx", 15, 15) == 0
    assert cpu.bits((1, 0), "ecx", 24, 24) == 1
    assert cpu.bits((1, 0), "ecx", 31, 31) == 1
    assert cpu.bits((1, 0), "edx", 28, 28) == 1


@BOTH
def test_a_single_vcpu_has_no_neighbours(supported: Sequence[CpuidEntry], host: HostCpuid) -> None:
    cpu = Cpu(supported, host, smt=True)
    assert cpu.bits((1, 0), "edx", 28, 28) == 0
    assert cpu.bits((1, 0), "ebx", 23, 16) == 1
    assert cpu.leaf(0xB, 0)[3:] == (0, 1, 0x100, 0)


@BOTH
def test_one_socket_of_cores(supported: Sequence[CpuidEntry], host: HostCpuid) -> None:
    cpu = Cpu(supported, host, index=3, count=6)
    assert cpu.leaf(0xB, 0)[2:] == (1, 0, 1, 0x100, 3)
    assert cpu.leaf(0xB, 1)[2:] == (1, 5, 6, 0x201, 3)


@BOTH
def test_cores_may_have_two_threads(supported: Sequence[CpuidEntry], host: HostCpuid) -> None:
    cpu = Cpu(supported, host, index=3, count=6, smt=True)
    assert cpu.leaf(0xB, 0)[2:] == (1, 1, 2, 0x100, 3)
    assert cpu.leaf(0xB, 1)[2:] == (1, 5, 6, 0x201, 3)


def test_a_level_that_nobody_expects_is_emptied_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(log, "warn", said.append)
    odd = CpuidEntry(0xB, 2, 1, 7, 64, 0x502, 99)
    cpu = Cpu([*AMD, odd._replace(index=1), odd], AMD_HOST, index=1, count=2)
    assert cpu.leaf(0xB, 1)[2:] == (1, 5, 2, 0x201, 1)
    assert cpu.leaf(0xB, 2)[2:] == (1, 0, 0, 2, 1)
    assert said == ["Subleaf 2 not expected for CPUID leaf 0xB."]


@BOTH
def test_a_cpu_without_topology_leaves_gets_none(supported: Sequence[CpuidEntry], host: HostCpuid) -> None:
    old = [entry for entry in supported if entry.function not in (0xB, 0x1F)]
    cpu = Cpu(old, host, count=2)
    assert not cpu.has(0xB)
    assert not cpu.has(0xB, 1)
    assert not cpu.has(0x1F)


@BOTH
def test_the_vendor_is_the_hosts_whatever_a_template_says(supported: Sequence[CpuidEntry], host: HostCpuid) -> None:
    forged = [entry._replace(ebx=1, ecx=2, edx=3) if entry.function == 0 else entry for entry in supported]
    assert Cpu(forged, host).leaf(0)[4:] == supported[0][4:]


def test_caches_come_from_the_host_if_kvm_keeps_them_for_itself() -> None:
    older = [entry._replace(eax=0, ebx=0, ecx=0, edx=0) if entry.function == 0x80000005 else entry for entry in AMD]
    assert Cpu(older, AMD_HOST).leaf(0x80000005)[3:] == AMD_HOST(0x80000005, 0)
    assert intel().bits((0x80000006, 0), "edx", 17, 16) == 0


@BOTH
def test_what_no_rule_names_is_passed_through(supported: Sequence[CpuidEntry], host: HostCpuid) -> None:
    cpu = Cpu(supported, host, index=1, count=2)
    for where in ((0x40000000, 0), (0x40000001, 0), (0xD, 0), (0xD, 2), (0x80000007, 0)):
        assert cpu.leaf(*where) in supported


def test_a_vendor_that_nobody_knows_is_refused() -> None:
    def host(function: int, index: int) -> tuple[int, int, int, int]:
        ebx, edx, ecx = struct.unpack("<3I", b"CentaurHauls")
        return 1, ebx, ecx, edx

    with pytest.raises(GuestConfigError) as caught:
        normalize(AMD, 0, 1, host=host)
    assert str(caught.value) == (
        "Failed to create guest config: Can create cpuid from raw: CPUs made by 'CentaurHauls' are not supported."
    )


@given(COUNTS, st.booleans(), st.data())
def test_every_vcpu_is_told_the_same_but_for_its_own_number(count: int, smt: bool, data: st.DataObject) -> None:
    smt = smt and count % 2 == 0
    supported, host = data.draw(st.sampled_from([(AMD, AMD_HOST), (INTEL, INTEL_HOST)]))
    index = data.draw(st.integers(0, count - 1))
    entries = Cpu(supported, host, index=index, count=count, smt=smt).entries
    others = Cpu(supported, host, index=0, count=count, smt=smt).entries
    different = {a.function for a, b in zip(entries, others, strict=True) if a != b}
    assert different <= {0x1, 0xB, 0x1F, 0x8000001E}
    keys = [(entry.function, entry.index) for entry in entries]
    assert keys == sorted(set(keys))
    assert {(entry.function, entry.index) for entry in supported} <= set(keys)
    assert len(entries) <= MOST_ENTRIES
    assert all(0 <= value < 1 << 32 for entry in entries for value in entry)


@given(st.lists(st.tuples(*[st.integers(0, 0xFFFFFFFF)] * 7).map(CpuidEntry._make), max_size=80))
def test_no_list_is_too_odd(supported: list[CpuidEntry]) -> None:
    for host in (AMD_HOST, INTEL_HOST):
        entries = normalize(supported, 1, 2, smt=True, host=host)
        assert len({(entry.function, entry.index) for entry in entries}) == len(entries)
        assert all(0 <= value < 1 << 32 for entry in entries for value in entry)


# --- Intel ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("smt", "private", "cores"), [(False, 0, 7), (True, 1, 3)])
def test_intel_caches_are_shared_by_threads_or_by_all(smt: bool, private: int, cores: int) -> None:
    cpu = intel(index=5, count=8, smt=smt)
    assert [cpu.bits((4, k), "eax", 25, 14) for k in range(4)] == [private, private, private, 7]
    assert [cpu.bits((4, k), "eax", 31, 26) for k in range(4)] == [cores] * 4
    assert cpu.leaf(4, 4)[3:] == (0, 0, 0, 0)


def test_intel_features_that_need_the_host_are_hidden() -> None:
    cpu = intel()
    assert cpu.leaf(6)[3:] == (4, 0, 1, 0)
    assert cpu.bits((7, 0), "ecx", 5, 5) == 0
    assert cpu.bits((7, 0), "ebx", 6, 6) == cpu.bits((7, 0), "ebx", 13, 13) == 1
    assert cpu.leaf(0xA)[3:] == (0, 0, 0, 0)


def test_the_second_topology_leaf_is_a_copy_of_the_first() -> None:
    cpu = intel(index=2, count=4)
    assert [cpu.leaf(0x1F, k)[1:] for k in range(2)] == [cpu.leaf(0xB, k)[1:] for k in range(2)]
    older = Cpu([entry for entry in INTEL if entry.function != 0x1F], INTEL_HOST)
    assert not older.has(0x1F)


def test_the_intel_brand_keeps_nothing_but_the_frequency() -> None:
    assert intel().brand == b"Intel(R) Xeon(R) Processor @ 3.00GHz".ljust(48, b"\0")


@pytest.mark.parametrize(
    ("host", "guest"),
    [
        (b"Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", b"Intel(R) Xeon(R) Processor @ 2.30GHz"),
        (b"Intel(R) Pentium(R) III CPU 800MHz", b"Intel(R) Xeon(R) Processor @ 800MHz"),
        (b"Intel(R) Xeon(R) 1.10THz (sample)", b"Intel(R) Xeon(R) Processor @ 1.10THz (sample)"),
        (b"Intel(R) Xeon(R) Platinum 8488C", b"Intel(R) Xeon(R) Processor"),
        (b"faster than a GHz", b"Intel(R) Xeon(R) Processor"),
        (b"", b"Intel(R) Xeon(R) Processor"),
    ],
)
def test_the_frequency_is_found_wherever_it_stands(host: bytes, guest: bytes) -> None:
    assert guest_brand(host) == guest


# --- AMD --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("smt", "core", "threads"), [(False, 5, 0), (True, 2, 1)])
def test_amd_cores_are_numbered_and_caches_shared(smt: bool, core: int, threads: int) -> None:
    cpu = amd(index=5, count=8, smt=smt)
    assert cpu.leaf(0x8000001E)[3:] == (5, threads << 8 | core, 0, 0)
    assert [cpu.bits((0x8000001D, k), "eax", 25, 14) for k in range(4)] == [threads, threads, threads, 7]
    assert cpu.bits((0x80000008, 0), "ecx", 7, 0) == 7
    assert cpu.bits((0x80000008, 0), "ecx", 15, 12) == 7
    assert cpu.bits((0x80000001, 0), "ecx", 22, 22) == 1


def test_amd_has_no_msr_of_intels() -> None:
    assert any(entry.function == 7 and entry.edx >> 29 & 1 for entry in AMD)
    assert amd().bits((7, 0), "edx", 29, 29) == 0


def test_the_amd_brand_is_the_same_on_all_hosts() -> None:
    assert amd().brand == b"AMD EPYC".ljust(48, b"\0")


def test_an_older_kernel_does_not_hide_amds_topology() -> None:
    older = [entry for entry in AMD if entry.function not in (0x8000001D, 0x8000001E)]
    whole, cpu = amd(index=1, count=2), Cpu(older, AMD_HOST, index=1, count=2)
    assert cpu.leaf(0x8000001E) == whole.leaf(0x8000001E)
    assert [cpu.leaf(0x8000001D, k) for k in range(4)] == [whole.leaf(0x8000001D, k) for k in range(4)]


def test_a_host_without_these_leaves_does_not_lead_astray() -> None:
    def host(function: int, index: int) -> tuple[int, int, int, int]:
        if function == 0x80000000:
            return 0x8000001A, 0, 0, 0
        return AMD_HOST(function, index) if function < 0x8000001B else (0x121, 0x121, 0x121, 0x121)

    older = [entry for entry in AMD if entry.function not in (0x8000001D, 0x8000001E)]
    cpu = Cpu(older, host, index=1, count=2)
    assert not cpu.has(0x8000001D)
    assert not cpu.has(0x8000001E)
