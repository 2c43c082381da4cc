"""Requests that nobody thought of: a drive must behave like an array of sectors, and survive anything."""

from struct import pack
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from hibana.devices.rate_limiter import RateLimiter
from hibana.devices.virtio.block import Block
from hibana.devices.virtio.block_request import FLUSH, GET_ID, IN, OK, OUT
from hibana.devices.virtio.queue import WRITE
from hibana.testing.disk import MemoryDisk
from hibana.testing.fakes import FakeTimers
from hibana.testing.virtio import Driver, Offer
from hibana.units import KIB

SECTOR: Final = 512
SECTORS: Final = 8
MEMORY: Final = 512 * KIB

Request = tuple[int, int, bytes]
"""type, sector, content: what is written, or as much room as is wanted."""


@st.composite
def sensible(draw: st.DrawFn) -> Request:
    sector = draw(st.integers(0, SECTORS - 1))
    count = draw(st.integers(1, SECTORS - sector))
    pattern = draw(st.binary(min_size=4, max_size=4))
    return draw(st.sampled_from([IN, OUT])), sector, pattern * (SECTOR * count // 4)


@st.composite
def pieces(draw: st.DrawFn, size: int) -> list[tuple[int, int]]:
    """Cut [0, size) into ranges, some of them empty."""
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=4)))
    return list(zip([0, *cuts], [*cuts, size], strict=True))


@st.composite
def framed(draw: st.DrawFn) -> tuple[Request, list[Offer]]:
    """A request, and buffers that hold it, with borders anywhere."""
    kind, sector, content = request = draw(sensible())
    header = pack("<IIQ", kind, 0, sector)
    readable = header + content if kind == OUT else header
    room = 1 if kind == OUT else len(content) + 1
    if draw(st.booleans()):  # as Linux does it
        data: Offer = ("r", content) if kind == OUT else ("w", len(content))
        return request, [("r", header), data, ("w", 1)]
    offers: list[Offer] = [("r", readable[start:end]) for start, end in draw(pieces(len(readable)))]
    offers += [("w", end - start) for start, end in draw(pieces(room))]
    if len(offers) == 3 or offers[-1] == ("w", 0):  # three have a meaning of their own; a status needs a byte
        return request, [("r", readable[:1]), ("r", readable[1:]), ("w", room - 1), ("w", 1)]
    return request, offers


@given(
    requests=st.lists(framed(), max_size=8),
    room=st.sampled_from([None, 1, 3]),
    at_most=st.sampled_from([None, 100, 512, 1000]),
)
@settings(max_examples=150, deadline=None)
def test_a_drive_is_an_array_of_sectors(
    requests: list[tuple[Request, list[Offer]]], room: int | None, at_most: int | None
) -> None:
    model = bytearray(SECTORS * SECTOR)
    disk = MemoryDisk(bytes(model), room)
    disk.at_most = at_most
    driver = Driver(memory_size=MEMORY)
    driver.start(Block("random", disk, RateLimiter(None, None, FakeTimers())))
    for (kind, sector, content), offers in requests:
        head = driver.offer(*offers)
        driver.remember()
        driver.kick()
        while disk.waiting:
            disk.finish()
        at = sector * SECTOR
        if kind == OUT:
            model[at : at + len(content)] = content
            expected = b""
        else:
            expected = bytes(model[at : at + len(content)])
        assert b"".join(driver.written(head)) == expected + bytes([OK])
        assert driver.completions() == [(head, len(expected) + 1)]
        assert driver.stray_writes() == []
        assert driver.unreported_writes() == []
    assert disk.content == model


# Below are the rings: what a device writes there would be new descriptors.
addresses = st.one_of(
    st.integers(0x20000, MEMORY + KIB), st.integers(MEMORY - KIB, (1 << 64) - 1), st.integers(0x40000, 0x41000)
)
descriptors = st.tuples(
    addresses,
    st.one_of(st.sampled_from([0, 1, 15, 16, 20, 512, 513, 1024]), st.integers(0, (1 << 32) - 1)),
    st.integers(0, 7),
    st.integers(0, 9),
)
headers = st.builds(
    lambda kind, sector: pack("<IIQ", kind, 0, sector),
    st.one_of(st.sampled_from([IN, OUT, FLUSH, GET_ID]), st.integers(0, (1 << 32) - 1)),
    st.one_of(st.integers(0, SECTORS), st.integers(0, (1 << 64) - 1)),
)


@given(
    table=st.lists(descriptors, min_size=1, max_size=8),
    heads=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    content=headers,
    room=st.sampled_from([None, 2]),
)
@settings(max_examples=300, deadline=None)
def test_no_descriptor_can_make_it_raise_or_write_where_it_must_not(
    table: list[tuple[int, int, int, int]], heads: list[int], content: bytes, room: int | None
) -> None:
    disk = MemoryDisk(bytes(SECTORS * SECTOR), room)
    driver = Driver(queue_size=8, memory_size=MEMORY)
    driver.start(Block("random", disk, RateLimiter(None, None, FakeTimers())))
    for at in range(0x40000, 0x42000, 16):  # so that random headers make sense now and then
        driver.memory.write(at, content)
    for index, (addr, size, flags, following) in enumerate(table):
        driver.rings[0].describe(index, addr, size, flags, following)
    for head in heads:
        driver.rings[0].publish(head)
    driver.remember()
    before = bytearray(driver.memory.read(0, MEMORY))
    driver.kick()
    while disk.waiting:
        disk.finish()
    assert driver.unreported_writes() == []
    after = driver.memory.read(0, MEMORY)
    ring = driver.rings[0]
    allowed = [(addr, min(size, MEMORY - addr)) for addr, size, flags, _ in table if flags & WRITE and addr < MEMORY]
    for addr, size in [*allowed, (ring.used_addr, ring.end - ring.used_addr)]:
        before[addr : addr + size] = after[addr : addr + size]
    assert before == after
