"""Where interrupt lines lead: to pins of the I/O APIC, or as messages straight to local APICs (MSI).

The kernel starts with a table in which line n is pin n of the I/O APIC and, up to 15, of the 8259s too. Only when there
are messages it gets a table of ours, which replaces that one as a whole: all connected lines, without the 8259s, and
all messages (machine.md §5.1).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from hibana.engine.kvm import abi


class Message(NamedTuple):
    """What a device writes where to interrupt a CPU (Intel SDM vol. 3, "Message Signalled Interrupts")."""

    addr: int
    value: int


class Routing:
    """The routes of one virtual machine."""

    def __init__(self, vm_fd: int) -> None:
        """Begin with the kernel's own table."""
        self._vm_fd = vm_fd
        self.lines: Final[set[int]] = set()
        """The GSIs that lead to pins of the I/O APIC, each to the one of its number."""

    def set_messages(self, messages: Mapping[int, Message]) -> None:
        """Let each GSI of `messages` send its message, and no others. Raises EngineError."""
        entries = [_pin(gsi) for gsi in sorted(self.lines)] + [_message(gsi, *messages[gsi]) for gsi in messages]
        table = abi.IRQ_ROUTING.pack(len(entries), 0) + b"".join(entries)
        abi.call(self._vm_fd, abi.KVM_SET_GSI_ROUTING, bytearray(table))


def _pin(gsi: int) -> bytes:
    union = (abi.KVM_IRQCHIP_IOAPIC, gsi, 0, 0, 0, 0, 0, 0)
    return abi.IRQ_ROUTING_ENTRY.pack(gsi, abi.KVM_IRQ_ROUTING_IRQCHIP, 0, 0, *union)


def _message(gsi: int, addr: int, value: int) -> bytes:
    union = (addr & 0xFFFFFFFF, addr >> 32, value, 0, 0, 0, 0, 0)
    return abi.IRQ_ROUTING_ENTRY.pack(gsi, abi.KVM_IRQ_ROUTING_MSI, 0, 0, *union)
