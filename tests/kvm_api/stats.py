"""What the kernel counts about a virtual machine or a vCPU (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD)."""

import os
from struct import Struct
from typing import Final

from hibana.engine.kvm import abi
from tests.kvm_api.machine import KVM_GET_STATS_FD

_HEADER: Final = Struct("<6I")  # flags, name_size, num_desc, id_offset, desc_offset, data_offset
_DESCRIPTION: Final = Struct("<IhHII")  # flags, exponent, size, offset, bucket_size, then a name


def stats(fd: int) -> dict[str, int]:
    """Read the first number of every statistic of a descriptor of KVM's, by name."""
    stats_fd = abi.call(fd, KVM_GET_STATS_FD)
    try:
        content = os.pread(stats_fd, 1 << 20, 0)
    finally:
        os.close(stats_fd)
    _, name_size, count, _, at, data = _HEADER.unpack_from(content)
    found = {}
    for start in range(at, at + count * (_DESCRIPTION.size + name_size), _DESCRIPTION.size + name_size):
        _, _, _, offset, _ = _DESCRIPTION.unpack_from(content, start)
        name = content[start + _DESCRIPTION.size :][:name_size].partition(b"\0")[0].decode()
        found[name] = int.from_bytes(content[data + offset :][:8], "little")
    return found
