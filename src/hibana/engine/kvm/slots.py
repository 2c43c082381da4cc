"""Guest RAM in the kernel's eyes: memory slots, and which of their pages the guest has written to."""

import ctypes
from collections.abc import Iterator
from typing import Final

from hibana.engine.kvm import abi
from hibana.errors import EngineError
from hibana.memory.guest import GuestMemory
from hibana.memory.layout import RamRegion
from hibana.units import PAGE

_BITS: Final = 64  # the log is a bitmap of 64-bit words


class Slots:
    """One slot for each region of RAM."""

    def __init__(self, vm_fd: int, memory: GuestMemory, limit: int) -> None:
        """Show `memory` to a virtual machine that takes `limit` slots. Raises EngineError."""
        if len(memory.regions) > limit:
            cause = f"The number of configured slots is bigger than the maximum reported by KVM: {len(memory.regions)}"
            raise EngineError(cause=cause)
        self._vm_fd = vm_fd
        self._memory = memory
        self._set(flags=0)

    def track_dirty_pages(self) -> None:
        """Begin to note which pages the guest writes to. Raises EngineError."""
        self._set(abi.KVM_MEM_LOG_DIRTY_PAGES)

    def take_dirty_pages(self) -> Iterator[tuple[RamRegion, bytes]]:
        """Give for each region a bitmap of the pages written since the last time, and begin anew.

        Bit i of the little-endian bitmap is page i of the region. Raises EngineError.
        """
        for slot, region in enumerate(self._memory.regions):
            words = -(-region.size // (PAGE * _BITS))
            bitmap = (ctypes.c_uint64 * words)()
            abi.put(self._vm_fd, abi.KVM_GET_DIRTY_LOG, abi.DIRTY_LOG, slot, 0, ctypes.addressof(bitmap))
            yield region, bytes(bitmap)

    def _set(self, flags: int) -> None:
        request, record = abi.KVM_SET_USER_MEMORY_REGION, abi.USERSPACE_MEMORY_REGION
        for slot, (start, size, offset) in enumerate(self._memory.regions):
            try:
                abi.put(self._vm_fd, request, record, slot, flags, start, size, self._memory.host_addr + offset)
            except EngineError as error:
                raise EngineError(cause=f"Cannot set the memory regions: {error.facts['cause']}") from error
