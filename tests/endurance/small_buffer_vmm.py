"""The VMM with a translation buffer of 16 MiB: all translations go at once, several times in a boot."""

from typing import Final

from hibana.cli.firecracker import entry
from hibana.engine.interface import PLAIN, Bus, CpuModel
from hibana.engine.soft.engine import SoftEngine
from hibana.engine.soft.vm import SoftVm
from hibana.memory.guest import GuestMemory
from hibana.units import MIB
from tests.fuzz import small_buffer

_SIZE: Final = 16 * MIB


class _SmallBuffer(SoftEngine):
    def create_vm(self, memory: GuestMemory, vcpu_count: int, bus: Bus, model: CpuModel = PLAIN) -> SoftVm:
        small_buffer.use(_SIZE)  # not before the VMM has dealt with signals: the library's loading is followed by one
        return super().create_vm(memory, vcpu_count, bus, model)


if __name__ == "__main__":
    from hibana.engine.soft import engine

    setattr(engine, "SoftEngine", _SmallBuffer)  # noqa: B010 - for the type checker it is no variable
    entry()
