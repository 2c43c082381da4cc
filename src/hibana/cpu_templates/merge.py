"""A template applied to what KVM offers: capabilities, CPUID leaves and MSRs (machine.md §3.11)."""

from collections.abc import Callable, Mapping, Sequence

from hibana.config.cpu import CpuidLeafModifier, CustomCpuTemplate
from hibana.engine.state import CpuidEntry
from hibana.errors import GuestConfigError, TemplateCpuidNotSupported, TemplateMsrNotSupported


class MergedTemplate:
    """What an engine asks of a template; fits `engine.interface.CpuTemplate`."""

    def __init__(self, template: CustomCpuTemplate) -> None:
        self._template = template

    def capabilities(self, needed: Sequence[int]) -> list[int]:
        """Give the KVM capabilities to insist on, from those that are needed without a template."""
        wanted = list(needed)
        for capability in self._template.kvm_capabilities:
            if not capability.added:
                wanted = [number for number in wanted if number != capability.number]
            elif capability.number not in wanted:
                wanted.append(capability.number)
        return wanted

    def cpuid(self, supported: Sequence[CpuidEntry]) -> list[CpuidEntry]:
        """Change the leaves that the template names. Raises GuestConfigError if KVM does not offer one of them."""
        leaves = {(entry.function, entry.index): entry for entry in supported}
        for modifier in self._template.cpuid_modifiers:
            key = modifier.leaf, modifier.subleaf
            if key not in leaves:
                raise GuestConfigError(cause=TemplateCpuidNotSupported(leaf=modifier.leaf, subleaf=modifier.subleaf))
            leaves[key] = _changed(leaves[key], modifier)
        return list(leaves.values())

    def msrs(self, read: Callable[[Sequence[int]], Mapping[int, int]]) -> dict[int, int]:
        """Give the MSRs that the template names their new values. `read` gives the values of those that KVM has.

        Raises GuestConfigError if KVM does not have one of them.
        """
        modifiers = self._template.msr_modifiers
        values = dict(read([modifier.addr for modifier in modifiers])) if modifiers else {}
        for modifier in modifiers:
            if modifier.addr not in values:
                raise GuestConfigError(cause=TemplateMsrNotSupported(addr=modifier.addr))
            values[modifier.addr] = modifier.bitmap.apply(values[modifier.addr])
        return values


def _changed(entry: CpuidEntry, modifier: CpuidLeafModifier) -> CpuidEntry:
    """Change a leaf; the template's flags replace KVM's."""
    registers = {name: getattr(entry, name) for name in ("eax", "ebx", "ecx", "edx")}
    for change in modifier.modifiers:
        registers[change.register] = change.bitmap.apply(registers[change.register])
    return entry._replace(flags=modifier.flags, **registers)
