"""The test plays the CPU: IN, OUT and accesses outside RAM."""

from collections.abc import Callable

import pytest

from hibana.bus.guest_bus import GuestBus
from hibana.engine.interface import Bus
from hibana.observe.metrics_groups import METRICS


class Notebook:
    """A device that answers with its offset and writes everything down."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, int, int]] = []

    def read(self, offset: int, size: int) -> int:
        return 0x100 * size + offset

    def write(self, offset: int, size: int, value: int) -> None:
        self.writes.append((offset, size, value))


def test_ports_and_memory_are_two_worlds() -> None:
    bus = GuestBus()
    port_device, mmio_device = Notebook(), Notebook()
    bus.ports.insert(0x60, 5, port_device)
    bus.mmio.insert(0x60, 5, mmio_device)
    engine_side: Bus = bus

    engine_side.port_write(0x64, 1, 0xFE)
    engine_side.mmio_write(0x61, 4, 0xABCD)

    assert port_device.writes == [(4, 1, 0xFE)]
    assert mmio_device.writes == [(1, 4, 0xABCD)]


def test_a_device_sees_offsets_and_sizes_the_first_time_and_ever_after() -> None:
    bus = GuestBus()
    bus.ports.insert(0x3F8, 8, Notebook())
    bus.mmio.insert(0xC0001000, 0x1000, Notebook())
    for _ in range(2):
        assert bus.port_read(0x3FD, 1) == 0x105
        assert bus.mmio_read(0xC0001050, 4) == 0x450


def test_an_access_may_run_past_the_end_of_its_device() -> None:
    bus = GuestBus()
    first, second = Notebook(), Notebook()
    bus.mmio.insert(0xC0001000, 0x1000, first)
    bus.mmio.insert(0xC0002000, 0x1000, second)
    bus.mmio_write(0xC0001FFE, 8, 1)
    assert first.writes == [(0xFFE, 8, 1)]
    assert second.writes == []


def test_where_nobody_lives_reads_give_zero_and_writes_vanish_and_both_are_warned_about(
    capfd: pytest.CaptureFixture[str],
) -> None:
    bus = GuestBus()
    assert bus.port_read(0x70, 1) == 0
    assert bus.mmio_read(0xD0000000, 8) == 0
    bus.port_write(0xE9, 2, 0x41)
    bus.mmio_write(0xD0000004, 4, 1)
    texts = [line.partition("] ")[2] for line in capfd.readouterr().out.splitlines()]
    assert texts == [
        "vcpu: IO read @ 0x70:0x1 failed: Failed to find address range.",
        "Invalid MMIO read @ 0xd0000000:0x8: Failed to find address range.",
        "vcpu: IO write @ 0xe9:0x2 failed: Failed to find address range.",
        "Invalid MMIO read @ 0xd0000004:0x4: Failed to find address range.",
    ]


def test_a_guest_cannot_flood_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    bus = GuestBus()
    for port in range(0x1000):
        bus.port_read(port, 1)
    assert len(capfd.readouterr().out.splitlines()) < 100


@pytest.mark.parametrize(
    ("metric", "access"),
    [
        ("exit_io_in", lambda bus: bus.port_read(0x3F8, 1)),
        ("exit_io_out", lambda bus: bus.port_write(0x3F8, 1, 0)),
        ("exit_mmio_read", lambda bus: bus.mmio_read(0xC0000000, 1)),
        ("exit_mmio_write", lambda bus: bus.mmio_write(0xC0000000, 1, 0)),
    ],
)
def test_every_access_is_counted_whether_somebody_answers_or_not(
    metric: str, access: Callable[[GuestBus], object]
) -> None:
    empty, inhabited = GuestBus(), GuestBus()
    inhabited.ports.insert(0x3F8, 8, Notebook())
    inhabited.mmio.insert(0xC0000000, 0x1000, Notebook())
    before = getattr(METRICS.vcpu, metric)
    for bus in (empty, inhabited, inhabited):
        access(bus)
    assert getattr(METRICS.vcpu, metric) == before + 3
