"""A drive for one microVM: a copy of an image that shares with it what the file system lets it share."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_FICLONE: Final = 0x40049409  # linux/fs.h


@contextmanager
def copy_on_write(image: Path) -> Iterator[Path]:
    """Give a copy of an image, to be changed at will and gone afterwards.

    Beside the image, because only there the two can share blocks. Where the file system cannot, what is copied is the
    content: not the holes, which are half of a root file system.
    """
    with tempfile.NamedTemporaryFile(prefix=".drive-", suffix=image.suffix, dir=image.parent) as copy:
        with open(image, "rb") as original:
            try:
                fcntl.ioctl(copy.fileno(), _FICLONE, original.fileno())
            except OSError:
                _copy_content(original.fileno(), copy.fileno())
        yield Path(copy.name)


def _copy_content(source: int, target: int) -> None:
    size = os.fstat(source).st_size
    os.truncate(target, size)
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is left
            return
        end = os.lseek(source, start, os.SEEK_HOLE)
        while start < end:
            start += os.copy_file_range(source, target, end - start, start, start)
