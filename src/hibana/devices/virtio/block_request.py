"""What a driver asks of a drive: from a chain of descriptors to an operation, a place and pieces of memory (§5.2.6).

    header (16 bytes: type, reserved, sector) · data to write | room for data · status (1 byte)

Firecracker demands three descriptors, one for each part, and so do its guests: `block.py` serves those itself as long
as nothing is odd about them. Here is everything else. Three descriptors keep the reference's meaning (devices.md §5.3):
whatever exceeds the header is ignored, the status is the first byte of the third. Any other number is taken as virtio
demands of a device (§2.7.4): the borders between descriptors mean nothing, the readable bytes are header and data, the
last writable byte is the status.
"""

from struct import Struct
from typing import Final

from hibana.devices.virtio.queue import WRITE, Descriptor
from hibana.errors import GuestFault
from hibana.memory.guest import GuestMemory

IN: Final = 0
OUT: Final = 1
FLUSH: Final = 4
GET_ID: Final = 8
NAMES: Final = {IN: "In", OUT: "Out", FLUSH: "Flush", GET_ID: "GetDeviceID"}

OK: Final = 0
IOERR: Final = 1
UNSUPP: Final = 2

SECTOR_BITS: Final = 9
SECTOR_MASK: Final = 511
ID_SIZE: Final = 20
HEADER: Final = Struct("<I4xQ")
HEADER_SIZE: Final = 16

Piece = tuple[int, int]
"""addr, size: part of a buffer."""
Operation = tuple[int, int, list[Piece]]
"""type, offset on the drive in bytes, and the pieces of memory to fill or to take from."""


def find_status(descriptors: list[Descriptor]) -> int | None:
    """Find the address where the driver expects the status, even if the rest of the request makes no sense."""
    addr, size, flags, _ = descriptors[-1]
    if len(descriptors) == 1 or not flags & WRITE or not size:
        return None
    return addr if _is_usual(descriptors) else addr + size - 1


def parse(memory: GuestMemory, descriptors: list[Descriptor], capacity: int) -> Operation:
    """Understand a request to a drive of `capacity` sectors. Raises GuestFault; a type may still be unknown."""
    if descriptors[0][2] & WRITE:
        raise GuestFault("unexpected write-only descriptor where the header should be")
    if find_status(descriptors) is None:
        raise GuestFault("the chain does not end with a writable byte for the status")
    if _is_usual(descriptors):
        (header_addr, _, _, _), (addr, size, flags, _), _ = descriptors
        header = memory.read(header_addr, HEADER_SIZE)
        to_read, to_write = ([], [(addr, size)]) if flags & WRITE else ([(addr, size)], [])
    else:
        header, to_read, to_write = _take_apart(memory, descriptors)
    kind, sector = HEADER.unpack(header)
    if kind == FLUSH or kind not in NAMES:
        return kind, 0, []
    pieces, others = (to_read, to_write) if kind == OUT else (to_write, to_read)
    if others:
        raise GuestFault(f"unexpected {'write' if kind == OUT else 'read'}-only descriptor")
    if not pieces:
        raise GuestFault("the descriptor chain is too short")
    _check_size(kind, sum(size for _, size in pieces), sector, capacity)
    return kind, sector << SECTOR_BITS, pieces


def _is_usual(descriptors: list[Descriptor]) -> bool:
    return len(descriptors) == 3 and descriptors[0][1] >= HEADER_SIZE


def _take_apart(memory: GuestMemory, descriptors: list[Descriptor]) -> tuple[bytes, list[Piece], list[Piece]]:
    """Give the header, what lies behind it, and the room in front of the status."""
    header = b""
    to_read: list[Piece] = []
    to_write: list[Piece] = []
    for addr, size, flags, _ in descriptors:
        if flags & WRITE:
            to_write.append((addr, size))
            continue
        missing = min(HEADER_SIZE - len(header), size)
        header += memory.read(addr, missing)
        to_read.append((addr + missing, size - missing))
    if len(header) < HEADER_SIZE:
        raise GuestFault(f"the header has only {len(header)} bytes")
    addr, size = to_write.pop()
    to_write.append((addr, size - 1))
    return header, _without_empty(to_read), _without_empty(to_write)


def _without_empty(pieces: list[Piece]) -> list[Piece]:
    return [piece for piece in pieces if piece[1]]


def _check_size(kind: int, size: int, sector: int, capacity: int) -> None:
    if kind == GET_ID:
        if size < ID_SIZE:
            raise GuestFault(f"the device id does not fit into {size} bytes")
    elif size & SECTOR_MASK:
        raise GuestFault(f"{size} bytes are no whole number of sectors")
    elif sector + (size >> SECTOR_BITS) > capacity:
        raise GuestFault(f"sector {sector}, +{size} bytes is beyond the end of the drive")
