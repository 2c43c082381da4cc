"""The machine itself: vCPUs, memory, pages (api.md §3.4)."""

from typing import Final, Literal

from msgspec import UNSET, UnsetType

from hibana.errors import InvalidMemorySize, InvalidVcpuCount
from hibana.serde.shapes import U8, Strict, Usize

StaticCpuTemplate = Literal["C3", "T2", "T2S", "None", "T2CL", "T2A"]
HugePages = Literal["None", "Transparent", "2M"]

MAX_VCPUS: Final = 32


class MachineConfig(Strict, kw_only=True):
    """The whole configuration. `cpu_template` is UNSET where there is no static template, and is then not shown."""

    vcpu_count: U8
    mem_size_mib: Usize
    smt: bool = False
    cpu_template: StaticCpuTemplate | UnsetType | None = UNSET
    track_dirty_pages: bool = False
    huge_pages: HugePages = "None"


class MachineConfigUpdate(Strict):
    """A change: what is None stays as it is."""

    vcpu_count: U8 | None = None
    mem_size_mib: Usize | None = None
    smt: bool | None = None
    cpu_template: StaticCpuTemplate | None = None
    track_dirty_pages: bool | None = None
    huge_pages: HugePages | None = None


DEFAULT: Final = MachineConfig(vcpu_count=1, mem_size_mib=128)


def updated(machine: MachineConfig, change: MachineConfigUpdate) -> MachineConfig:
    """Apply a change, all of it or nothing. Raises what `check` raises."""
    template = machine.cpu_template
    if change.cpu_template is not None:
        template = UNSET if change.cpu_template == "None" else change.cpu_template
    result = MachineConfig(
        vcpu_count=machine.vcpu_count if change.vcpu_count is None else change.vcpu_count,
        mem_size_mib=machine.mem_size_mib if change.mem_size_mib is None else change.mem_size_mib,
        smt=machine.smt if change.smt is None else change.smt,
        cpu_template=template,
        track_dirty_pages=machine.track_dirty_pages if change.track_dirty_pages is None else change.track_dirty_pages,
        huge_pages=machine.huge_pages if change.huge_pages is None else change.huge_pages,
    )
    check(result)
    return result


def as_update(machine: MachineConfig) -> MachineConfigUpdate:
    """Read a whole configuration as a change of everything, except that an absent CPU template stays."""
    return MachineConfigUpdate(
        vcpu_count=machine.vcpu_count,
        mem_size_mib=machine.mem_size_mib,
        smt=machine.smt,
        cpu_template=machine.cpu_template or None,
        track_dirty_pages=machine.track_dirty_pages,
        huge_pages=machine.huge_pages,
    )


def check(machine: MachineConfig) -> None:
    """Check vCPUs, then memory. Raises InvalidVcpuCount, InvalidMemorySize."""
    count = machine.vcpu_count
    if not 1 <= count <= MAX_VCPUS or (machine.smt and count > 1 and count % 2):
        raise InvalidVcpuCount
    granularity = 1 if machine.huge_pages == "None" else 2
    if machine.mem_size_mib == 0 or machine.mem_size_mib % granularity:
        raise InvalidMemorySize
