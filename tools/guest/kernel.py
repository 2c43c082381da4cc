"""Debian's cloud kernel as the project boots it: its bzImage, its configuration, the ELF inside it, its modules."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hibana.boot.unpack import unpack_bzimage
from tools.guest.debian import DebianError, members
from tools.guest.modules import VIRTIO, module_files


class Kernel(NamedTuple):
    """One kernel package's payload."""

    bzimage: bytes
    vmlinux: bytes
    config: bytes
    modules: dict[str, bytes]
    """What goes into an initramfs, by path."""


def read_kernel(deb: Path, modules: Iterable[str] = VIRTIO) -> Kernel:
    """Take the kernel and some modules out of a linux-image package and unpack its ELF on the host."""
    files = {path: content for path, member, content in members(deb) if member.isreg()}
    boot = {os.path.basename(path): content for path, content in files.items() if path.startswith("/boot/")}
    try:
        bzimage, config = (_only(boot, prefix) for prefix in ("vmlinuz-", "config-"))
    except KeyError as missing:
        raise DebianError(f"{deb.name} has no /boot/{missing.args[0]}*") from None
    return Kernel(bzimage, unpack_bzimage(bzimage), config, module_files(files, modules))


def _only(files: dict[str, bytes], prefix: str) -> bytes:
    for name, content in files.items():
        if name.startswith(prefix):
            return content
    raise KeyError(prefix)
