"""The XSAVE image: taken apart and put together again, nothing is lost."""

import random
from struct import pack_into, unpack_from

from hibana.engine.kvm import xsave
from hibana.engine.state import Fpu

SIZE = 4096
AVX = 576  # where YMM's upper halves are, in every image that has them


def image_of(components: int, seed: int = 1) -> bytes:
    """Make an image full of noise, with its reserved bytes zero, as a kernel would give it."""
    chance = random.Random(seed)
    image = bytearray(SIZE)
    pack_into("<HHBxHQQI", image, 0, 0x37F, 0x3800, 0xFF, 0x123, 0x456, 0x789, 0x1F80)
    for at in range(32, 160, 16):
        image[at : at + 10] = chance.randbytes(10)
    image[160:416] = chance.randbytes(256)
    pack_into("<Q", image, xsave.HEADER, components)
    image[AVX : AVX + 256] = chance.randbytes(256)
    return bytes(image)


def test_an_image_is_put_together_as_it_was() -> None:
    image = image_of(components=7)
    fpu, rest = xsave.split(image)
    assert bytes(xsave.join(fpu, rest, SIZE)) == image


def test_the_fields_are_where_the_manual_says() -> None:
    image = image_of(components=3)
    fpu, _ = xsave.split(image)
    assert (fpu.fcw, fpu.fsw, fpu.ftwx, fpu.last_opcode, fpu.last_ip, fpu.last_dp, fpu.mxcsr) == (
        *(0x37F, 0x3800, 0xFF, 0x123, 0x456, 0x789, 0x1F80),
    )
    assert (fpu.fpr[7], fpu.xmm[15]) == (image[144:160], image[400:416])


def test_x87_and_sse_are_loaded_even_when_the_image_calls_them_initial() -> None:
    """Their content stands in `Fpu`, which somebody may have changed."""
    fpu, rest = xsave.split(image_of(components=4))
    joined = xsave.join(fpu, rest, SIZE)
    assert unpack_from("<Q", joined, xsave.HEADER) == (7,)
    assert unpack_from("<Q", rest, 0) == (7,)


def test_a_state_without_a_rest_leaves_everything_newer_initial() -> None:
    joined = xsave.join(Fpu(mxcsr=0x1FA0), b"", SIZE)
    assert unpack_from("<Q", joined, xsave.HEADER) == (3,)
    assert not any(joined[AVX:])
    assert unpack_from("<I", joined, 24) == (0x1FA0,)
