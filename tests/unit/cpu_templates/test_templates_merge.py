"""A CPU template applied to what KVM offers."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.config.cpu import CustomCpuTemplate
from hibana.cpu_templates.merge import MergedTemplate
from hibana.engine.state import CpuidEntry
from hibana.errors import GuestConfigError
from hibana.serde.records import decode

SUPPORTED = [
    CpuidEntry(0x1, 0, 0, 0xF0F0F0F0, 0, 0xFFFFFFFF, 0),
    CpuidEntry(0x4, 0, 1, 1, 2, 3, 4),
    CpuidEntry(0x4, 1, 1, 5, 6, 7, 8),
]
MSRS = {0x10: 1000, 0x10A: 0xFF}


def template(text: bytes) -> MergedTemplate:
    return MergedTemplate(decode(text, CustomCpuTemplate))


def read(wanted: Sequence[int]) -> dict[int, int]:
    return {addr: MSRS[addr] for addr in wanted if addr in MSRS}


def test_bits_are_cleared_set_and_kept() -> None:
    merged = template(b"""{"cpuid_modifiers": [{"leaf": "0x1", "subleaf": "0x0", "flags": 0, "modifiers": [
        {"register": "eax", "bitmap": "0b0000_1111_xxxx_0000"}, {"register": "ecx", "bitmap": "0b0"}]}]}""")
    assert merged.cpuid(SUPPORTED) == [CpuidEntry(0x1, 0, 0, 0xF0F00FF0, 0, 0xFFFFFFFE, 0), *SUPPORTED[1:]]


def test_the_subleaf_and_its_flags_are_the_templates() -> None:
    merged = template(b"""{"cpuid_modifiers": [{"leaf": "0x4", "subleaf": "0b1", "flags": 6, "modifiers": [
        {"register": "edx", "bitmap": "xxx1"}]}]}""")
    assert merged.cpuid(SUPPORTED) == [*SUPPORTED[:2], CpuidEntry(0x4, 1, 6, 5, 6, 7, 9)]


def test_later_modifiers_have_the_last_word() -> None:
    merged = template(b"""{"cpuid_modifiers": [
        {"leaf": "0x4", "subleaf": "0x0", "flags": 1, "modifiers": [{"register": "eax", "bitmap": "11"}]},
        {"leaf": "0x4", "subleaf": "0x0", "flags": 1, "modifiers": [{"register": "eax", "bitmap": "x0"}]}]}""")
    assert merged.cpuid(SUPPORTED)[1].eax == 2


@pytest.mark.parametrize(("leaf", "subleaf"), [(0x1234ABCD, 0), (0x4, 0x1A)])
def test_a_leaf_that_kvm_does_not_offer_cannot_be_changed(leaf: int, subleaf: int) -> None:
    text = f'{{"cpuid_modifiers": [{{"leaf": "{leaf:#x}", "subleaf": "{subleaf:#x}", "flags": 0, "modifiers": []}}]}}'
    with pytest.raises(GuestConfigError) as caught:
        template(text.encode()).cpuid(SUPPORTED)
    assert str(caught.value) == (
        "Failed to create guest config: Template changes a CPUID entry not supported by KVM:"
        f" Leaf: {leaf:x}, Subleaf: {subleaf:x}"
    )


def test_msrs_are_read_and_changed() -> None:
    merged = template(b"""{"msr_modifiers": [{"addr": "0x10a", "bitmap": "1xxxx0000"}]}""")
    assert merged.msrs(read) == {0x10A: 0x1F0}


def test_without_msrs_nobody_is_asked() -> None:
    def nobody(wanted: Sequence[int]) -> dict[int, int]:
        raise AssertionError

    assert MergedTemplate(CustomCpuTemplate()).msrs(nobody) == {}


def test_an_msr_that_kvm_does_not_have_cannot_be_changed() -> None:
    merged = template(b"""{"msr_modifiers": [{"addr": "0x10", "bitmap": "0"}, {"addr": "0xdead", "bitmap": "0"}]}""")
    with pytest.raises(GuestConfigError) as caught:
        merged.msrs(read)
    assert str(caught.value) == (
        "Failed to create guest config: Template changes an MSR entry not supported by KVM: Register Address: dead"
    )


def test_capabilities_are_added_once_and_removed() -> None:
    merged = template(b"""{"kvm_capabilities": ["171", "!4", "3", "!99", "171"]}""")
    assert merged.capabilities([3, 4, 5]) == [3, 5, 171]


def test_a_capability_that_was_added_can_be_removed_again() -> None:
    assert template(b"""{"kvm_capabilities": ["171", "!171"]}""").capabilities([3]) == [3]


@given(st.text("01x", min_size=32, max_size=32), st.integers(0, 0xFFFFFFFF))
def test_each_mark_means_what_it_says(marks: str, old: int) -> None:
    text = f"""{{"cpuid_modifiers": [{{"leaf": "0x9", "subleaf": "0x0", "flags": 0,
        "modifiers": [{{"register": "ebx", "bitmap": "0b{marks}"}}]}}]}}"""
    (changed,) = template(text.encode()).cpuid([CpuidEntry(9, 0, 0, 1, old, 2, 3)])
    expected = "".join(kept if mark == "x" else mark for mark, kept in zip(marks, f"{old:032b}", strict=True))
    assert changed == CpuidEntry(9, 0, 0, 1, int(expected, 2), 2, 3)
