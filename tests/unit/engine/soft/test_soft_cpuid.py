"""The CPU "Hibana v1": what it announces, and that unicorn can keep the promise."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.engine.soft import cpuid
from hibana.engine.soft.cpuid import answer, crystal_ratio

KHZ = 2_596_001

FORBIDDEN_1_ECX = {
    "MONITOR": 3,
    "VMX": 5,
    "FMA": 12,
    "PCID": 17,
    "x2APIC": 21,
    "TSC deadline": 24,
    "XSAVE": 26,
    "OSXSAVE": 27,
    "AVX": 28,
}
FORBIDDEN_1_EDX = {"VME": 1, "MCE": 7, "MCA": 14, "HTT": 28}
FORBIDDEN_7_EBX = {"AVX2": 5, "ERMS": 9, "INVPCID": 10, "RTM": 11, "RDSEED": 18, "SMAP": 20}


def ask(leaf: int, subleaf: int = 0, index: int = 0, count: int = 1) -> tuple[int, int, int, int]:
    return answer(leaf, subleaf, index, count, KHZ)


def text(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


def test_the_vendor_and_the_limits() -> None:
    eax, ebx, ecx, edx = ask(0)
    assert text(ebx, edx, ecx) == b"GenuineIntel"
    assert eax == 0x16
    assert ask(0x80000000) == (0x80000008, ebx, ecx, edx)


def test_the_brand_is_ours() -> None:
    brand = b"".join(text(*ask(leaf)) for leaf in (0x80000002, 0x80000003, 0x80000004))
    assert brand == b"Hibana software CPU".ljust(48, b"\0")


def test_linux_takes_it_for_the_atom_without_speculation_bugs() -> None:
    eax = ask(1)[0]
    family, model, stepping = eax >> 8 & 0xF, eax >> 4 & 0xF | eax >> 12 & 0xF0, eax & 0xF
    assert (family, model, stepping) == (6, 0x1C, 10)
    assert ask(0x80000001)[0] == eax


@pytest.mark.parametrize(
    ("leaf", "register", "forbidden"), [(1, 2, FORBIDDEN_1_ECX), (1, 3, FORBIDDEN_1_EDX), (7, 1, FORBIDDEN_7_EBX)]
)
def test_what_the_engine_cannot_do_is_not_announced(leaf: int, register: int, forbidden: dict[str, int]) -> None:
    value = ask(leaf)[register]
    assert [name for name, bit in forbidden.items() if value >> bit & 1] == []


def test_what_a_modern_distribution_needs_is_there() -> None:
    """The psABI's x86-64-v2, RDRAND for the seed, the hypervisor bit, a trusted TSC and a timer that never stops."""
    _, _, ecx, edx = ask(1)
    for bit in (0, 9, 13, 19, 20, 23, 30, 31):
        assert ecx >> bit & 1, bit
    for bit in (0, 4, 5, 6, 8, 9, 12, 13, 15, 16, 23, 24, 25, 26):
        assert edx >> bit & 1, bit
    assert ask(0x80000001)[2] & 1
    assert ask(7)[1] & 2
    assert ask(6)[0] & 4
    assert ask(0x80000007)[3] == 0x100


@pytest.mark.parametrize(("count", "field", "htt"), [(1, 1, 0), (2, 2, 1), (3, 4, 1), (32, 32, 1)])
def test_each_vcpu_knows_its_number_and_how_many_there_are(count: int, field: int, htt: int) -> None:
    for index in range(count):
        _, ebx, _, edx = ask(1, index=index, count=count)
        assert ebx >> 24 == index
        assert ebx >> 16 & 0xFF == field
        assert ebx >> 8 & 0xFF == 8
        assert edx >> 28 & 1 == htt


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_every_question_has_an_answer(leaf: int, subleaf: int) -> None:
    registers = ask(leaf, subleaf)
    assert all(0 <= value <= 0xFFFFFFFF for value in registers)
    announced = {0, 1, 2, 4, 6, 7, 0x15, 0x16, *range(0x80000000, 0x80000005), *range(0x80000006, 0x80000009)}
    assert registers == (0, 0, 0, 0) or leaf in announced


def test_leaves_that_would_promise_more_are_zero() -> None:
    for leaf in (0x3, 0x5, 0xA, 0xB, 0xD, 0x14, 0x40000000, 0x40000001, 0x80000005):
        assert ask(leaf) == (0, 0, 0, 0), hex(leaf)
    assert ask(7, subleaf=1) == (0, 0, 0, 0)
    assert ask(1, subleaf=5) == ask(1), "this leaf has no subleaves"


def test_glibc_finds_caches_of_a_size_it_can_work_with() -> None:
    """Leaf 2 points to leaf 4, which must describe all three levels and then end."""
    assert ask(2)[0] & 0xFF == 1
    assert 0xFF in ask(2)[0].to_bytes(4, "little")
    sizes = {}
    for subleaf in range(4):
        eax, ebx, ecx, _ = ask(4, subleaf)
        ways, partitions, line = (ebx >> 22) + 1, (ebx >> 12 & 0x3FF) + 1, (ebx & 0xFFF) + 1
        sizes[eax >> 5 & 7, eax & 0x1F] = ways * partitions * line * (ecx + 1) >> 10
    assert sizes == {(1, 1): 32, (1, 2): 32, (2, 3): 2048, (3, 3): 16384}
    assert ask(4, 4) == (0, 0, 0, 0)
    assert ask(0x80000006)[2] >> 16 == sizes[2, 3]


@pytest.mark.parametrize(("count", "ids"), [(1, 1), (2, 2), (3, 4), (32, 32)])
def test_every_vcpu_is_a_core_and_only_the_last_cache_is_shared(count: int, ids: int) -> None:
    for subleaf in range(4):
        eax = ask(4, subleaf, count=count)[0]
        assert (eax >> 26) + 1 == ids
        assert (eax >> 14 & 0xFFF) + 1 == (ids if eax >> 5 & 7 == 3 else 1)


@given(st.integers(400_000, 6_000_000))
def test_linux_computes_the_tsc_frequency_without_overflow(khz: int) -> None:
    denominator, numerator, crystal_hz, _ = answer(0x15, 0, 0, 1, khz)
    product = crystal_hz // 1000 * numerator
    assert product < 2**32
    assert abs(product / denominator / khz - 1) < 12e-6
    assert answer(0x16, 0, 0, 1, khz)[0] * 1000 == pytest.approx(khz, abs=500)


def test_a_frequency_that_fits_is_exact() -> None:
    assert crystal_ratio(2_500_000) == (100, 1)
    assert crystal_ratio(2_596_000) == (2596, 25)


def test_unicorn_translates_all_that_is_announced() -> None:
    """Ask unicorn's own CPUID, which describes its default model after removing what it cannot translate."""
    unicorn = pytest.importorskip("unicorn")
    x86 = pytest.importorskip("unicorn.x86_const")
    cpu = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    cpu.mem_map(0x1000, 0x1000)
    cpu.mem_write(0x1000, b"\x0f\xa2")  # cpuid

    def own(leaf: int) -> tuple[int, ...]:
        cpu.reg_write(x86.UC_X86_REG_RAX, leaf)
        cpu.reg_write(x86.UC_X86_REG_RCX, 0)
        cpu.emu_start(0x1000, 0x1002)
        names = (x86.UC_X86_REG_RAX, x86.UC_X86_REG_RBX, x86.UC_X86_REG_RCX, x86.UC_X86_REG_RDX)
        return tuple(cpu.reg_read(name) & 0xFFFFFFFF for name in names)

    not_an_instruction = 1 << 1  # TSC_ADJUST is an MSR
    for announced, able in (
        (cpuid.FEATURES_1_EDX, own(1)[3]),
        (cpuid.FEATURES_1_ECX, own(1)[2]),
        (cpuid.FEATURES_7_EBX & ~not_an_instruction, own(7)[1]),
        (cpuid.FEATURES_80000001_EDX, own(0x80000001)[3]),
        (cpuid.FEATURES_80000001_ECX, own(0x80000001)[2]),
    ):
        assert announced & ~able == 0
