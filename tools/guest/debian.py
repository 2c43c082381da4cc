"""Take packages from Debian's archive without installing them, and without root.

apt-get keeps its index and downloads in `build/apt`; the host's own package state is neither read nor touched, but its
sources and keys are the ones used.
"""

import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal


class DebianError(Exception):
    """apt-get or dpkg-deb failed; the message is the tool's own."""


class Archive:
    """Debian's package archive, seen through a private index in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lists = folder / "lists"
        self._debs = folder / "debs"

    def refresh(self) -> None:
        """Fetch the newest index."""
        (self._lists / "partial").mkdir(parents=True, exist_ok=True)
        self._debs.mkdir(parents=True, exist_ok=True)
        self._apt("apt-get", "-qq", "update")

    def dependency(self, package: str, prefix: str) -> str:
        """Name the first dependency of a meta package that starts with `prefix`."""
        for line in self._apt("apt-cache", "depends", package).splitlines():
            kind, _, name = line.strip().partition(": ")
            if kind == "Depends" and name.startswith(prefix):
                return name
        raise DebianError(f"{package} depends on no {prefix}*: does this host use Debian's sources?")

    def closure(self, wanted: Sequence[str]) -> list[str]:
        """List the packages that make up a system of its own in which `wanted` are installed."""
        nothing_installed = "Dir::State::status=/dev/null"
        install = ("install", "--print-uris", "--yes", "--no-install-recommends")
        listing = self._apt("apt-get", "-o", nothing_installed, *install, *wanted)
        return [line.split()[1].partition("_")[0] for line in listing.splitlines() if line.startswith("'")]

    def download(self, packages: Sequence[str]) -> dict[str, Path]:
        """Fetch the newest version of each package, checked against the signed index; return the .deb files."""
        # Not asked where the files may already lie: apt-get does not name those.
        uris = self._apt("apt-get", "download", "--print-uris", *packages, where=self._lists)
        names = [line.split()[1] for line in uris.splitlines() if line.startswith("'")]
        if len(names) != len(packages):
            raise DebianError(f"apt-get offers {names} for {list(packages)}")
        self._apt("apt-get", "-qq", "download", *packages)
        return {name.partition("_")[0]: self._debs / name for name in names}

    def _apt(self, *command: str, where: Path | None = None) -> str:
        program, *arguments = command
        private = (
            f"Dir::State::lists={self._lists}",
            f"Dir::Cache={self._folder}/cache",
            "APT::Sandbox::User=",  # the folder may be closed to the `_apt` user
            "Acquire::Languages=none",
            "Acquire::Retries=3",
        )
        options = [word for option in private for word in ("-o", option)]
        done = subprocess.run(
            [program, *options, *arguments], check=False, cwd=where or self._debs, capture_output=True, text=True
        )
        if done.returncode:
            raise DebianError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def members(deb: Path, part: Literal["fsys", "ctrl"] = "fsys") -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
    """Yield every member of a package's file tree, or of its control files: absolute path, tar header, content."""
    unpacker = subprocess.Popen(["dpkg-deb", f"--{part}-tarfile", str(deb)], stdout=subprocess.PIPE)
    with unpacker, tarfile.open(fileobj=unpacker.stdout, mode="r|") as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isreg() else None
            yield member.name.removeprefix("."), member, stream.read() if stream else b""
    if unpacker.returncode:
        raise DebianError(f"dpkg-deb cannot read {deb}")
