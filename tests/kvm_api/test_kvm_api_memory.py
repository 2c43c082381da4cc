"""Memory slots: RAM comes and goes, can be read-only, and remembers who wrote to it."""

import ctypes
from collections.abc import Sequence

from hibana.engine.kvm import abi
from hibana.memory.layout import RamRegion
from hibana.units import MIB, PAGE
from tests.contract.engine import guests
from tests.kvm_api import machine
from tests.kvm_api.conftest import Boot
from tests.kvm_api.machine import KvmGuest, Run, refused

READ_ONLY = 2
FREE = 0x8000000
"""A guest address behind RAM, within what the page tables map."""


def set_slot(guest: KvmGuest, slot: int, addr: int, size: int, host_addr: int, flags: int = 0) -> None:
    abi.put(
        *(guest.kvm.fd, abi.KVM_SET_USER_MEMORY_REGION, abi.USERSPACE_MEMORY_REGION),
        *(slot, flags, addr, size, host_addr),
    )


def dirty_pages(guest: KvmGuest) -> list[tuple[RamRegion, set[int]]]:
    return [(region, pages(bitmap)) for region, bitmap in guest.kvm.slots.take_dirty_pages()]


def pages(bitmap: Sequence[int]) -> set[int]:
    return {8 * at + bit for at, byte in enumerate(bitmap) for bit in range(8) if byte >> bit & 1}


def test_a_slot_can_be_taken_away_and_put_elsewhere(boot: Boot) -> None:
    guest = boot(f"start: mov eax, [{FREE:#x}]; STOP; mov eax, [{FREE + 2 * MIB:#x}]; END eax")
    more = ctypes.create_string_buffer(2 * PAGE)
    host_addr = -(-ctypes.addressof(more) // PAGE) * PAGE
    ctypes.memset(host_addr, 0x5A, 4)
    set_slot(guest, 7, FREE, PAGE, host_addr)
    assert guest.run() == 0x5A5A5A5A
    set_slot(guest, 7, FREE, 0, host_addr)
    set_slot(guest, 7, FREE + 2 * MIB, PAGE, host_addr)
    assert guest.run() == 0x5A5A5A5A


def test_slots_may_not_overlap(boot: Boot) -> None:
    guest = boot("start: END")
    record = abi.USERSPACE_MEMORY_REGION.pack(9, 0, MIB, PAGE, guest.memory.host_addr)
    assert refused(guest.kvm.fd, abi.KVM_SET_USER_MEMORY_REGION, bytearray(record)) == "EEXIST"


def test_a_write_to_a_read_only_slot_comes_to_the_bus(boot: Boot) -> None:
    guest = boot(f"start: mov eax, [{FREE:#x}]; mov dword ptr [{FREE + 8:#x}], 0x12345678; END eax")
    rom = ctypes.create_string_buffer(2 * PAGE)
    host_addr = -(-ctypes.addressof(rom) // PAGE) * PAGE
    ctypes.memset(host_addr, 0xA5, 16)
    set_slot(guest, 7, FREE, PAGE, host_addr, READ_ONLY)
    assert guest.run() == 0xA5A5A5A5
    assert guest.bus.seen("mmio", "write") == [(FREE + 8, 4, 0x12345678)]
    assert ctypes.string_at(host_addr, 16) == b"\xa5" * 16


def test_the_dirty_log_names_the_pages_that_the_guest_wrote_to(boot: Boot) -> None:
    guest = boot("""
    start:
        mov byte ptr [HEAP], 1
        mov byte ptr [HEAP + 0x5fff], 1
        STOP
        mov byte ptr [HEAP + 0x9000], 1
        END
    """)
    guest.kvm.slots.track_dirty_pages()
    dirty_pages(guest)
    guest.run()
    heap = guests.HEAP // PAGE
    ((region, dirty),) = dirty_pages(guest)
    assert (region.start, region.size) == (0, 16 * MIB)
    assert {heap, heap + 5} <= dirty
    assert not dirty & {heap + 1, heap + 9}
    guest.run()
    ((_, dirty),) = dirty_pages(guest)
    assert heap + 9 in dirty
    assert not dirty & {heap, heap + 5}, "reading the log has not cleared it"


def test_without_being_asked_the_kernel_keeps_no_dirty_log(boot: Boot) -> None:
    guest = boot("start: END")
    bitmap = (ctypes.c_uint64 * 64)()
    record = abi.DIRTY_LOG.pack(0, 0, ctypes.addressof(bitmap))
    assert refused(guest.kvm.fd, abi.KVM_GET_DIRTY_LOG, bytearray(record)) == "ENOENT"


def test_the_kernel_walks_the_guests_page_tables(boot: Boot) -> None:
    guest = boot("start: STOP")
    guests.write_page(guest.memory, 3, 0x654000 | guests.PRESENT | guests.WRITABLE)
    with Run(guest.vcpu.fd) as run:
        run.until_said()
    for linear, expected in ((guests.PAGES + 0x3123, (0x654123, 1)), (guests.PAGES + 0x4000, (None, 0))):
        buffer = bytearray(machine.TRANSLATION.pack(linear, 0, 0, 0, 0))
        abi.call(guest.vcpu.fd, machine.KVM_TRANSLATE, buffer)
        _, physical, valid, _, _ = machine.TRANSLATION.unpack(buffer)
        assert (physical if valid else None, valid) == expected
