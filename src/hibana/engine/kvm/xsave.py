"""The XSAVE image (Intel SDM vol. 1, "XSAVE area"): x87 and SSE first, then a header, then whatever the host has more.

What every CPU has becomes `state.Fpu`; header and rest stay one piece of bytes, `VcpuState.xsave`, that only a host
with the same features can take.
"""

from struct import Struct, pack_into, unpack_from
from typing import Final

from hibana.engine.state import Fpu

_LEGACY: Final = Struct("<HHBxHQQII")  # FCW, FSW, abridged FTW, FOP, FIP, FDP, MXCSR, MXCSR_MASK
_FPR: Final = 32
_XMM: Final = 160
HEADER: Final = 512
_X87_AND_SSE: Final = 3


def split(image: bytes) -> tuple[Fpu, bytes]:
    """Take an image apart: what every CPU has, and the rest from the header on."""
    fcw, fsw, ftwx, last_opcode, last_ip, last_dp, mxcsr, _ = _LEGACY.unpack_from(image)
    fpr = [image[at : at + 16] for at in range(_FPR, _XMM, 16)]
    xmm = [image[at : at + 16] for at in range(_XMM, _XMM + 256, 16)]
    rest = bytearray(image[HEADER:])
    _claim_legacy(rest, 0)
    return Fpu(fpr, fcw, fsw, ftwx, last_opcode, last_ip, last_dp, xmm, mxcsr), bytes(rest)


def join(fpu: Fpu, rest: bytes, size: int) -> bytearray:
    """Put an image of `size` bytes together again; without a rest, what only newer CPUs have is as after a reset."""
    image = bytearray(size)
    _LEGACY.pack_into(*(image, 0, fpu.fcw, fpu.fsw, fpu.ftwx, fpu.last_opcode, fpu.last_ip, fpu.last_dp, fpu.mxcsr, 0))
    for number, content in enumerate(fpu.fpr):
        image[_FPR + 16 * number : _FPR + 16 * number + 16] = content
    for number, content in enumerate(fpu.xmm):
        image[_XMM + 16 * number : _XMM + 16 * number + 16] = content
    image[HEADER : HEADER + len(rest)] = rest
    _claim_legacy(image, HEADER)
    return image


def _claim_legacy(buffer: bytearray, header: int) -> None:
    """Say in the header that x87 and SSE are there: a component whose bit is clear is not loaded but initialised."""
    (components,) = unpack_from("<Q", buffer, header)
    pack_into("<Q", buffer, header, components | _X87_AND_SSE)
