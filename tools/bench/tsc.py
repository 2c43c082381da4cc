"""How fast the time stamp counter of this host runs.

QEMU's TCG shows it to its guest as it is, so a guest that is told need not find out. On a busy host it could not: the
only reference of QEMU's microvm is the PIT, and a kernel that is interrupted while it compares the two gives up.
"""

import ctypes
import mmap
import time
from typing import Final

# rdtsc; shl rdx, 32; or rax, rdx; ret
_READ: Final = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_LONG_ENOUGH: Final = 0.2


def tsc_khz() -> int:
    """Compare it with the host's clock."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_READ)
    start = ctypes.c_char.from_buffer(page)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(start))
    began, first = time.monotonic_ns(), read()
    time.sleep(_LONG_ENOUGH)
    ended, last = time.monotonic_ns(), read()
    del start
    page.close()
    return int(last - first) * 1_000_000 // (ended - began)
