"""The two initramfs images: busybox and drivers, and the same with Python and Perl for benchmarks and guest tests."""

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from tools.guest.cpio import Archive
from tools.guest.debian import members
from tools.guest.python import LIBRARY, compile_library

_HERE: Final = Path(__file__).parent

# Which files of which package go into the script image; a pattern's `*` also matches slashes.
SCRIPT_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "libc6": (
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/x86_64-linux-gnu/libm.so.6",
    ),
    "libcrypt1": ("/lib/x86_64-linux-gnu/libcrypt.so.1*",),
    "libexpat1": ("/lib/x86_64-linux-gnu/libexpat.so.1*",),
    "zlib1g": ("/lib/x86_64-linux-gnu/libz.so.1*",),
    "perl-base": ("/usr/bin/perl", "/usr/lib/x86_64-linux-gnu/perl-base/*"),
    "python3.11-minimal": ("/usr/bin/python3.11",),
    "libpython3.11-minimal": ("/usr/lib/python3.11/*",),
    "libpython3.11-stdlib": ("/usr/lib/python3.11/*",),
}

# What no guest program of ours imports, or what needs libraries that are not there.
_PYTHON_LEFT_OUT: Final = (
    "sitecustomize.py",
    *("test", "unittest", "doctest.py", "pydoc.py", "pydoc_data", "turtle.py", "xmlrpc", "asyncio", "email", "html"),
    *("http", "xml", "multiprocessing", "logging", "wsgiref", "mailbox.py", "imaplib.py", "smtplib.py"),
    *("encodings/cp*", "encodings/mac_*", "encodings/iso8859_*", "encodings/*_jisx*", "encodings/koi8*"),
    *("encodings/euc_*", "encodings/iso2022*", "encodings/big5*", "encodings/gb*", "encodings/shift_*"),
)
_PERL_UNICODE: Final = "/usr/lib/x86_64-linux-gnu/perl-base/unicore/*"
_PYTHON_EXTENSIONS: Final = ("_contextvars", "_decimal", "_json", "_queue", "_typing", "mmap", "resource", "termios")


def shell_image(busybox_deb: Path, modules: Mapping[str, bytes], init: str = "init.sh") -> Archive:
    """Build the small image: busybox, an /init of ours, a console, the kernel's drivers."""
    archive = Archive()
    for folder in ("dev", "etc", "mnt", "proc", "sys", "tmp", "usr/bin"):
        archive.directory(folder)
    archive.character_device("dev/console", 5, 1)
    archive.file("init", (_HERE / init).read_bytes(), 0o755)
    busybox = next(content for path, _, content in members(busybox_deb) if path == "/bin/busybox")
    archive.file("bin/busybox", busybox, 0o755)
    for applet in _applets(busybox):
        archive.symlink(f"bin/{applet}", "busybox")
    for path, content in modules.items():
        archive.file(path, content)
    return archive


def script_image(debs: Mapping[str, Path], modules: Mapping[str, bytes]) -> Archive:
    """Build the large image: the small one, Python, Perl and the benchmark's script."""
    archive = shell_image(debs["busybox-static"], modules)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for package, patterns in SCRIPT_FILES.items():
            _extract(debs[package], patterns, tree)
        _compile_python(tree)
        _copy_tree(tree, archive)
    archive.symlink("usr/bin/python3", "python3.11")
    for name in ("phases.sh", "workload.py", "workload.pl"):
        archive.file(f"bench/{name}", (_HERE / name).read_bytes(), 0o755)
    return archive


def _applets(busybox: bytes) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "busybox"  # it acts by its name
        program.write_bytes(busybox)
        program.chmod(0o700)
        listing = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout
    return [applet for applet in listing.split() if applet != "busybox"]


def _extract(deb: Path, patterns: tuple[str, ...], tree: Path) -> None:
    for path, member, content in members(deb):
        if member.isdir() or not _wanted(path, patterns):
            continue
        target = tree / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if member.issym():
            target.symlink_to(_inside(member, path))
        else:
            target.write_bytes(content)
            target.chmod(member.mode & 0o755)


def _wanted(path: str, patterns: tuple[str, ...]) -> bool:
    if not any(fnmatch(path, pattern) for pattern in patterns) or fnmatch(path, _PERL_UNICODE):
        return False
    inner = path.removeprefix("/usr/lib/python3.11/")
    if inner == path:
        return True
    if inner.startswith("lib-dynload/"):
        return inner.removeprefix("lib-dynload/").partition(".")[0] in _PYTHON_EXTENSIONS
    return inner.endswith(".py") and not any(fnmatch(inner, p) or inner.startswith(p + "/") for p in _PYTHON_LEFT_OUT)


def _inside(member: tarfile.TarInfo, path: str) -> str:
    """Make an absolute link relative, so that it works in the tree as well as in the guest."""
    if not member.linkname.startswith("/"):
        return member.linkname
    return os.path.relpath(member.linkname, os.path.dirname(path))


def _compile_python(tree: Path) -> None:
    """Replace sources by bytecode beside where they were: Python finds it there without a source."""
    compile_library(tree, "-b")
    for source in (tree / LIBRARY).rglob("*.py"):
        if source.with_suffix(".pyc").exists():
            source.unlink()


def _copy_tree(tree: Path, archive: Archive) -> None:
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            archive.symlink(name, os.readlink(path))
        elif path.is_file():
            archive.file(name, path.read_bytes(), path.stat().st_mode & 0o755)
