"""The chips that the kernel keeps for a virtual machine: both 8259A, I/O APIC, 8254 and the guest's clock.

The order out and in is the reference's (machine.md §4.8): the timer, the clock, then the interrupt controllers.
"""

from struct import Struct
from typing import Final

from msgspec.structs import astuple

from hibana.engine.kvm import abi
from hibana.engine.state import IoapicState, PicState, PitChannelState, PitState, VmState

_IOAPIC_ADDR: Final = 0xFEC00000
_CHANNEL_FIELDS: Final = 13
_SPEAKER_ON: Final = 2  # port 0x61


def save(vm_fd: int) -> VmState:
    """Export the state of all chips. Raises EngineError."""
    pit = _save_pit(vm_fd)
    clock_ns = abi.get(vm_fd, abi.KVM_GET_CLOCK, abi.CLOCK_DATA)[0]
    master = PicState(*_get_chip(vm_fd, abi.KVM_IRQCHIP_PIC_MASTER, abi.PIC_STATE))
    slave = PicState(*_get_chip(vm_fd, abi.KVM_IRQCHIP_PIC_SLAVE, abi.PIC_STATE))
    _, ioregsel, number, irr, _, *redirtbl = _get_chip(vm_fd, abi.KVM_IRQCHIP_IOAPIC, abi.IOAPIC_STATE)
    return VmState(IoapicState(number, ioregsel, irr, redirtbl), master, slave, pit, clock_ns)


def load(vm_fd: int, state: VmState) -> None:
    """Replace the state of all chips. Raises EngineError."""
    _load_pit(vm_fd, state.pit)
    if state.clock_ns:
        abi.put(vm_fd, abi.KVM_SET_CLOCK, abi.CLOCK_DATA, state.clock_ns, 0, 0, 0)
    _put_chip(vm_fd, abi.KVM_IRQCHIP_PIC_MASTER, abi.PIC_STATE.pack(*astuple(state.pic_master)))
    _put_chip(vm_fd, abi.KVM_IRQCHIP_PIC_SLAVE, abi.PIC_STATE.pack(*astuple(state.pic_slave)))
    ioapic = state.ioapic
    fields = (_IOAPIC_ADDR, ioapic.ioregsel, ioapic.id, ioapic.irr, 0, *ioapic.redirtbl)
    _put_chip(vm_fd, abi.KVM_IRQCHIP_IOAPIC, abi.IOAPIC_STATE.pack(*fields))


def _save_pit(vm_fd: int) -> PitState:
    *fields, flags = abi.get(vm_fd, abi.KVM_GET_PIT2, abi.PIT_STATE2)
    channels = [PitChannelState(*fields[at : at + _CHANNEL_FIELDS]) for at in range(0, len(fields), _CHANNEL_FIELDS)]
    return PitState(channels, _SPEAKER_ON if flags & abi.KVM_PIT_FLAGS_SPEAKER_DATA_ON else 0)


def _load_pit(vm_fd: int, pit: PitState) -> None:
    fields = [field for channel in pit.channels for field in astuple(channel)]
    flags = abi.KVM_PIT_FLAGS_SPEAKER_DATA_ON if pit.speaker else 0
    abi.put(vm_fd, abi.KVM_SET_PIT2, abi.PIT_STATE2, *fields, flags)


def _get_chip(vm_fd: int, number: int, record: Struct) -> tuple[int, ...]:
    buffer = bytearray(abi.IRQCHIP.pack(number, 0, b""))
    abi.call(vm_fd, abi.KVM_GET_IRQCHIP, buffer)
    return record.unpack_from(buffer, 8)


def _put_chip(vm_fd: int, number: int, content: bytes) -> None:
    abi.put(vm_fd, abi.KVM_SET_IRQCHIP, abi.IRQCHIP, number, 0, content)
