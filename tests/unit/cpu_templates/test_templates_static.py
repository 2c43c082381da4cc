"""The templates that have names: what they say, and on which CPUs."""

from typing import get_args

import pytest

from hibana.config.cpu import CustomCpuTemplate
from hibana.config.machine import StaticCpuTemplate
from hibana.cpu_templates.static import NAMES, HostCpu, permitted_template, static_template
from hibana.errors import CpuTemplateError
from hibana.observe import log

INTEL, AMD = b"GenuineIntel", b"AuthenticAMD"
SKYLAKE, CASCADE_LAKE, ICE_LAKE, SAPPHIRE_RAPIDS = 0x50654, 0x50657, 0x606A6, 0x806F8
ROME, MILAN = 0x830F10, 0xA00F11

MISMATCH = "Failed to get CPU template: CPU vendor mismatched between actual CPU and CPU template."
NOT_PERMITTED = (
    "Failed to get CPU template: The current CPU model is not permitted to apply the CPU template."
)  # fmt: skip

# machine.md §3.10: template → (leaf, subleaf, register) → bits cleared, bits set; `T2` is what the others start from.
SIGNATURE_BITS = "27:16,13:0"
T2 = {
    (0x1, 0, "ecx"): ("18,15:14,11:10,8:2", ""),
    (0x1, 0, "edx"): ("31:29,27,22:21,18", "12,7"),
    (0x7, 0, "ebx"): ("31:21,19:14,12:11,4,2", "9"),
    (0x7, 0, "ecx"): ("30,22,16,14,12:8,6,4:1", ""),
    (0x7, 0, "edx"): ("8,4:2", ""),
    (0xD, 0, "eax"): ("9,7:3", ""),
    (0xD, 1, "eax"): ("3:1", ""),
    (0x80000001, 0, "ecx"): ("29,8", ""),
    (0x80000001, 0, "edx"): ("26", ""),
    (0x80000008, 0, "ebx"): ("9", ""),
}
DIFFERENCES: dict[str, dict[tuple[int, int, str], tuple[str, str]]] = {
    "T2": {},
    "T2S": {},
    "T2CL": {(0x80000001, 0, "ecx"): ("29,8:6", ""), (0x80000001, 0, "edx"): ("26:22", "")},
    "T2A": {
        (0x80000001, 0, "ecx"): ("29,8:6,2", ""),
        (0x80000001, 0, "edx"): ("26:25,22", ""),
        (0x80000008, 0, "ebx"): ("9,0", "20:18,2"),
    },
    "C3": {
        (0x1, 0, "ecx"): ("22,15:14,12:10,8,5:2", ""),
        (0x1, 0, "edx"): ("31,29,27,22:21,18", "12,7"),
        (0x7, 0, "ebx"): ("31:23,21,19:14,12:10,8,5:2", ""),
        (0x7, 0, "ecx"): ("30,22,16,14,11,4:1", ""),
        (0x7, 0, "edx"): ("3:2", ""),
        (0x80000001, 0, "ecx"): ("8,5", ""),
        (0x80000008, 0, "ebx"): ("", ""),
    },
}
SIGNATURES = {"C3": 0x306E4}
MSRS = {"T2S": {0x10A: ((1 << 64) - 1, 0xC0A0C4C)}, "T2CL": {0x10A: (0xFFFFFFFFE2F51E00, 0)}}


def mask(bits: str) -> int:
    value = 0
    for part in filter(None, bits.split(",")):
        high, _, low = part.partition(":")
        value |= (1 << int(high) + 1) - (1 << int(low or high))
    return value


@pytest.mark.parametrize("name", NAMES)
def test_a_template_says_what_the_table_says(name: str) -> None:
    template = static_template(name)
    said = {
        (leaf.leaf, leaf.subleaf, each.register): tuple(each.bitmap)
        for leaf in template.cpuid_modifiers
        for each in leaf.modifiers
    }
    signature = SIGNATURES.get(name, 0x306F2)
    expected = {(0x1, 0, "eax"): (mask(SIGNATURE_BITS), signature)}
    for key, (clear, ones) in (T2 | DIFFERENCES[name]).items():
        if clear or ones:
            expected[key] = (mask(clear) | mask(ones), mask(ones))
    assert said == expected
    assert {msr.addr: tuple(msr.bitmap) for msr in template.msr_modifiers} == MSRS.get(name, {})
    assert template.kvm_capabilities == []


@pytest.mark.parametrize("name", NAMES)
def test_leaves_with_subleaves_are_marked_as_such(name: str) -> None:
    for leaf in static_template(name).cpuid_modifiers:
        assert leaf.flags == (1 if leaf.leaf in (0x7, 0xD) else 0)


def test_every_name_that_the_api_knows_has_a_template() -> None:
    assert {*NAMES, "None"} == set(get_args(StaticCpuTemplate))


@pytest.mark.parametrize(
    ("name", "permitted"),
    [
        ("C3", {SKYLAKE, CASCADE_LAKE, ICE_LAKE}),
        ("T2", {SKYLAKE, CASCADE_LAKE, ICE_LAKE}),
        ("T2S", {SKYLAKE, CASCADE_LAKE}),
        ("T2CL", {CASCADE_LAKE, ICE_LAKE}),
    ],
)
def test_intel_templates_are_for_certain_intel_cpus(name: str, permitted: set[int]) -> None:
    for signature in (SKYLAKE, CASCADE_LAKE, ICE_LAKE, SAPPHIRE_RAPIDS):
        answer = outcome(name, HostCpu(INTEL, signature))
        assert answer == (static_template(name) if signature in permitted else NOT_PERMITTED)
    assert outcome(name, HostCpu(AMD, MILAN)) == MISMATCH
    assert outcome(name, HostCpu(AMD, SKYLAKE)) == MISMATCH


def test_the_amd_template_is_for_milan() -> None:
    assert outcome("T2A", HostCpu(AMD, MILAN)) == static_template("T2A")
    assert outcome("T2A", HostCpu(AMD, ROME)) == NOT_PERMITTED
    assert outcome("T2A", HostCpu(INTEL, MILAN)) == MISMATCH


def test_only_family_model_and_stepping_count() -> None:
    assert outcome("T2", HostCpu(INTEL, SKYLAKE | 0xF000F000)) == static_template("T2")
    assert outcome("T2", HostCpu(INTEL, SKYLAKE + 1)) == NOT_PERMITTED


def test_c3_on_skylake_comes_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(log, "warn", said.append)
    permitted_template("C3", HostCpu(INTEL, ICE_LAKE))
    assert said == []
    permitted_template("C3", HostCpu(INTEL, SKYLAKE))
    assert len(said) == 1
    assert "MMIO stale data" in said[0]


def outcome(name: str, host: HostCpu) -> CustomCpuTemplate | str:
    try:
        return permitted_template(name, host)
    except CpuTemplateError as error:
        return str(error)
