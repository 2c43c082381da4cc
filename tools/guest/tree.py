"""A file system of a guest, being put together in a folder of the host by somebody who need not be root."""

import os
from functools import lru_cache
from pathlib import Path
from tarfile import TarInfo
from typing import NamedTuple

from tools.guest.debian import DebianError


class Owner(NamedTuple):
    """A user and a group of the guest."""

    uid: int
    gid: int


ROOT = Owner(0, 0)


class Tree:
    """Files below `root`, and what a folder of an ordinary user cannot hold: whose they are."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.owners: dict[str, Owner] = {}
        """Who owns what does not belong to root, by path."""
        self.newest = 0
        """When the newest file was made, in seconds."""
        self._folders = lru_cache(maxsize=None)(self._folder)

    def path(self, name: str) -> Path:
        """Find where a file of the guest really lies, and make its folder."""
        folder, _, own = name.strip("/").rpartition("/")
        return self._folders(folder) / own

    def file(self, name: str, content: bytes | str, mode: int = 0o644) -> None:
        """Write a file."""
        path = self.path(name)
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Make a directory."""
        path = self.path(name)
        path.mkdir(exist_ok=True)
        path.chmod(mode)

    def symlink(self, name: str, target: str) -> None:
        """Make a symbolic link, also where an empty directory is."""
        path = self.path(name)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def read(self, name: str) -> bytes:
        """Read a file back."""
        return self.path(name).read_bytes()

    def add(self, name: str, member: TarInfo, content: bytes) -> None:
        """Take over a member of a package."""
        if member.isdir():
            self.directory(name, member.mode)
        elif member.issym():
            self.symlink(name, member.linkname)
        elif member.islnk():
            os.link(self.path(member.linkname.removeprefix(".")), self.path(name))
        else:
            self.file(name, content, member.mode)
        if (member.uid, member.gid) != ROOT:
            self.owners[f"/{self.path(name).relative_to(self.root)}"] = Owner(member.uid, member.gid)
        self.newest = max(self.newest, int(member.mtime))

    def _folder(self, name: str) -> Path:
        folder = (self.root / name).resolve()
        # A package may have put a link in the way that leads, seen from here, into the host.
        if not folder.is_relative_to(self.root):
            raise DebianError(f"/{name} leads out of the tree")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
