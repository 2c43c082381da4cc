"""A network card with everything around it: a driver in front, a cable behind, and a clock."""

from hibana.devices.rate_limiter import Limit, RateLimiter
from hibana.devices.virtio.net import MRG_RXBUF, RX, TX, Net
from hibana.observe.metrics_groups import METRICS
from hibana.testing.fakes import FakeTimers
from hibana.testing.net import FakeTap
from hibana.testing.virtio import Driver

HEADER = bytes(12)
MAC = bytes.fromhex("0600ac100002")
ROOM_FOR_ANY_FRAME = 65562


def ethernet(content: bytes = b"a spark", source: bytes = MAC) -> bytes:
    """Make a frame with its header."""
    return HEADER + b"\xff" * 6 + source + b"\x08\x00" + content


class Card:
    """The card `eth0`, its driver and its cable."""

    def __init__(
        self,
        mac: bytes | None = MAC,
        mtu: int | None = None,
        rx_limit: Limit | None = None,
        tx_limit: Limit | None = None,
        ops: Limit | None = None,
    ) -> None:
        """Make a card that the driver has not found yet; limits are of bytes, `ops` of frames, both ways."""
        METRICS.net.pop("eth0", None)
        self.metrics = METRICS.net["eth0"]
        self.tap = FakeTap()
        self.time = FakeTimers()
        self.driver = Driver()
        rx, tx = (RateLimiter(limit, ops, self.time, self.time.now_ns) for limit in (rx_limit, tx_limit))
        self.net = Net("eth0", self.tap, mac, mtu, rx, tx)

    def start(self, refused: int = 0) -> "Card":
        """Let the driver accept everything but `refused`."""
        self.driver.start(self.net, refused)
        return self

    def offer_room(self, *sizes: int) -> int:
        """Let the driver offer one chain of buffers of these sizes; give its head."""
        return self.driver.offer(*(("w", size) for size in sizes), queue=RX)

    def offer_pages(self, count: int, size: int = 1536) -> list[int]:
        """Let the driver offer chains of one buffer each, and say so."""
        heads = [self.offer_room(size) for _ in range(count)]
        self.driver.kick(RX)
        return heads

    def send(self, *parts: bytes) -> int:
        """Let the driver send a frame in parts; give the chain's head."""
        head = self.driver.offer(*(("r", part) for part in parts), queue=TX)
        self.driver.kick(TX)
        return head

    def received(self) -> list[bytes]:
        """Put together the frames that the driver was told of since the last time, as a driver does (§5.1.6.4)."""
        completions = [each for each in self.driver.completions(RX) if each[1]]  # the others were refused
        frames: list[bytes] = []
        while completions:
            count = 1
            content = self._content(*completions[0])
            if self.net.acked & MRG_RXBUF:
                count = int.from_bytes(content[10:12], "little")
            content += b"".join(self._content(*each) for each in completions[1:count])
            frames.append(content)
            del completions[:count]
        return frames

    def _content(self, head: int, written: int) -> bytes:
        return b"".join(self.driver.written(head, RX))[:written]
