"""The network card (virtio 1.2 §5.1): frames between two queues and a cable.

Here is what card and driver agree on. `frames.py` says what a frame is and where it goes, `net_transmit.py` and
`net_receive.py` are the two directions.
"""

from collections.abc import Sequence
from struct import Struct
from typing import ClassVar, Final

from hibana.devices.rate_limiter import RateLimiter
from hibana.devices.virtio.device import EVENT_IDX, Interrupt, VirtioDevice
from hibana.devices.virtio.frames import Frames
from hibana.devices.virtio.net_receive import Receiver
from hibana.devices.virtio.net_transmit import Transmitter
from hibana.devices.virtio.queue import MAX_SIZE, Queue
from hibana.memory.guest import GuestMemory
from hibana.observe import log
from hibana.observe.metrics_groups import METRICS

RX: Final = 0
TX: Final = 1

# Feature bits (§5.1.3). HOST_* is about frames that the guest sends, GUEST_* about those it receives.
CSUM: Final = 1 << 0
GUEST_CSUM: Final = 1 << 1
MTU: Final = 1 << 3
MAC: Final = 1 << 5
GUEST_TSO4: Final = 1 << 7
GUEST_TSO6: Final = 1 << 8
GUEST_UFO: Final = 1 << 10
HOST_TSO4: Final = 1 << 11
HOST_TSO6: Final = 1 << 12
HOST_UFO: Final = 1 << 14
MRG_RXBUF: Final = 1 << 15

_GUEST_SEGMENTS: Final = GUEST_TSO4 | GUEST_TSO6 | GUEST_UFO
_ALWAYS_OFFERED: Final = EVENT_IDX | MRG_RXBUF | CSUM | GUEST_CSUM | _GUEST_SEGMENTS | HOST_TSO4 | HOST_TSO6 | HOST_UFO

_CONFIG: Final = Struct("<6sHHH")  # mac, status, max_virtqueue_pairs, mtu (§5.1.4)


class Net(VirtioDevice):
    """virtio-net with one pair of queues and no control queue."""

    type_id: ClassVar[int] = 1
    queue_sizes: ClassVar[tuple[int, ...]] = (MAX_SIZE, MAX_SIZE)

    def __init__(
        self,
        iface_id: str,
        frames: Frames,
        mac: bytes | None,
        mtu: int | None,
        rx_limiter: RateLimiter,
        tx_limiter: RateLimiter,
    ) -> None:
        """Make the card `iface_id` at a cable; without a MAC address the driver chooses one."""
        features = _ALWAYS_OFFERED | (MAC if mac else 0) | (MTU if mtu else 0)
        super().__init__(iface_id, features, _CONFIG.pack(mac or bytes(6), 0, 0, mtu or 0))
        self.rx_limiter: Final = rx_limiter
        self.tx_limiter: Final = tx_limiter
        self._frames = frames
        self._metrics = METRICS.net[iface_id]
        self._transmitter = Transmitter(frames, tx_limiter, self._metrics, mac)
        self._receiver = Receiver(frames, rx_limiter, self._metrics, self._frames_arrived)
        self._receive = self.guarded(self._receiver.frames_arrived)
        rx_limiter.on_ready = self.guarded(self._receiver.limiter_ready)
        tx_limiter.on_ready = self.guarded(self._transmitter.limiter_ready)
        self._receiver.turn.on_begin = self.guarded(self._receiver.go_on)
        self._transmitter.turn.on_begin = self.guarded(self._transmitter.go_on)

    def activate(self, memory: GuestMemory, queues: Sequence[Queue], irq: Interrupt, acked: int) -> None:
        """Begin to work. Raises VmmError when the cable cannot do what the driver accepted."""
        super().activate(memory, queues, irq, acked)
        self._frames.set_offload(
            bool(acked & GUEST_CSUM), bool(acked & GUEST_TSO4), bool(acked & GUEST_TSO6), bool(acked & GUEST_UFO)
        )
        self._transmitter.activate(memory, queues[TX], lambda: irq.used(TX))
        self._receiver.activate(
            memory, queues[RX], lambda: irq.used(RX), bool(acked & MRG_RXBUF), bool(acked & _GUEST_SEGMENTS)
        )

    def notify(self, index: int) -> None:
        """Send frames from one queue, or take the room for frames from the other."""
        if index == TX:
            self._transmitter.notify()
        else:
            self._receiver.notify()

    def reset(self) -> bool:
        """Forget the driver."""
        self._receiver.reset()
        return super().reset()

    def count_activation_failure(self) -> None:
        self._metrics.activate_fails += 1

    def count_config_failure(self) -> None:
        self._metrics.cfg_fails += 1

    def count_event_failure(self) -> None:
        self._metrics.event_fails += 1

    def _frames_arrived(self) -> None:
        if self.active:
            self._receive()
        else:  # broken since: nobody takes these frames, and nobody shall be told of them again and again
            log.warn_limited(f"{self.id}: frames arrive at a network card that needs a reset")
            self._receiver.reset()
