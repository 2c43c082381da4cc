"""The root file system: a small Debian with the programs that guest tests and benchmarks use.

Packages are unpacked into a folder, not installed, so this needs neither root nor a chroot. What their scripts would
have done at installation, and somebody would miss, is done by hand: `_finish`. dpkg is told that all of it is
installed; in a microVM with a network `apt-get install` works.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from tools.guest.debian import members
from tools.guest.ext4 import make_image
from tools.guest.python import compile_library
from tools.guest.tree import Tree

PACKAGES: Final = (
    "?essential",
    "?priority(required)",
    "usr-is-merged",  # or its alternative, a script in Perl, would come along
    "apt",
    "busybox-static",
    "ca-certificates",
    "curl",
    "fio",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "python3",
    "socat",
)
"""What is wanted, as apt-get takes it; dependencies come along."""
BOX_PACKAGES: Final = ("binutils", "python3-venv", "qemu-system-x86")
"""What tests and benchmarks use besides, inside the box."""

_HERE: Final = Path(__file__).parent
_LABEL: Final = "hibana-rootfs"
_MERGED: Final = ("bin", "lib", "lib64", "sbin")
"""What has been links into /usr since Debian 12; packages still name the old places."""
_LEFT_OUT: Final = tuple(f"/usr/share/{name}/*" for name in ("doc", "doc-base", "info", "lintian", "locale", "man"))
_KEPT: Final = "/usr/share/doc/*/copyright"
_NOT_COMPILED: Final = "/(ensurepip|idlelib|lib2to3|pydoc_data|test|tests|turtledemo)/"

_COPIES: Final = {
    "/etc/group": "/usr/share/base-passwd/group.master",
    "/etc/nsswitch.conf": "/usr/share/libc-bin/nsswitch.conf",
    "/etc/passwd": "/usr/share/base-passwd/passwd.master",
    "/etc/profile": "/usr/share/base-files/profile",
    "/etc/shells": "/usr/share/debianutils/shells",
    "/root/.bashrc": "/usr/share/base-files/dot.bashrc",
    "/root/.profile": "/usr/share/base-files/dot.profile",
}
_LINKS: Final = {
    "/etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
    "/etc/mtab": "../proc/self/mounts",
    "/etc/resolv.conf": "/run/resolv.conf",  # written by the initramfs, if there is a network
    "/usr/bin/awk": "mawk",
    "/usr/bin/pager": "more",
    "/usr/bin/which": "which.debianutils",
    "/var/lock": "/run/lock",
    "/var/run": "/run",
}
_TEXTS: Final = {
    "/etc/fstab": "# The initramfs mounts the root; /sbin/init the rest.\n",
    "/etc/hostname": "hibana\n",
    "/etc/hosts": "127.0.0.1 localhost hibana\n::1 localhost\n",
    "/etc/machine-id": "",
    "/etc/subgid": "",
    "/etc/subuid": "",
    "/var/lib/dpkg/available": "",
    "/var/lib/dpkg/info/format": "1\n",
}
_APT_USER: Final = "_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n"
_CERTIFICATES: Final = "usr/share/ca-certificates"


def make_rootfs(debs: Mapping[str, Path], image: Path) -> None:
    """Make the image of the given packages."""
    # Beside the image: /tmp may be small, or lie in memory.
    with tempfile.TemporaryDirectory(prefix=".rootfs-", dir=image.parent) as folder:
        tree = unpack(debs, Path(folder) / "tree")
        compile_library(tree.root, "-x", _NOT_COMPILED)
        make_image(tree, image, _LABEL)


def unpack(debs: Mapping[str, Path], root: Path) -> Tree:
    """Put the file system together in a folder."""
    root.mkdir()
    tree = Tree(root)
    for name in _MERGED:
        tree.directory(f"/usr/{name}")
        tree.symlink(f"/{name}", f"usr/{name}")
    status = [_unpack(tree, debs[name]) for name in sorted(debs)]
    tree.file("/var/lib/dpkg/status", "\n".join(status))
    _finish(tree)
    return tree


def _unpack(tree: Tree, deb: Path) -> str:
    """Add a package and what dpkg remembers of it; return its entry in dpkg's list."""
    control = {name.lstrip("/"): content for name, member, content in members(deb, "ctrl") if member.isreg()}
    names = []
    for name, member, content in members(deb):
        names.append(name.rstrip("/") or "/.")
        if not _is_left_out(name) and name.strip("/") not in ("", *_MERGED):
            tree.add(name, member, content)
    entry = control.pop("control").decode()
    prefix = f"/var/lib/dpkg/info/{_dpkg_name(entry)}"
    tree.file(f"{prefix}.list", "".join(f"{name}\n" for name in names))
    for name, content in control.items():
        tree.file(f"{prefix}.{name}", content, 0o755 if content.startswith(b"#!") else 0o644)
    head, _, rest = entry.partition("\n")
    return f"{head}\nStatus: install ok installed\n{rest}{_conffiles(tree, control)}"


def _is_left_out(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _LEFT_OUT) and not name.endswith("/") and not fnmatch(name, _KEPT)


def _dpkg_name(entry: str) -> str:
    fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and not line.startswith(" "))
    together = fields.get("Multi-Arch") == "same"
    return f"{fields['Package']}:{fields['Architecture']}" if together else fields["Package"]


def _conffiles(tree: Tree, control: Mapping[str, bytes]) -> str:
    """Say which files people may have changed, and what they were; dpkg asks before it replaces such a file."""
    names = control.get("conffiles", b"").decode().split("\n")
    lines = [f" {name} {hashlib.md5(tree.read(name)).hexdigest()}\n" for name in names if name.startswith("/")]
    return "".join(["Conffiles:\n", *lines]) if lines else ""


def _finish(tree: Tree) -> None:
    """Do what scripts do at installation."""
    for name, source in _COPIES.items():
        tree.file(name, tree.read(source))
    for name, target in _LINKS.items():
        tree.symlink(name, target)
    for name, text in _TEXTS.items():
        tree.file(name, text)
    passwd = tree.read("/etc/passwd").decode() + _APT_USER
    tree.file("/etc/passwd", passwd)
    tree.file("/etc/shadow", "".join(f"{line.split(':')[0]}:*:::::::\n" for line in passwd.splitlines()), 0o640)
    certificates = sorted((tree.root / _CERTIFICATES).rglob("*.crt"))
    names = (str(path.relative_to(tree.root / _CERTIFICATES)) for path in certificates)
    tree.file("/etc/ca-certificates.conf", "".join(f"{name}\n" for name in names))
    tree.file("/etc/ssl/certs/ca-certificates.crt", b"".join(path.read_bytes() for path in certificates))
    release = dict(line.split("=", 1) for line in tree.read("/usr/lib/os-release").decode().splitlines())
    tree.file("/etc/apt/sources.list", _sources(release["VERSION_CODENAME"]))
    for name in ("/media", "/mnt", "/opt", "/srv"):
        tree.directory(name)
    tree.file("/sbin/init", (_HERE / "rootfs_init.sh").read_bytes(), 0o755)


def _sources(suite: str) -> str:
    mirror = "http://deb.debian.org"
    return (
        f"deb {mirror}/debian {suite} main\n"
        f"deb {mirror}/debian {suite}-updates main\n"
        f"deb {mirror}/debian-security {suite}-security main\n"
    )
