"""The CPU that a guest of the soft engine sees: "Hibana v1", the same on every host.

It is what unicorn 2.1.4 executes faithfully with its default model (a Haswell without AVX), announced as an Intel
CPU of family 6, model 0x1C, stepping 10. Linux lists this Atom as free of every speculation bug, which is true of an
emulator, and so spends nothing on page-table isolation or retpolines. In terms of the psABI it is an x86-64-v2.

| What | Why |
|---|---|
| no XSAVE, AVX | the translator has no AVX; without it XSAVE would only be a slower FXSAVE |
| no TSC deadline, x2APIC, machine check, PMU, kvm-clock | they live in MSRs that nobody answers |
| no MONITOR/MWAIT | MWAIT would not stop the vCPU |
| no VMX, SVM, SMAP, UMIP, PCID, 1 GiB pages, RDSEED | not translated |
| no BMI1, BMI2 | BEXTR, BZHI, BLSI and PDEP are translated with mistakes; who sees no AVX hardly asks for them |
| no ERMS (fast REP MOVSB) | translated, one byte at a time: announcing it makes guests choose the slowest copy |
| TSC_ADJUST | MSR 0x3B reads 0, "never adjusted"; Linux then trusts the TSC and needs no watchdog |
| ARAT | the local APIC timer never stops; without it Linux has no high-resolution timers here |
| leaves 0x15, 0x16 | the TSC and local APIC timer frequencies: no calibration against the PIT, which takes long |
| leaf 4: caches that do not exist | glibc 2.33-2.36 sizes its copy loops by them and crashes when they are zero |
| each vCPU is a core of one package | as on KVM without SMT; leaf 0xB is absent, leaves 1 and 4 say it |

Leaves not in the table read zero, 0x40000000 (no paravirtual interface) among them.
"""

import functools
import struct
from typing import Final

from hibana.engine.soft.clock import CRYSTAL_HZ


def _bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


# Leaf 1.
FEATURES_1_EDX: Final = _bits(
    0,  # FPU
    2,  # DE: debugging extensions
    3,  # PSE: 4 MiB pages
    4,  # TSC
    5,  # MSR
    6,  # PAE
    8,  # CX8: CMPXCHG8B
    9,  # APIC
    11,  # SEP: SYSENTER
    12,  # MTRR
    13,  # PGE: global pages
    15,  # CMOV
    16,  # PAT
    17,  # PSE36
    19,  # CLFSH: CLFLUSH
    23,  # MMX
    24,  # FXSR: FXSAVE
    25,  # SSE
    26,  # SSE2
)
FEATURES_1_ECX: Final = _bits(
    0,  # SSE3
    1,  # PCLMULQDQ
    9,  # SSSE3
    13,  # CX16: CMPXCHG16B
    19,  # SSE4.1
    20,  # SSE4.2
    22,  # MOVBE
    23,  # POPCNT
    25,  # AES
    30,  # RDRAND
    31,  # running under a hypervisor
)
_HTT: Final = 1 << 28  # leaf 1 EDX: the package has more than one logical processor

# Leaf 7, subleaf 0.
FEATURES_7_EBX: Final = _bits(
    0,  # FSGSBASE
    1,  # TSC_ADJUST
    7,  # SMEP
)

# Leaf 0x80000001.
FEATURES_80000001_EDX: Final = _bits(
    11,  # SYSCALL
    20,  # NX
    27,  # RDTSCP
    29,  # LM: long mode
)
FEATURES_80000001_ECX: Final = _bits(
    0,  # LAHF in long mode
    5,  # LZCNT
)

# Leaf 4: (type, level, ways, sets) with 64-byte lines; type 1 data, 2 instructions, 3 both.
_CACHES: Final = (
    (1, 1, 8, 64),  # 32 KiB
    (2, 1, 8, 64),  # 32 KiB
    (3, 2, 16, 2048),  # 2 MiB
    (3, 3, 16, 16384),  # 16 MiB, shared by all
)
_SHARED_LEVEL: Final = 3
_LINE: Final = 64
_SELF_INITIALISING: Final = 1 << 8
_SEE_LEAF_4: Final = 0xFF01  # leaf 2 EAX: one descriptor, and it says so
_L2_2_MIB_16_WAYS: Final = 2048 << 16 | 8 << 12 | _LINE  # leaf 0x80000006 ECX

_ARAT: Final = 1 << 2  # leaf 6 EAX
_INVARIANT_TSC: Final = 1 << 8  # leaf 0x80000007 EDX

_MAX_BASIC: Final = 0x16
_MAX_EXTENDED: Final = 0x80000008
_SIGNATURE: Final = 0x106CA  # family 6, model 0x1C, stepping 10
_CLFLUSH_8_QUADWORDS: Final = 8 << 8
_ADDRESS_BITS: Final = 48 << 8 | 40  # linear, physical
_BUS_MHZ: Final = 100

_VENDOR: Final = struct.unpack("<3I", b"GenuineIntel")
_BRAND: Final = struct.unpack("<12I", b"Hibana software CPU".ljust(48, b"\0"))

Registers = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""

_ZERO: Final = (0, 0, 0, 0)

_TABLE: Final[dict[tuple[int, int], Registers]] = {
    (0x0, 0): (_MAX_BASIC, _VENDOR[0], _VENDOR[2], _VENDOR[1]),
    (0x1, 0): (_SIGNATURE, _CLFLUSH_8_QUADWORDS, FEATURES_1_ECX, FEATURES_1_EDX),  # and what `_leaf1` adds
    (0x2, 0): (_SEE_LEAF_4, 0, 0, 0),
    (0x6, 0): (_ARAT, 0, 0, 0),
    (0x7, 0): (0, FEATURES_7_EBX, 0, 0),
    (0x80000000, 0): (_MAX_EXTENDED, _VENDOR[0], _VENDOR[2], _VENDOR[1]),
    (0x80000001, 0): (_SIGNATURE, 0, FEATURES_80000001_ECX, FEATURES_80000001_EDX),
    (0x80000002, 0): (_BRAND[0], _BRAND[1], _BRAND[2], _BRAND[3]),
    (0x80000003, 0): (_BRAND[4], _BRAND[5], _BRAND[6], _BRAND[7]),
    (0x80000004, 0): (_BRAND[8], _BRAND[9], _BRAND[10], _BRAND[11]),
    (0x80000006, 0): (0, 0, _L2_2_MIB_16_WAYS, 0),
    (0x80000007, 0): (0, 0, 0, _INVARIANT_TSC),
    (0x80000008, 0): (_ADDRESS_BITS, 0, 0, 0),
}
_WITH_SUBLEAVES: Final = frozenset((0x7,))


def answer(leaf: int, subleaf: int, index: int, count: int, tsc_khz: int) -> Registers:
    """Execute CPUID on vCPU `index` of `count`."""
    if leaf == 0x1:
        return _leaf1(index, count)
    if leaf == 0x4:
        return _leaf4(subleaf, count)
    if leaf == 0x15:
        numerator, denominator = crystal_ratio(tsc_khz)
        return denominator, numerator, CRYSTAL_HZ, 0
    if leaf == 0x16:
        mhz = (tsc_khz + 500) // 1000
        return mhz, mhz, _BUS_MHZ, 0
    return _TABLE.get((leaf, subleaf if leaf in _WITH_SUBLEAVES else 0), _ZERO)


def _apic_ids(count: int) -> int:
    """Round the number of vCPUs up to a power of two: the APIC IDs that the package reserves."""
    return 1 << (count - 1).bit_length()


def _leaf1(index: int, count: int) -> Registers:
    eax, ebx, ecx, edx = _TABLE[0x1, 0]
    return eax, ebx | _apic_ids(count) << 16 | index << 24, ecx, edx | (_HTT if count > 1 else 0)


def _leaf4(subleaf: int, count: int) -> Registers:
    if subleaf >= len(_CACHES):
        return _ZERO
    kind, level, ways, sets = _CACHES[subleaf]
    others = _apic_ids(count) - 1
    sharing = others if level == _SHARED_LEVEL else 0
    eax = kind | level << 5 | _SELF_INITIALISING | sharing << 14 | others << 26
    return eax, _LINE - 1 | ways - 1 << 22, sets - 1, 0


@functools.cache
def crystal_ratio(tsc_khz: int) -> tuple[int, int]:
    """Find the fraction (numerator, denominator) of TSC to crystal frequency that is nearest to the measured one.

    Linux multiplies the numerator by the crystal's kHz in 32 bits and does not notice an overflow, so not every
    fraction will do; the nearest of those that fit is off by some parts in a million at worst.
    """
    crystal_khz = CRYSTAL_HZ // 1000
    largest_numerator = 0xFFFFFFFF // crystal_khz
    best = (1 << 62, 0, 1)
    for denominator in range(1, largest_numerator * crystal_khz // tsc_khz + 1):
        wanted = tsc_khz * denominator
        numerator = (wanted + crystal_khz // 2) // crystal_khz
        error = abs(numerator * crystal_khz - wanted) * largest_numerator // denominator
        if error < best[0]:
            best = (error, numerator, denominator)
    return best[1], best[2]
