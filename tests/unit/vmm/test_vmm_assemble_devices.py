"""A microVM of a notebook: what stands where, and in which words it cannot be made."""

import pytest

from hibana.config.drive import BlockDeviceConfig
from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.net import NetworkInterfaceConfig
from hibana.devices.virtio import mmio
from hibana.errors import VmmError
from hibana.memory.layout import GSI_FIRST_FREE, GSI_LAST_LEGACY, MMIO_SLOT_SIZE, SYSTEM_SIZE, SYSTEM_START
from tests.unit.vmm.conftest import Workshop

FIRST = 0xC0001000
BLOCK, NET, ENTROPY = 2, 1, 4


def put_drive(workshop: Workshop, drive_id: str, **fields: object) -> None:
    path = workshop.file(drive_id, bytes(4096))
    config = {"is_root_device": False, "path_on_host": path, **fields}
    workshop.resources.put_drive(BlockDeviceConfig(drive_id=drive_id, **config))  # type: ignore[arg-type]


def put_interface(workshop: Workshop, iface_id: str, guest_mac: str | None = None) -> None:
    workshop.resources.put_net(NetworkInterfaceConfig(iface_id, f"tap-{iface_id}", guest_mac))


def device_ids(workshop: Workshop, count: int) -> list[int]:
    return [workshop.register(FIRST + MMIO_SLOT_SIZE * slot + mmio.DEVICE_ID) for slot in range(count)]


def test_without_devices_the_kernel_hears_that_there_is_no_pci(workshop: Workshop) -> None:
    workshop.assemble("quiet")
    assert workshop.cmdline == "quiet pci=off"
    assert workshop.register(FIRST) == 0


def test_each_device_has_a_page_a_line_and_a_word_on_the_command_line(workshop: Workshop) -> None:
    put_drive(workshop, "data")
    put_drive(workshop, "more")
    workshop.assemble("quiet -- single")
    assert workshop.cmdline == (
        "quiet pci=off virtio_mmio.device=4K@0xc0001000:5 virtio_mmio.device=4K@0xc0002000:6 -- single"
    )
    assert workshop.register(FIRST) == workshop.register(FIRST + MMIO_SLOT_SIZE) == mmio.MAGIC


def test_drives_come_before_interfaces_and_those_before_entropy(workshop: Workshop) -> None:
    workshop.resources.put_entropy(EntropyDeviceConfig())
    put_interface(workshop, "eth0")
    put_interface(workshop, "eth1", "02:00:00:00:00:07")
    put_drive(workshop, "data")
    workshop.assemble()
    assert device_ids(workshop, 5) == [BLOCK, NET, NET, ENTROPY, 0]
    first_bytes_of_the_mac = workshop.register(FIRST + 2 * MMIO_SLOT_SIZE + mmio.CONFIG)
    assert first_bytes_of_the_mac == int.from_bytes(b"\2\0\0\0", "little")


def test_the_root_drive_is_the_first_wherever_it_was_put(workshop: Workshop) -> None:
    put_drive(workshop, "data")
    put_drive(workshop, "root", is_root_device=True)
    workshop.assemble("quiet")
    assert workshop.cmdline == (
        "quiet pci=off root=/dev/vda rw virtio_mmio.device=4K@0xc0001000:5 virtio_mmio.device=4K@0xc0002000:6"
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"is_root_device": True, "is_read_only": True}, "root=/dev/vda ro "),
        ({"is_root_device": True, "partuuid": "0eaa91a0-01"}, "root=PARTUUID=0eaa91a0-01 rw "),
        ({"is_root_device": False, "partuuid": "0eaa91a0-01"}, ""),
    ],
)
def test_the_kernel_hears_where_its_root_is(workshop: Workshop, fields: dict[str, object], expected: str) -> None:
    put_drive(workshop, "root", **fields)
    workshop.assemble("")
    assert workshop.cmdline == f"pci=off {expected}virtio_mmio.device=4K@0xc0001000:5"


def test_acpi_knows_the_devices_too(workshop: Workshop) -> None:
    put_drive(workshop, "data")
    put_interface(workshop, "eth0")
    workshop.assemble()
    tables = workshop.engine.vm.memory.read(SYSTEM_START, SYSTEM_SIZE)
    assert tables.index(b"V000") < tables.index(b"V001") < tables.index(b"COM1")
    assert tables.count(b"LNRO0005") == 2


def test_a_device_pulses_its_own_line(workshop: Workshop) -> None:
    put_drive(workshop, "data")
    workshop.resources.put_entropy(EntropyDeviceConfig())
    workshop.assemble()
    bus = workshop.engine.vm.bus
    for status in (1, 3, 11, 15):  # without queues: it asks for a reset
        bus.mmio_write(FIRST + MMIO_SLOT_SIZE + mmio.STATUS, 4, status)
    assert workshop.engine.vm.pulses == [6]


def test_there_are_lines_for_nineteen_devices(workshop: Workshop) -> None:
    lines = GSI_LAST_LEGACY - GSI_FIRST_FREE + 1
    for number in range(lines):
        put_drive(workshop, f"d{number}")
    workshop.assemble("")
    assert device_ids(workshop, lines + 1) == [BLOCK] * 19 + [0]
    put_drive(workshop, "one-too-many")
    with pytest.raises(VmmError) as refused:
        workshop.assemble("")
    assert str(refused.value) == (
        "Could not attach device: MMIO transport error: Failed to allocate requested resource:"
        " The requested resource is not available."
    )
    assert workshop.engine.vm.closed, "nothing is left behind"


def test_a_device_may_not_fit_on_the_command_line(workshop: Workshop) -> None:
    put_drive(workshop, "data")
    with pytest.raises(VmmError) as refused:
        workshop.assemble("x" * 2020)
    assert str(refused.value) == (
        "Could not attach device: MMIO transport error: Failed to allocate requested resourc:"
        " Inserting string would make command line too long."
    )


@pytest.mark.parametrize(
    ("partuuid", "complaint"),
    [
        ("x" * 2020, "Inserting string would make command line too long."),
        ("ünïque", "String contains a non-printable ASCII character."),
    ],
)
def test_the_name_of_the_root_must_fit_on_the_command_line(workshop: Workshop, partuuid: str, complaint: str) -> None:
    put_drive(workshop, "root", is_root_device=True, partuuid=partuuid)
    with pytest.raises(VmmError) as refused:
        workshop.assemble()
    assert str(refused.value) == f"Invalid kernel command line: {complaint}"


def test_what_could_not_be_made_can_be_made_later(workshop: Workshop) -> None:
    put_drive(workshop, "data")
    with pytest.raises(VmmError):
        workshop.assemble("x" * 2020)
    workshop.assemble()
    assert device_ids(workshop, 1) == [BLOCK]
