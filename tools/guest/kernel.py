"""Debian's cloud kernel as the project boots it: its bzImage, its configuration, and the ELF inside it."""

import os
from pathlib import Path
from typing import NamedTuple

from hibana.boot.unpack import unpack_bzimage
from tools.guest.debian import DebianError, members


class Kernel(NamedTuple):
    """One kernel package's payload."""

    bzimage: bytes
    vmlinux: bytes
    config: bytes


def read_kernel(deb: Path) -> Kernel:
    """Take the kernel out of a linux-image package and unpack its ELF on the host."""
    boot = {os.path.basename(path): content for path, _, content in members(deb) if path.startswith("/boot/")}
    try:
        bzimage, config = (_only(boot, prefix) for prefix in ("vmlinuz-", "config-"))
    except KeyError as missing:
        raise DebianError(f"{deb.name} has no /boot/{missing.args[0]}*") from None
    return Kernel(bzimage, unpack_bzimage(bzimage), config)


def _only(files: dict[str, bytes], prefix: str) -> bytes:
    for name, content in files.items():
        if name.startswith(prefix):
            return content
    raise KeyError(prefix)
