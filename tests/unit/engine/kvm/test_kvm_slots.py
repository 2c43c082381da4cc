"""Memory slots: one for each region of RAM, and in which words they fail; the kernel is played by the test."""

from collections.abc import Iterator

import pytest

from hibana.engine.kvm import abi
from hibana.engine.kvm.slots import Slots
from hibana.errors import EngineError
from hibana.memory.guest import GuestMemory
from hibana.memory.layout import MMIO32_START, RAM_ABOVE_4G
from hibana.units import GIB, MIB

Slot = tuple[int, ...]


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    memory = GuestMemory(4 * GIB)
    yield memory
    memory.close()


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> list[Slot]:
    """Give what was handed to the kernel: slot, flags, guest address, size, host address."""
    seen: list[Slot] = []

    def call(fd: int, request: int, argument: bytearray) -> int:
        assert (fd, request) == (5, abi.KVM_SET_USER_MEMORY_REGION)
        seen.append(abi.USERSPACE_MEMORY_REGION.unpack(argument))
        return 0

    monkeypatch.setattr(abi, "call", call)
    return seen


def test_memory_on_both_sides_of_the_hole_has_two_slots(memory: GuestMemory, slots: list[Slot]) -> None:
    Slots(5, memory, limit=32)
    assert slots == [
        (0, 0, 0, MMIO32_START, memory.host_addr),
        (1, 0, RAM_ABOVE_4G, 1 * GIB, memory.host_addr + MMIO32_START),
    ]


def test_tracking_is_a_flag_of_every_slot(memory: GuestMemory, slots: list[Slot]) -> None:
    Slots(5, memory, limit=32).track_dirty_pages()
    assert [(slot, flags) for slot, flags, *_ in slots] == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_more_regions_than_the_kernel_has_slots_are_refused(memory: GuestMemory, slots: list[Slot]) -> None:
    with pytest.raises(
        EngineError,
        match=r"^Kvm error: The number of configured slots is bigger than the maximum reported by KVM: 2$",
    ):
        Slots(5, memory, limit=1)
    assert slots == []


def test_a_refusal_of_the_kernel_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, request: int, argument: bytearray) -> int:
        raise EngineError(cause="KVM_SET_USER_MEMORY_REGION: Out of memory (os error 12)")

    monkeypatch.setattr(abi, "call", refuse)
    memory = GuestMemory(MIB)
    with pytest.raises(
        EngineError, match=r"^Kvm error: Cannot set the memory regions: KVM_SET_USER_MEMORY_REGION: Out"
    ):
        Slots(5, memory, limit=32)
    memory.close()
