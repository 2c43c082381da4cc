"""The short ways between devices and guest, on which nobody comes back from KVM_RUN: eventfds that the kernel knows.

An interrupt is a number written to an eventfd (irqfd), a notification is one that the kernel writes when the guest
stores a certain value at a certain address (ioeventfd).
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Final

from hibana.engine.kvm import abi
from hibana.engine.kvm.routing import Routing
from hibana.errors import EngineError, os_text

_DOORBELL_SIZE: Final = 4
_EDGE: Final = 1
_PINS: Final = 24  # of the I/O APIC; lines above them are messages


class Lines:
    """The eventfds of one virtual machine."""

    def __init__(self, vm_fd: int) -> None:
        """Connect lines with the chips of a virtual machine."""
        self.routing: Final = Routing(vm_fd)
        self._vm_fd = vm_fd
        self._eventfds: list[int] = []

    def interrupt(self, gsi: int) -> Callable[[], None]:
        """Connect an interrupt line; call what this gives to pulse it. Raises EngineError."""
        fd = self._eventfd()
        abi.put(self._vm_fd, abi.KVM_IRQFD, abi.IRQFD, fd, gsi, 0, 0)
        if gsi < _PINS:
            self.routing.lines.add(gsi)
        return partial(os.eventfd_write, fd, _EDGE)

    def doorbell(self, addr: int, value: int) -> int:
        """Make an eventfd that 32-bit writes of `value` to `addr` count up. Raises EngineError."""
        fd = self._eventfd()
        flags = abi.KVM_IOEVENTFD_FLAG_DATAMATCH
        abi.put(self._vm_fd, abi.KVM_IOEVENTFD, abi.IOEVENTFD, value, addr, _DOORBELL_SIZE, fd, flags)
        return fd

    def close(self) -> None:
        """Close all eventfds; the kernel forgets them with the virtual machine."""
        for fd in self._eventfds:
            os.close(fd)
        self._eventfds.clear()

    def _eventfd(self) -> int:
        try:
            fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            raise EngineError(cause=f"eventfd: {os_text(error)}") from error
        self._eventfds.append(fd)
        return fd
