"""What a device or an engine talks to, without the machine around it."""

from collections.abc import Callable, Mapping

from hibana.bus.irq import IrqLine


class FakeIrq(IrqLine):
    """An interrupt line that only counts its pulses."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0
        super().__init__(self._count)

    def _count(self) -> None:
        self.count += 1


class FakeClock:
    """A clock in seconds that moves only when told; call it to read it."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def __call__(self) -> float:
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._seconds += seconds


class FakeTimers:
    """Nanoseconds that pass only when told, and calls in the future (fulfils `rate_limiter.Timers` and its clock)."""

    def __init__(self) -> None:
        self._now_ns = 0
        self._waiting: list[tuple[int, Callable[[], None]]] = []

    def now_ns(self) -> int:
        """Read the clock."""
        return self._now_ns

    def after(self, seconds: float, handler: Callable[[], None]) -> None:
        """Call `handler` when `advance` has passed that moment."""
        self._waiting.append((self._now_ns + round(seconds * 1e9), handler))

    def advance(self, seconds: float) -> None:
        """Let time pass, and make the calls that are due, in the order of their moments."""
        end = self._now_ns + round(seconds * 1e9)
        while due := [entry for entry in self._waiting if entry[0] <= end]:
            entry = min(due, key=lambda each: each[0])
            self._waiting.remove(entry)
            self._now_ns = entry[0]
            entry[1]()
        self._now_ns = end

    def delays(self) -> list[float]:
        """List in how many seconds the calls that wait are due."""
        return sorted((moment - self._now_ns) / 1e9 for moment, _ in self._waiting)


class ListSink:
    """A console that remembers what was written, and loses bytes while `full` (fulfils `uart16550.Sink`)."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.full = False

    def write(self, content: bytes) -> int:
        """Take bytes."""
        if self.full:
            return 0
        self.content += content
        return len(content)


class RecordingBus:
    """A bus that writes down every access as (kind, address, size[, value]), kind being "port" or "mmio".

    Fulfils `engine.interface.Bus`. Reads are answered from `answers`, by (kind, address); everything else reads 0.
    """

    def __init__(self, answers: Mapping[tuple[str, int], int] | None = None) -> None:
        self.reads: list[tuple[str, int, int]] = []
        self.writes: list[tuple[str, int, int, int]] = []
        self._answers = answers or {}

    def port_read(self, port: int, size: int) -> int:
        """Record an IN instruction."""
        return self._read("port", port, size)

    def port_write(self, port: int, size: int, value: int) -> None:
        """Record an OUT instruction."""
        self.writes.append(("port", port, size, value))

    def mmio_read(self, addr: int, size: int) -> int:
        """Record a read of memory that is not RAM."""
        return self._read("mmio", addr, size)

    def mmio_write(self, addr: int, size: int, value: int) -> None:
        """Record a write to memory that is not RAM."""
        self.writes.append(("mmio", addr, size, value))

    def _read(self, kind: str, addr: int, size: int) -> int:
        self.reads.append((kind, addr, size))
        return self._answers.get((kind, addr), 0) & ((1 << 8 * size) - 1)
