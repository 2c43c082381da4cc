"""The host clocks a soft machine runs on.

The guest reads the host's time-stamp counter directly, while its timers follow the host's CLOCK_MONOTONIC. CPUID leaf
0x15 tells the guest how fast the counter is, so the frequency must be known well: NTP corrects a guest that is off by
200 parts per million, but not more. The kernel does not tell programs (`cpu MHz` in /proc/cpuinfo is rounded, and on
many hosts the speed of the moment), so the counter is held against the monotonic clock at two moments. Start-up need
not wait in between: `begin` marks the first moment, the VMM goes on with its work, and `tsc_khz` makes the second one.
"""

import ctypes
import functools
import mmap
import time
from collections.abc import Callable
from typing import Final

CRYSTAL_HZ: Final = 25_000_000
"""The core crystal clock of CPUID leaf 0x15, which is also the input of the local APIC timer."""

now: Final = time.monotonic_ns
"""Nanoseconds of the clock that every timer of the machine counts in."""

_APART_NS: Final = 8_000_000
"""Two samples, each good to about 0.2 µs, this far apart give the frequency to 50 parts per million."""
_TRIES: Final = 16

_RDTSC: Final = bytes.fromhex(
    "0f ae e8"  # lfence          everything before has happened
    "0f 31"  # rdtsc
    "48 c1 e2 20"  # shl rdx, 32
    "48 09 d0"  # or rax, rdx
    "c3"  # ret
)


@functools.cache
def _rdtsc() -> Callable[[], int]:
    """Make RDTSC callable: the one instruction Python has no name for."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code[: len(_RDTSC)] = _RDTSC
    function = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    function.code = code  # type: ignore[attr-defined]  # keeps the page mapped
    return function


def _sample() -> tuple[int, int]:
    """Read both clocks at one moment: (nanoseconds, TSC)."""
    rdtsc = _rdtsc()
    best = (1 << 62, 0, 0)
    for _ in range(_TRIES):
        before = now()
        tsc = rdtsc()
        after = now()
        best = min(best, (after - before, (before + after) // 2, tsc))  # the try that nothing interrupted
    return best[1:]


def tsc() -> int:
    """Read the host's time-stamp counter."""
    return _rdtsc()()


@functools.cache
def begin() -> tuple[int, int]:
    """Mark the first moment of the measurement; costs some 20 µs, and only once."""
    return _sample()


@functools.cache
def tsc_khz() -> int:
    """Measure the frequency of the time-stamp counter; at most 8 ms, none when `begin` was that long ago."""
    start_ns, start_tsc = begin()
    wait_ns = start_ns + _APART_NS - now()
    if wait_ns > 0:
        time.sleep(wait_ns / 1e9)
    end_ns, end_tsc = _sample()
    elapsed_ns = end_ns - start_ns
    return ((end_tsc - start_tsc) * 1_000_000 + elapsed_ns // 2) // elapsed_ns
