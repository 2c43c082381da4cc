"""What a process holds: what must be the same before and after something that failed."""

import contextlib
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from hibana.units import GIB, KIB

# More than Python and an engine take and keep for themselves; guests of these tests have more memory than that.
LARGE: Final = GIB


class Footprint(NamedTuple):
    """Descriptors, threads, and bytes of address space."""

    fds: list[str]
    threads: int
    reserved: int


@contextlib.contextmanager
def nothing_stays() -> Iterator[None]:
    """Make sure that what is done meanwhile leaves no descriptor, no thread and no guest memory behind."""
    before = _footprint()
    yield
    after = _footprint()
    assert after.fds == before.fds
    assert after.threads <= before.threads  # one that had been joined may still have been on its way out
    assert after.reserved - before.reserved < LARGE


def _footprint() -> Footprint:
    fds = sorted(fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}"))
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return Footprint(fds, int(fields["Threads"]), int(fields["VmSize"].split()[0]) * KIB)
