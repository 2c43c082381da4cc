"""General and system registers of a vCPU, from the kernel's records to `engine/state.py` and back."""

from typing import Any, Final

from msgspec.structs import astuple, replace

from hibana.engine.kvm import abi
from hibana.engine.state import DescriptorTable, Regs, Segment, Sregs

_SEGMENT_FIELDS: Final = 12
_EFER_LMA: Final = 1 << 10
_SEGMENTS_END: Final = 8 * _SEGMENT_FIELDS


def get_regs(fd: int) -> Regs:
    """Export the general registers. Raises EngineError."""
    return Regs(*abi.get(fd, abi.KVM_GET_REGS, abi.REGS))


def put_regs(fd: int, regs: Regs) -> None:
    """Replace them. Raises EngineError."""
    abi.put(fd, abi.KVM_SET_REGS, abi.REGS, *astuple(regs))


def get_sregs(fd: int) -> Sregs:
    """Export segment, control and system registers. Raises EngineError."""
    fields = abi.get(fd, abi.KVM_GET_SREGS, abi.SREGS)
    parts: list[Any] = [
        *(Segment(*fields[at : at + _SEGMENT_FIELDS]) for at in range(0, _SEGMENTS_END, _SEGMENT_FIELDS)),
        *(DescriptorTable(*fields[at : at + 2]) for at in (_SEGMENTS_END, _SEGMENTS_END + 2)),
        *fields[_SEGMENTS_END + 4 :],
    ]
    return Sregs(*parts)


def put_sregs(fd: int, sregs: Sregs) -> None:
    """Replace them; no interrupt is in flight afterwards, because that is one of the events. Raises EngineError."""
    if sregs.cs.l and not sregs.efer & _EFER_LMA:
        # CPUs ignore the bit outside long mode, so a guest may have it there; the kernel refuses it.
        sregs = replace(sregs, cs=replace(sregs.cs, l=0))
    fields: list[int] = []
    for part in astuple(sregs):
        fields.extend((part,) if isinstance(part, int) else astuple(part))
    abi.put(fd, abi.KVM_SET_SREGS, abi.SREGS, *fields)
