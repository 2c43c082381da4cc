"""The way back: from what a vCPU shows to a template that describes it completely, and from templates to JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from hibana.config.cpu import (
    CpuidLeafModifier,
    CpuidRegisterModifier,
    CustomCpuTemplate,
    MsrModifier,
    RegisterValueFilter,
)
from hibana.engine.state import CpuidEntry

CPUID_BITS: Final = 32
MSR_BITS: Final = 64
_REGISTERS: Final = ("eax", "ebx", "ecx", "edx")

_NOT_DESCRIBED: Final = (
    (0x10, 0x10),  # IA32_TIME_STAMP_COUNTER
    (0xC1, 0xD2),  # IA32_PMC0… and other counters
    (0x17A, 0x17B),  # IA32_MCG_STATUS, IA32_MCG_CTL
    (0x186, 0x197),  # IA32_PERFEVTSEL0… and Pentium 4's
    (0x309, 0x30C),  # fixed performance counters
    (0x38D, 0x390),  # and their control
    (0x480, 0x491),  # VMX capabilities
    (0x4D0, 0x4D0),
    (0x6E0, 0x6E0),  # IA32_TSC_DEADLINE
    (0x40000000, 0x40000118),  # Hyper-V's
    (0xC0010000, 0xC0010007),  # AMD's performance counters, old
    (0xC0010200, 0xC001020C),  # and new
)
"""First and last of the MSRs that change all the time, or say nothing about the CPU (operations.md §4.3)."""


def described_msrs(listed: Sequence[int]) -> list[int]:
    """Choose the MSRs that describe a CPU."""
    return [msr for msr in listed if not any(first <= msr <= last for first, last in _NOT_DESCRIBED)]


def template_of(cpuid: Sequence[CpuidEntry], msrs: Mapping[int, int]) -> CustomCpuTemplate:
    """Write a CPU down as the template that would make it, bit by bit, of any other."""
    return CustomCpuTemplate(
        cpuid_modifiers=[_leaf(entry) for entry in sorted(cpuid)],
        msr_modifiers=[MsrModifier(msr, _every_bit(value, MSR_BITS)) for msr, value in sorted(msrs.items())],
    )


def _leaf(entry: CpuidEntry) -> CpuidLeafModifier:
    registers = [
        CpuidRegisterModifier(name, _every_bit(getattr(entry, name), CPUID_BITS)) for name in _REGISTERS
    ]  # fmt: skip
    return CpuidLeafModifier(entry.function, entry.index, entry.flags, registers)


def _every_bit(value: int, bits: int) -> RegisterValueFilter:
    return RegisterValueFilter((1 << bits) - 1, value)


def bitmap_text(bitmap: RegisterValueFilter, bits: int) -> str:
    """Write a bitmap with a mark for every bit."""
    marks = ("01"[bitmap.value >> bit & 1] if bitmap.filter >> bit & 1 else "x" for bit in reversed(range(bits)))
    return "0b" + "".join(marks)


def json_form(template: CustomCpuTemplate) -> dict[str, Any]:
    """Give what a template looks like in JSON (api.md §3.14)."""
    return {
        "kvm_capabilities": [f"{'' if each.added else '!'}{each.number}" for each in template.kvm_capabilities],
        "cpuid_modifiers": [_json_leaf(leaf) for leaf in template.cpuid_modifiers],
        "msr_modifiers": [
            {"addr": f"{msr.addr:#x}", "bitmap": bitmap_text(msr.bitmap, MSR_BITS)} for msr in template.msr_modifiers
        ],
    }


def _json_leaf(leaf: CpuidLeafModifier) -> dict[str, Any]:
    return {
        "leaf": f"{leaf.leaf:#x}",
        "subleaf": f"{leaf.subleaf:#x}",
        "flags": leaf.flags,
        "modifiers": [
            {"register": each.register, "bitmap": bitmap_text(each.bitmap, CPUID_BITS)} for each in leaf.modifiers
        ],
    }


def pretty(value: object) -> bytes:
    """Write JSON for people."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
