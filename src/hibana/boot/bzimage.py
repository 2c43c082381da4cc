"""bzImage kernels: a setup header, the kernel's own decompressor, and the kernel packed inside.

Where the host knows the compression it unpacks the kernel and starts it directly; where it does not, the image is
loaded as it is and unpacks itself. Either way the guest gets the image's own setup header in its zero page.
"""

import os
from typing import Final

from hibana.boot import elf
from hibana.boot.entry import BootProtocol, Entry, Kernel
from hibana.boot.unpack import Payload, unpack
from hibana.boot.x86.zero_page import SETUP_HEADER, BootParams
from hibana.errors import BadKernelImage, GuestFault, No64BitEntry
from hibana.memory.guest import GuestMemory
from hibana.memory.layout import HIMEM_START

_LOADED_HIGH: Final = 1 << 0  # loadflags
_XLF_KERNEL_64: Final = 1 << 0  # xloadflags
_ENTRY_64: Final = 0x200  # of the decompressor, from its load address


def load(memory: GuestMemory, fd: int, head: bytes) -> Kernel:
    """Load the kernel inside the image, or else the image (x86 boot protocol)."""
    header = BootParams(head)
    if header.version < 0x200 or not header.loadflags & _LOADED_HIGH:
        raise BadKernelImage(cause="Invalid bzImage")
    size = os.lseek(fd, 0, os.SEEK_END) - header.setup_size
    if size < 0:
        raise BadKernelImage(cause="Underflow occurred during an arithmetic operation")
    if header.code32_start < HIMEM_START:
        raise BadKernelImage(cause="invalid kernel start address")
    if header.version < 0x20C or not header.xloadflags & _XLF_KERNEL_64:
        raise No64BitEntry
    addr = _load_unpacked(memory, fd, header, size)
    if addr is None:
        addr = _load_packed(memory, fd, header, size)
    return Kernel(Entry(BootProtocol.LINUX_64, addr), _setup_header(head))


def _setup_header(head: bytes) -> bytes:
    """Cut the header out of the image; its end is where the jump at 0x200 leads ("64-bit Boot Protocol")."""
    return head[SETUP_HEADER : 0x202 + head[0x201]]


def _load_unpacked(memory: GuestMemory, fd: int, header: BootParams, size: int) -> int | None:
    """Load the ELF from inside the payload; None when the payload is in a form only the kernel itself knows."""
    if header.payload_offset + header.payload_length > size:
        raise BadKernelImage(cause="Unable to read bzImage compressed kernel")
    try:
        pieces = unpack(Payload(fd, header.setup_size + header.payload_offset, header.payload_length))
        return elf.load_pieces(memory, pieces) if pieces else None
    except OSError as error:
        raise BadKernelImage(cause="Unable to read bzImage compressed kernel") from error


def _load_packed(memory: GuestMemory, fd: int, header: BootParams, size: int) -> int:
    """Load everything after the setup code where the image wants it; it will unpack itself."""
    try:
        memory.fill(header.code32_start, size, fd, header.setup_size)
    except (GuestFault, OSError, EOFError) as error:
        raise BadKernelImage(cause="Unable to read bzImage compressed kernel") from error
    return header.code32_start + _ENTRY_64
