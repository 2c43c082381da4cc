"""Debian packages that a command needs on this machine: installed where we may, named where we may not."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

from tools.dev.say import Failure, Step

# Program → the Debian package that brings it, and what it is no use without.
PACKAGES: Final = {
    "as": "binutils",
    "curl": "curl",
    "debugfs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "gcc": "gcc libc6-dev",
    "git": "git",
    "ip": "iproute2",
    "iperf3": "iperf3",
    "mke2fs": "e2fsprogs",
    "nft": "nftables",
    "qemu-system-x86_64": "qemu-system-x86",
}


def need(*programs: str) -> None:
    """Make sure that the programs are there."""
    wanted = [PACKAGES[program] for program in programs if not shutil.which(program)]
    missing = list(dict.fromkeys(package for packages in wanted for package in packages.split()))
    if not missing:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() or not shutil.which("apt-get"):
        raise Failure(f"needs Debian packages that are not installed. Install them with:\n    sudo {' '.join(install)}")
    with Step(f"Debian packages: installing {' '.join(missing)}"):
        if not _apt(install):
            _apt(["apt-get", "update"])
            if not _apt(install):
                raise Failure(f"`{' '.join(install)}` failed")


def _apt(command: Sequence[str]) -> bool:
    """Run apt-get quietly; an index that is old or was never fetched makes an installation fail."""
    settings = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, check=False, env=settings, capture_output=True).returncode == 0
