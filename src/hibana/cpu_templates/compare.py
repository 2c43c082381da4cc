"""What templates have in common, and whether a CPU is what a template asked for (operations.md §4.3).

Both questions are asked register by register, so a template is here a table: from a register's name to its bitmap.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hibana.config.cpu import (
    CpuidLeafModifier,
    CpuidRegisterModifier,
    CustomCpuTemplate,
    MsrModifier,
    RegisterValueFilter,
)
from hibana.cpu_templates.render import CPUID_BITS, MSR_BITS
from hibana.errors import CpuValueMismatch, NotInCpuConfiguration, StripInputsError


class CpuidRegister(NamedTuple):
    """A register after CPUID."""

    leaf: int
    subleaf: int
    flags: int
    register: str

    def __str__(self) -> str:
        return f"leaf={self.leaf:#x}, subleaf={self.subleaf:#x}, flags={self.flags:#x}, register={self.register}"


class Msr(NamedTuple):
    """A model-specific register."""

    addr: int

    def __str__(self) -> str:
        return f"index={self.addr:#x}"


Register = CpuidRegister | Msr
Table = dict[Register, RegisterValueFilter]


def strip(templates: Sequence[CustomCpuTemplate]) -> list[CustomCpuTemplate]:
    """Leave of each template only what distinguishes it from the others. Raises StripInputsError."""
    if len(templates) < 2:
        raise StripInputsError
    tables = [_table(template) for template in templates]
    everywhere = set(tables[0]).intersection(*tables[1:])
    different = {register: _different_bits([table[register] for table in tables]) for register in everywhere}
    return [_template(_narrowed(table, different)) for table in tables]


def verify(template: CustomCpuTemplate, configuration: CustomCpuTemplate) -> None:
    """Check that a CPU has what a template asks for. Raises NotInCpuConfiguration, CpuValueMismatch."""
    found = _table(configuration)
    for register, wanted in _table(template).items():
        if register not in found:
            raise NotInCpuConfiguration(register=register)
        value = found[register].value & wanted.filter
        if value != wanted.value:
            bits = MSR_BITS if isinstance(register, Msr) else CPUID_BITS
            raise CpuValueMismatch(
                register=register,
                wanted=f"0b{wanted.value:0{bits}b}",
                found=f"0b{value:0{bits}b}",
                marks=f"  {wanted.value ^ value:0{bits}b}".replace("0", " ").replace("1", "^").rstrip(),
            )


def _different_bits(bitmaps: Sequence[RegisterValueFilter]) -> int:
    different = 0
    for bitmap in bitmaps[1:]:
        different |= bitmap.value ^ bitmaps[0].value
    return different


def _narrowed(table: Table, different: dict[Register, int]) -> Table:
    """Keep of each bitmap the bits that are different; what is not in `different` stays as it is."""
    narrowed: Table = {}
    for register, bitmap in table.items():
        kept = bitmap.filter & different.get(register, bitmap.filter)
        if kept:
            narrowed[register] = RegisterValueFilter(kept, bitmap.value & kept)
    return narrowed


def _table(template: CustomCpuTemplate) -> Table:
    table: Table = {}
    for leaf in template.cpuid_modifiers:
        for each in leaf.modifiers:
            table[CpuidRegister(leaf.leaf, leaf.subleaf, leaf.flags, each.register)] = each.bitmap
    for msr in template.msr_modifiers:
        table[Msr(msr.addr)] = msr.bitmap
    return table


def _template(table: Table) -> CustomCpuTemplate:
    template = CustomCpuTemplate()
    leaves: dict[tuple[int, int, int], CpuidLeafModifier] = {}
    for register, bitmap in sorted(table.items(), key=lambda item: tuple(item[0])):
        if isinstance(register, Msr):
            template.msr_modifiers.append(MsrModifier(register.addr, bitmap))
            continue
        leaf = leaves.setdefault(register[:3], CpuidLeafModifier(*register[:3], []))
        leaf.modifiers.append(CpuidRegisterModifier(register.register, bitmap))
    template.cpuid_modifiers.extend(leaves.values())
    return template
