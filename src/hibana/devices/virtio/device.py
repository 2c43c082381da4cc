"""What a virtio device is, whatever transport it hangs on (virtio 1.2 §2).

    created ── activate ──► active ── a fault of the guest ──► broken
       ▲                      │                                   │
       └───────── reset ──────┴──────────────── reset ────────────┘

Created: offered features and configuration are known, the host ends are open, nothing of the guest is. Active: the
driver has set up all queues and said DRIVER_OK; `memory`, `queues`, `irq` and `acked` arrive together, so a device
cannot be half connected. Broken: the driver broke a rule, and the device does nothing until it is reset.

A transport calls on the thread where devices live, and so must everybody else (`bus/home.py`). A device raises
GuestFault out of `notify`, and out of what it has wrapped with `guarded`; the transport catches it.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Final, Protocol

from hibana.devices.virtio.queue import Queue
from hibana.errors import GuestFault
from hibana.memory.guest import GuestMemory
from hibana.observe import log

EVENT_IDX: Final = 1 << 29
VERSION_1: Final = 1 << 32


class Interrupt(Protocol):
    """How a device reaches its driver; each transport has its own way."""

    def used(self, queue: int) -> None:
        """Tell the driver that there are answers in a queue."""

    def config(self) -> None:
        """Tell the driver that the configuration has changed."""

    def needs_reset(self, fault: GuestFault) -> None:
        """Give up on the driver: set DEVICE_NEEDS_RESET and tell it, say why in the log (§2.1.1)."""


class VirtioDevice:
    """The device's side of a transport: the base of every virtio device."""

    type_id: ClassVar[int]
    """Which device it is (§5)."""
    queue_sizes: ClassVar[tuple[int, ...]]

    memory: GuestMemory
    queues: Sequence[Queue]
    irq: Interrupt

    def __init__(self, device_id: str, features: int = 0, config: bytes = b"") -> None:
        """Offer VERSION_1 and `features`; `config` is the device's configuration structure."""
        self.id = device_id
        self.features: Final = VERSION_1 | features
        self.config = config
        self.acked = 0
        """The features that the driver accepted."""
        self.active = False
        """Whether the queues may be used: from activation to reset, or to the first fault of the guest."""

    def activate(self, memory: GuestMemory, queues: Sequence[Queue], irq: Interrupt, acked: int) -> None:
        """Begin to work: the queues are checked and active. Raises GuestFault, or VmmError if a host end refuses.

        A device that has more to do calls this first.
        """
        self.memory = memory
        self.queues = queues
        self.irq = irq
        self.acked = acked
        self.active = True

    def notify(self, index: int) -> None:
        """Look into a queue: there may be chains. Only called while active. Raises GuestFault."""
        raise NotImplementedError

    def reset(self) -> bool:
        """Forget the driver and everything taken from its queues; False if the device cannot.

        Called in any state. A device that holds more than this drops it first.
        """
        self.active = False
        self.acked = 0
        self.queues = ()
        return True

    def read_config(self, offset: int, size: int) -> int:
        """Answer a read of the configuration structure; beyond its end there are zeros."""
        return int.from_bytes(self.config[offset : offset + size], "little")

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Take a write to the configuration structure: there is nothing in it that a driver could write."""
        self.count_config_failure()
        log.warn_limited(f"{self.id}: the driver wrote {size} bytes to offset {offset:#x} of a read-only configuration")

    def count_activation_failure(self) -> None:
        """Count an activation that failed, in the device's own metrics."""

    def count_config_failure(self) -> None:
        """Count a refused write to the configuration structure."""

    def count_event_failure(self) -> None:
        """Count a fault of the guest."""

    def guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        """Wrap work that something outside starts (a tap, a timer), as a transport wraps `notify`.

        Nothing happens while the device is not active; a GuestFault ends in DEVICE_NEEDS_RESET.
        """

        def guarded_work() -> None:
            if self.active:
                try:
                    work()
                except GuestFault as fault:
                    self.irq.needs_reset(fault)

        return guarded_work
