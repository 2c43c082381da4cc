"""CPUID as the host's own CPU answers it.

KVM says what guests may have, and older kernels leave out what they did not know when they were made; which CPU this
is says only the instruction. Python has none for it, so here are its 27 bytes of machine code.
"""

import ctypes
import functools
import mmap
from collections.abc import Callable
from struct import pack
from typing import Final

from hibana.errors import EngineError

Registers = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""
HostCpuid = Callable[[int, int], Registers]
"""From EAX and ECX to what CPUID leaves in the registers."""

SOURCE: Final = """
        .intel_syntax noprefix

        # void execute(uint32_t function, uint32_t index, uint32_t registers[4])
        push    rbx
        mov     r8, rdx
        mov     eax, edi
        mov     ecx, esi
        cpuid
        mov     [r8], eax
        mov     [r8 + 4], ebx
        mov     [r8 + 8], ecx
        mov     [r8 + 12], edx
        pop     rbx
        ret
"""

CODE: Final = bytes.fromhex("534989d089f889f10fa241890041895804418948084189500c5bc3")


@functools.cache
def execute(function: int, index: int) -> Registers:
    """Execute CPUID; what it says does not change, so once is enough. Raises EngineError."""
    registers = (ctypes.c_uint32 * 4)()
    _machine_code()(function, index, registers)
    eax, ebx, ecx, edx = registers
    return eax, ebx, ecx, edx


def vendor_of(host: HostCpuid) -> bytes:
    """Name the maker of the host's CPU, in 12 letters."""
    _, ebx, ecx, edx = host(0, 0)
    return pack("<3I", ebx, edx, ecx)


@functools.cache
def _machine_code() -> Callable[..., None]:
    """Put the machine code where it can run, and leave it there."""
    page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
    page.write(CODE)
    at = ctypes.addressof(ctypes.c_char.from_buffer(page))
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if protect(at, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC):
        raise EngineError(cause="the host does not allow executable memory, without which its CPU cannot be asked.")
    function = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(at)
    function.page = page  # type: ignore[attr-defined]  # as long as the function
    return function
