"""Does this host's KVM run guest code on the CPU, or does it emulate it?

Some hosts have a /dev/kvm without hardware virtualization behind it, which interprets every instruction of the guest's
kernel: a thousand times slower than the CPU, and hundred times slower than the soft engine. Neither the flags of the
CPU nor the names of modules tell; only time does. So a tiny guest counts to a thousand at privilege level 0, in 64-bit
mode. On hardware, nested or not, a round takes less than a few nanoseconds; where it is emulated, more than a
microsecond.
"""

import mmap
import os
import time
from functools import cache
from struct import pack_into
from typing import Final, NamedTuple

from hibana.engine.kvm import abi, registers
from hibana.engine.kvm.host import Host
from hibana.engine.state import Regs, Segment
from hibana.errors import EngineError
from hibana.memory.guest import GuestMemory
from hibana.units import MIB

LIMIT_NS: Final = 300
"""Nanoseconds a round may take on a host that is worth it."""

_ROUNDS: Final = 1000
_MEMORY: Final = 4 * MIB
_CODE: Final = 0x1000
_PML4: Final = 0x2000
_PDPT: Final = 0x3000
_PD: Final = 0x4000
_TABLE: Final = 3  # present, writable
_LARGE_PAGE: Final = 0x83
_COUNT_DOWN_AND_HALT: Final = bytes.fromhex("48ffc9 75fb f4")  # 1: dec rcx; jnz 1b; hlt
_LONG_MODE: Final = (0x80000011, 0x20, 0x500)  # CR0: PG ET PE; CR4: PAE; EFER: LMA LME


class Verdict(NamedTuple):
    """What a round of the guest's loop takes."""

    ns: float

    @property
    def emulates(self) -> bool:
        """Whether the host interprets guest code."""
        return self.ns > LIMIT_NS


@cache
def measure() -> Verdict:
    """Measure once in the life of the process. Raises EngineError."""
    host = Host()
    try:
        memory = GuestMemory(_MEMORY)
        try:
            return _measure(host, memory)
        finally:
            memory.close()
    finally:
        host.close()


def _measure(host: Host, memory: GuestMemory) -> Verdict:
    _fill(memory)
    vm_fd = host.create_vm()
    try:
        region = (0, 0, 0, _MEMORY, memory.host_addr)
        abi.put(vm_fd, abi.KVM_SET_USER_MEMORY_REGION, abi.USERSPACE_MEMORY_REGION, *region)
        fd = abi.call(vm_fd, abi.KVM_CREATE_VCPU, 0)
        try:
            with mmap.mmap(fd, host.vcpu_page_size()) as page:
                return _time(fd, page)
        finally:
            os.close(fd)
    finally:
        os.close(vm_fd)


def _fill(memory: GuestMemory) -> None:
    memory.write(_CODE, _COUNT_DOWN_AND_HALT)
    tables = memory.window(0, _PD + 16)
    pack_into("<Q", tables, _PML4, _PDPT | _TABLE)
    pack_into("<Q", tables, _PDPT, _PD | _TABLE)
    pack_into("<QQ", tables, _PD, _LARGE_PAGE, 2 * MIB | _LARGE_PAGE)


def _time(fd: int, page: mmap.mmap) -> Verdict:
    sregs = registers.get_sregs(fd)
    sregs.cs = Segment(limit=0xFFFFFFFF, selector=0x08, type=0xB, l=1, g=1)
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = Segment(limit=0xFFFFFFFF, selector=0x10, db=1, g=1)
    sregs.cr0, sregs.cr4, sregs.efer = _LONG_MODE
    sregs.cr3 = _PML4
    registers.put_sregs(fd, sregs)
    nothing = min(_run(fd, page, rounds=1) for _ in range(3))
    return Verdict((min(_run(fd, page, _ROUNDS) for _ in range(2)) - nothing) / _ROUNDS)


def _run(fd: int, page: mmap.mmap, rounds: int) -> int:
    """Let the guest count; give the nanoseconds it took."""
    registers.put_regs(fd, Regs(rcx=rounds, rip=_CODE))
    started = time.perf_counter_ns()
    abi.call(fd, abi.KVM_RUN)
    took = time.perf_counter_ns() - started
    reason = page[abi.RUN_EXIT_REASON]
    if reason != abi.KVM_EXIT_HLT:
        raise EngineError(cause=f"a test program ended with KVM exit reason {reason}")
    return took
