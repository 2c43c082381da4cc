"""What kind of image a kernel is: the ELF of `vmlinux` or a bzImage.

The sentences are the reference's; a file that is neither is reported as the ELF it should have been.
"""

import os
from typing import Final

from hibana.boot import bzimage, elf
from hibana.boot.entry import Kernel
from hibana.boot.x86.zero_page import SETUP_HEADER_END, has_setup_header
from hibana.errors import BadKernelImage, KernelLoadError
from hibana.memory.guest import GuestMemory

_HEAD_SIZE: Final = SETUP_HEADER_END  # more than the ELF header


def load_kernel(memory: GuestMemory, fd: int) -> Kernel:
    """Load the image into guest memory (machine.md §2.1); the file's own offset does not matter."""
    image_format = "ELF"
    try:
        head = _read_head(fd)
        if not head.startswith(elf.MAGIC) and has_setup_header(head):
            image_format = "bzImage"
            return bzimage.load(memory, fd, head)
        return Kernel(elf.load_file(memory, fd, head))
    except BadKernelImage as error:
        raise KernelLoadError(format=image_format, cause=error) from error


def _read_head(fd: int) -> bytes:
    try:
        return os.pread(fd, _HEAD_SIZE, 0)
    except OSError as error:
        raise BadKernelImage(cause="Unable to read elf header") from error
