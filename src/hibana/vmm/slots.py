"""Where virtio devices are plugged in: a page of registers, an interrupt line, and a word to the kernel for each.

Addresses and lines are handed out in the order in which devices come (devices.md §2.1), so that order is visible to
the guest. It finds a device twice: on its command line, and in ACPI; a kernel uses the one it was built for.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Final

from hibana.boot.acpi.devices import virtio_mmio
from hibana.boot.cmdline import Cmdline
from hibana.bus.guest_bus import GuestBus
from hibana.bus.irq import IrqLine
from hibana.devices.virtio.device import VirtioDevice
from hibana.devices.virtio.mmio import QUEUE_NOTIFY, MmioTransport
from hibana.engine.interface import Vm
from hibana.errors import (
    AttachDeviceError,
    MmioCmdlineError,
    MmioResourceError,
    MmioTransportError,
    ResourceNotAvailable,
    VmmError,
)
from hibana.memory.allocator import Pools
from hibana.memory.guest import GuestMemory
from hibana.memory.layout import MMIO_SLOT_SIZE


class MmioSlots:
    """The places for devices on the MMIO transport."""

    def __init__(self, bus: GuestBus, vm: Vm, memory: GuestMemory, pools: Pools, cmdline: Cmdline) -> None:
        """Plug into `bus`, with what `pools` has left, and tell `cmdline`."""
        self.acpi_objects: Final[list[bytes]] = []
        """A description of each device, for the DSDT."""
        self.doorbells: Final[dict[int, Callable[[], None]]] = {}
        """Eventfd → what to do, where devices live, when the guest has rung."""
        self._bus = bus
        self._vm = vm
        self._memory = memory
        self._pools = pools
        self._cmdline = cmdline

    def plug(self, device: VirtioDevice) -> None:
        """Give a device the next free page and line. Raises AttachDeviceError."""
        try:
            addr, gsi = self._place()
            transport = MmioTransport(device, self._memory, IrqLine(self._vm.line(gsi)))
            self._bus.mmio.insert(addr, MMIO_SLOT_SIZE, transport)
            self._hang_doorbells(transport, addr, len(device.queue_sizes))
            self._announce(addr, gsi)
        except VmmError as error:
            raise AttachDeviceError(cause=MmioTransportError(cause=error)) from error

    def _place(self) -> tuple[int, int]:
        try:
            gsi = self._pools.gsi.lowest(1)
            return self._pools.mmio32.lowest(MMIO_SLOT_SIZE, MMIO_SLOT_SIZE), gsi
        except ResourceNotAvailable as error:
            raise MmioResourceError(cause=error) from error

    def _hang_doorbells(self, transport: MmioTransport, addr: int, queues: int) -> None:
        """Let notifications come without stopping the guest, where the engine can do that."""
        for queue in range(queues):
            fd = self._vm.doorbell(addr + QUEUE_NOTIFY, queue)
            if fd is not None:
                self.doorbells[fd] = partial(_answer, fd, transport, queue)

    def _announce(self, addr: int, gsi: int) -> None:
        try:
            self._cmdline.append(f"virtio_mmio.device=4K@{addr:#x}:{gsi}")
        except VmmError as error:
            raise MmioCmdlineError(cause=error) from error
        self.acpi_objects.append(virtio_mmio(addr, gsi))


def _answer(fd: int, transport: MmioTransport, queue: int) -> None:
    """Take the notification off the eventfd first: one that comes while the device looks must be seen again."""
    os.eventfd_read(fd)
    transport.write(QUEUE_NOTIFY, 4, queue)
