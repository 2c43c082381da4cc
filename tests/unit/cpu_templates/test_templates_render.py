"""From what a vCPU shows to a template, and from templates to JSON and back."""

import json

from hypothesis import given
from hypothesis import strategies as st

from hibana.config.cpu import (
    CpuidLeafModifier,
    CpuidRegisterModifier,
    CustomCpuTemplate,
    KvmCapability,
    MsrModifier,
    RegisterValueFilter,
)
from hibana.cpu_templates.merge import MergedTemplate
from hibana.cpu_templates.render import bitmap_text, described_msrs, json_form, pretty, template_of
from hibana.engine.state import CpuidEntry
from hibana.serde.records import decode

U32 = st.integers(0, 0xFFFFFFFF)
U64 = st.integers(0, (1 << 64) - 1)


def bitmaps(values: st.SearchStrategy[int]) -> st.SearchStrategy[RegisterValueFilter]:
    return st.tuples(values, values).map(lambda pair: RegisterValueFilter(pair[0], pair[0] & pair[1]))


REGISTERS = st.builds(CpuidRegisterModifier, st.sampled_from(["eax", "ebx", "ecx", "edx"]), bitmaps(U32))
TEMPLATES = st.builds(
    CustomCpuTemplate,
    st.lists(st.builds(KvmCapability, U32, st.booleans())),
    st.lists(st.builds(CpuidLeafModifier, U32, U32, U32, st.lists(REGISTERS))),
    st.lists(st.builds(MsrModifier, U32, bitmaps(U64))),
)


@given(TEMPLATES)
def test_a_template_that_is_written_reads_the_same(template: CustomCpuTemplate) -> None:
    assert decode(pretty(json_form(template)), CustomCpuTemplate) == template


def test_json_is_laid_out_for_people() -> None:
    template = CustomCpuTemplate(
        [KvmCapability(171, True), KvmCapability(33, False)],
        [CpuidLeafModifier(0xB, 1, 1, [CpuidRegisterModifier("ebx", RegisterValueFilter(0xFF, 0x21))])],
    )
    assert pretty(json_form(template)).decode() == (
        '{\n  "kvm_capabilities": [\n    "171",\n    "!33"\n  ],\n  "cpuid_modifiers": [\n    {\n'
        '      "leaf": "0xb",\n      "subleaf": "0x1",\n      "flags": 1,\n      "modifiers": [\n        {\n'
        '          "register": "ebx",\n          "bitmap": "0bxxxxxxxxxxxxxxxxxxxxxxxx00100001"\n        }\n'
        '      ]\n    }\n  ],\n  "msr_modifiers": []\n}'
    )


def test_a_bitmap_has_a_mark_for_every_bit() -> None:
    assert bitmap_text(RegisterValueFilter(0b1010, 0b1000), 8) == "0bxxxx1x0x"


@given(st.lists(st.builds(CpuidEntry, U32, U32, U32, U32, U32, U32, U32), unique_by=lambda e: e[:2], max_size=5))
def test_the_template_of_a_cpu_makes_the_same_of_any_other(cpuid: list[CpuidEntry]) -> None:
    msrs = {0x10A: 5, 0x8B: 1 << 63}
    merged = MergedTemplate(template_of(cpuid, msrs))
    other = [entry._replace(flags=0, eax=~entry.eax & 0xFFFFFFFF, ebx=7) for entry in cpuid]
    assert merged.cpuid(other) == cpuid
    assert merged.msrs(lambda wanted: dict.fromkeys(wanted, 0x5555)) == msrs


def test_leaves_and_msrs_are_written_in_ascending_order() -> None:
    template = template_of(
        [CpuidEntry(4, 1, 1, 0, 0, 0, 0), CpuidEntry(0x80000001, 0, 0, 0, 0, 0, 0), CpuidEntry(4, 0, 1, 0, 0, 0, 0)],
        {0xC0000081: 0, 0x1A0: 1},
    )
    form = json_form(template)
    assert [(leaf["leaf"], leaf["subleaf"]) for leaf in form["cpuid_modifiers"]] == [
        ("0x4", "0x0"),
        ("0x4", "0x1"),
        ("0x80000001", "0x0"),
    ]
    assert [msr["addr"] for msr in form["msr_modifiers"]] == ["0x1a0", "0xc0000081"]
    assert json.loads(pretty(form)) == form


def test_what_changes_all_the_time_describes_no_cpu() -> None:
    volatile = [0x10, 0x6E0, 0xC1, 0xD2, 0x186, 0x197, 0x309, 0x30B, 0x30C, 0x38D, 0x390, 0x480, 0x491, 0x17A, 0x17B]
    volatile += [0x4D0, 0x40000000, 0x40000118, 0xC0010000, 0xC0010007, 0xC0010200, 0xC001020C]
    lasting = [0x11, 0xC0, 0xD3, 0x185, 0x198, 0x1A0, 0x10A, 0x3FFFFFFF, 0x40000119, 0xC0010015, 0x4B564D00]
    assert described_msrs([*volatile, *lasting]) == lasting
