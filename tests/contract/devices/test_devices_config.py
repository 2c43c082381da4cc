"""The configuration structure of every device, read and written in every way."""

from hibana.devices.virtio import mmio
from hibana.units import PAGE
from tests.contract.devices.devices import Case
from tests.contract.devices.guest import Guest

CONFIG_SIZE = PAGE - mmio.CONFIG


def test_it_reads_the_same_in_all_sizes_at_all_offsets(case: Case, guest: Guest) -> None:
    content = case.device.config + bytes(CONFIG_SIZE + 8)
    for size in (1, 2, 4, 8):
        for offset in [*range(80), *range(CONFIG_SIZE - 8, CONFIG_SIZE)]:
            expected = content[offset : offset + size]
            assert guest.transport.read(mmio.CONFIG + offset, size).to_bytes(size, "little") == expected


def test_it_can_be_read_in_every_state(case: Case, guest: Guest) -> None:
    expected = int.from_bytes(case.device.config[:4], "little")
    assert guest.read(mmio.CONFIG) == expected
    guest.negotiate()
    assert guest.read(mmio.CONFIG) == expected
    guest.reset()
    guest.start()
    assert guest.read(mmio.CONFIG) == expected
    guest.set_index(0, 999)
    guest.knock(0)
    case.host_event()
    assert guest.needs_reset
    assert guest.read(mmio.CONFIG) == expected


def test_no_write_changes_it(case: Case, guest: Guest) -> None:
    before = bytes(case.device.config)
    guest.start()
    for size in (1, 2, 4, 8):
        for offset in [*range(80), CONFIG_SIZE - size]:
            guest.transport.write(mmio.CONFIG + offset, size, (1 << 8 * size) - 1)
    assert case.device.config == before
