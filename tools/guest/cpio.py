"""Write initramfs archives in the kernel's `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst).

Archives are reproducible: no times, no owners but root, inodes numbered in the order of the names. Several archives in
a row are one initramfs, so a second one may add or replace files of the first.
"""

import stat
from typing import Final, NamedTuple

_MAGIC: Final = b"070701"
_TRAILER: Final = "TRAILER!!!"
_BLOCK: Final = 512


class Entry(NamedTuple):
    """One member: `mode` holds the type bits too; `rdev` is (major, minor) of a device node."""

    mode: int
    content: bytes = b""
    rdev: tuple[int, int] = (0, 0)


class Archive:
    """Members by path; a directory that nobody named is made when something is put below it."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._add(path, Entry(stat.S_IFREG | mode, content))

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory."""
        self._add(path, Entry(stat.S_IFDIR | mode))

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device node; writing it into an archive needs no privilege."""
        self._add(path, Entry(stat.S_IFCHR | mode, rdev=(major, minor)))

    def paths(self) -> list[str]:
        """List all members, parents before children."""
        return sorted(self._entries)

    def to_bytes(self) -> bytes:
        """Serialise, padded to whole blocks."""
        out = bytearray()
        for inode, path in enumerate(self.paths(), start=1):
            _append(out, path, inode, self._entries[path])
        _append(out, _TRAILER, 0, Entry(0))
        out += bytes(-len(out) % _BLOCK)
        return bytes(out)

    def _add(self, path: str, entry: Entry) -> None:
        path = path.strip("/")
        parent, slash, _ = path.rpartition("/")
        if slash and parent not in self._entries:
            self.directory(parent)
        self._entries[path] = entry


def _append(out: bytearray, path: str, inode: int, entry: Entry) -> None:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, uid, gid, links, mtime, size, device (major, minor), node (major, minor), name size, checksum
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, *entry.rdev, len(name), 0)
    out += _MAGIC + b"".join(b"%08X" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += entry.content
    out += bytes(-len(out) % 4)
