"""What templates have in common, and whether a CPU has what a template asks for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.config.cpu import CustomCpuTemplate
from hibana.cpu_templates.compare import strip, verify
from hibana.cpu_templates.merge import MergedTemplate
from hibana.cpu_templates.render import json_form, pretty, template_of
from hibana.engine.state import CpuidEntry
from hibana.errors import CpuValueMismatch, NotInCpuConfiguration, StripInputsError
from hibana.serde.records import decode

U32 = st.integers(0, 0xFFFFFFFF)
CPUS = st.dictionaries(
    st.tuples(st.integers(0, 2), st.integers(0, 1)), st.tuples(*[st.integers(0, 7)] * 4), max_size=6
).map(lambda leaves: [CpuidEntry(*key, 0, *registers) for key, registers in leaves.items()])


def template(*registers: tuple[str, str], msrs: dict[str, str] | None = None) -> CustomCpuTemplate:
    """Write down a template of leaf 1."""
    modifiers = [{"register": register, "bitmap": bitmap} for register, bitmap in registers]
    leaf = {"leaf": "0x1", "subleaf": "0x0", "flags": 0, "modifiers": modifiers}
    form: dict[str, Any] = {
        "cpuid_modifiers": [leaf] if modifiers else [],
        "msr_modifiers": [{"addr": addr, "bitmap": bitmap} for addr, bitmap in (msrs or {}).items()],
    }
    return decode(pretty(form), CustomCpuTemplate)


def test_what_is_the_same_everywhere_is_removed() -> None:
    first = template(("eax", "0101"), ("ebx", "11"), msrs={"0x10": "1", "0x11": "0"})
    second = template(("eax", "0101"), ("ebx", "10"), msrs={"0x10": "1", "0x11": "1"})
    assert strip([first, second]) == [
        template(("ebx", "x1"), msrs={"0x11": "0"}),
        template(("ebx", "x0"), msrs={"0x11": "1"}),
    ]


def test_what_not_all_have_stays_as_it_is() -> None:
    first, second = template(("eax", "01"), ("edx", "11")), template(("eax", "01"))
    assert strip([first, second]) == [template(("edx", "11")), template()]


def test_what_forces_no_bit_any_more_is_removed() -> None:
    assert strip([template(("eax", "1x1")), template(("eax", "x11"))]) == [
        template(("eax", "1xx")),
        template(("eax", "x1x")),
    ]
    assert strip([template(("eax", "xx")), template(("eax", "1x"))]) == [template(), template(("eax", "1x"))]


def test_bits_in_which_any_two_differ_stay_in_all() -> None:
    texts = ["1100", "1101", "1001"]
    assert strip([template(("ecx", text)) for text in texts]) == [
        template(("ecx", "x1x0")),
        template(("ecx", "x1x1")),
        template(("ecx", "x0x1")),
    ]


def test_flags_tell_leaves_apart() -> None:
    other = decode(pretty(json_form(template(("eax", "1")))).replace(b'"flags": 0', b'"flags": 1'), CustomCpuTemplate)
    assert strip([template(("eax", "1")), other]) == [template(("eax", "1")), other]


def test_one_alone_has_nothing_to_be_compared_with() -> None:
    for few in ([], [template(("eax", "1"))]):
        with pytest.raises(StripInputsError, match=r"^The number of inputs should be two or more\.$"):
            strip(few)


@given(CPUS, CPUS)
def test_the_rest_is_enough_to_tell_the_cpus_apart(first: list[CpuidEntry], second: list[CpuidEntry]) -> None:
    stripped, other = strip([template_of(first, {}), template_of(second, {})])
    assert (stripped == CustomCpuTemplate() == other) == (sorted(first) == sorted(second))
    if {entry[:2] for entry in first} == {entry[:2] for entry in second}:
        assert sorted(MergedTemplate(stripped).cpuid(second)) == sorted(first)


@given(CPUS)
def test_a_cpu_is_what_its_own_template_asks_for(cpu: list[CpuidEntry]) -> None:
    verify(template_of(cpu, {0x1: 5}), template_of(cpu, {0x1: 5, 0x2: 6}))


def test_bits_that_a_template_keeps_may_be_anything() -> None:
    found = template_of([CpuidEntry(1, 0, 0, 0xDEADBEEF, 0, 0, 0)], {})
    verify(template(("eax", "0bx1x1x1111")), found)
    verify(template(), found)


def test_a_wrong_bit_is_pointed_at() -> None:
    found = template_of([CpuidEntry(1, 0, 0, 0b0110_1001, 0, 0, 0)], {})
    with pytest.raises(CpuValueMismatch) as caught:
        verify(template(("eax", "0000_xxx1_0000")), found)
    assert str(caught.value) == (
        "Value for leaf=0x1, subleaf=0x0, flags=0x0, register=eax mismatched.\n"
        "* CPU template     : 0b00000000000000000000000000010000\n"
        "* CPU configuration: 0b00000000000000000000000000001001\n"
        "* Diff             :                              ^^  ^"
    )


def test_an_msr_has_64_bits() -> None:
    with pytest.raises(CpuValueMismatch) as caught:
        verify(template(msrs={"0x10a": "1" + "x" * 63}), template_of([], {0x10A: 1}))
    assert str(caught.value) == (
        "Value for index=0x10a mismatched.\n"
        f"* CPU template     : 0b1{'0' * 63}\n* CPU configuration: 0b{'0' * 64}\n* Diff             :   ^"
    )


def test_what_the_cpu_does_not_have_is_named() -> None:
    with pytest.raises(NotInCpuConfiguration) as caught:
        verify(template(("edx", "1")), template_of([CpuidEntry(2, 0, 0, 0, 0, 0, 0)], {}))
    assert str(caught.value) == (
        "leaf=0x1, subleaf=0x0, flags=0x0, register=edx not found in CPU configuration."
    )  # fmt: skip
    with pytest.raises(NotInCpuConfiguration, match=r"^index=0x8b not found in CPU configuration\.$"):
        verify(template(msrs={"0x8b": "1"}), template_of([], {}))
