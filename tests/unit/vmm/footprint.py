"""What a process holds: what must be the same before and after something that failed."""

import os
from typing import NamedTuple


class Footprint(NamedTuple):
    """Descriptors, threads, and reserved memory to the nearest 64 MiB."""

    fds: tuple[str, ...]
    threads: int
    reserved: int


def footprint() -> Footprint:
    """Look at this process."""
    fds = sorted(fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}"))
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return Footprint(tuple(fds), int(fields["Threads"]), round(int(fields["VmSize"].split()[0]) / (64 << 10)))
