"""Huge pages where they cost nothing: for the images that fill a piece of RAM from end to end.

A kernel and an initrd are read into tens of MiB of fresh memory, and most of the time goes into the host's giving it
out in 4 KiB pages: 65 MiB take 27 ms in small pages and 9 ms in huge ones. No more memory is used, since all of it is
filled. But a host whose free memory is in small pieces would first make room, which takes longer than all small pages
together; so it is asked only when it says that it has more than enough at hand, which it does not in a jail.
"""

import ctypes
from typing import Final

from hibana.units import HUGE_PAGE, PAGE, align_down, align_up

_MADV_HUGEPAGE: Final = 14
_AMPLE: Final = 4
"""How many times what is needed must be free: other processes take huge pages, too."""


def ask_for(start: int, size: int) -> None:
    """Let the host back the whole huge pages within [start, start + size) of this process by such, if it has plenty."""
    first, end = align_up(start, HUGE_PAGE), align_down(start + size, HUGE_PAGE)
    if first < end and free() >= _AMPLE * (end - first):
        # A host without huge pages says no, and nothing is lost.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), _MADV_HUGEPAGE)


def free(path: str = "/proc/buddyinfo") -> int:
    """Add up the host's free memory that lies in huge pages or larger pieces; 0 where it does not say (proc(5))."""
    try:
        with open(path) as file:
            return sum(_free_in_zone(line) for line in file)
    except (OSError, ValueError):
        return 0


def _free_in_zone(line: str) -> int:
    """Read "Node 0, zone Normal" and how many free pieces of 1, 2, 4 … pages there are."""
    counts = [int(word) for word in line.partition("zone")[2].split()[1:]]
    sizes = [PAGE << order for order in range(len(counts))]
    return sum(count * size for count, size in zip(counts, sizes, strict=True) if size >= HUGE_PAGE)
