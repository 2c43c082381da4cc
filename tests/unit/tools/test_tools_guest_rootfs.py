"""The root file system: made of packages, the same wherever it is made."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.dev import guest
from tools.guest import cpio
from tools.guest.ext4 import make_image
from tools.guest.rootfs import unpack
from tools.guest.tree import Owner, Tree

TOOLS = "/usr/sbin:/sbin:" + os.environ["PATH"]
pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is not installed")
needs_e2fsprogs = pytest.mark.skipif(not shutil.which("mke2fs", path=TOOLS), reason="e2fsprogs is not installed")

Package = Callable[..., Path]


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """Make a package as Debian's maintainers do."""

    def make(name: str, files: dict[str, str], control: str = "", **scripts: str) -> Path:
        folder = tmp_path / f"{name}.d"
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
        (folder / "DEBIAN").mkdir()
        for script, content in scripts.items():
            (folder / "DEBIAN" / script).write_text(content)
            (folder / "DEBIAN" / script).chmod(0o755 if content.startswith("#!") else 0o644)
        head = f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody\n"
        (folder / "DEBIAN/control").write_text(f"{head}{control}Description: made for a test\n")
        deb = tmp_path / f"{name}.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", folder, deb], check=True, capture_output=True)
        return deb

    return make


@pytest.fixture
def base(package: Package) -> Path:
    """Stand in for the packages whose files the finishing touches are made of."""
    sources = ("base-files/profile", "base-files/dot.bashrc", "base-files/dot.profile", "libc-bin/nsswitch.conf")
    files = {f"usr/share/{name}": name for name in (*sources, "base-passwd/group.master", "debianutils/shells")}
    files["usr/share/base-passwd/passwd.master"] = "root:*:0:0:root:/root:/bin/bash\n"
    files["usr/share/ca-certificates/mozilla/B.crt"] = "second\n"
    files["usr/share/ca-certificates/mozilla/A.crt"] = "first\n"
    files["usr/lib/os-release"] = "ID=debian\nVERSION_CODENAME=bookworm\n"
    files["lib/x86_64-linux-gnu/libc.so.6"] = "library"
    return package("base", files)


def test_packages_are_laid_over_each_other_and_links_into_usr_are_followed(
    package: Package, base: Path, tmp_path: Path
) -> None:
    other = package("other", {"bin/tool": "tool", "usr/bin/other": "other", "usr/share/doc/other/README": "long"})
    root = unpack({"base": base, "other": other}, tmp_path / "tree").root
    assert (root / "bin").readlink() == Path("usr/bin")
    assert (root / "usr/bin/tool").read_text() == "tool"
    assert (root / "usr/lib/x86_64-linux-gnu/libc.so.6").exists()
    assert not (root / "usr/share/doc/other/README").exists()


def test_the_licence_stays_when_documentation_goes(package: Package, base: Path, tmp_path: Path) -> None:
    other = package("other", {"usr/share/doc/other/copyright": "MIT", "usr/share/man/man1/other.1": ".TH"})
    root = unpack({"base": base, "other": other}, tmp_path / "tree").root
    assert (root / "usr/share/doc/other/copyright").read_text() == "MIT"
    assert not (root / "usr/share/man/man1/other.1").exists()


def test_dpkg_takes_the_packages_for_installed(package: Package, base: Path, tmp_path: Path) -> None:
    other = package(
        "other",
        {"etc/other.conf": "setting\n"},
        "Multi-Arch: same\n",
        conffiles="/etc/other.conf\n",
        postinst="#!/bin/sh\n",
    )
    root = unpack({"base": base, "other": other}, tmp_path / "tree").root
    query = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Package} ${Status}${Conffiles}\n"]
    said = subprocess.run(query, check=True, capture_output=True, text=True).stdout
    checksum = hashlib.md5(b"setting\n").hexdigest()
    assert said == f"base install ok installed\nother install ok installed /etc/other.conf {checksum}\n"
    info = root / "var/lib/dpkg/info"
    assert "/etc/other.conf\n" in (info / "other:amd64.list").read_text()
    assert (info / "other:amd64.postinst").stat().st_mode & 0o111


def test_what_installation_scripts_would_do_is_done(base: Path, tmp_path: Path) -> None:
    root = unpack({"base": base}, tmp_path / "tree").root
    assert (root / "etc/passwd").read_text().splitlines()[-1].startswith("_apt:")
    assert (root / "etc/shadow").read_text() == "root:*:::::::\n_apt:*:::::::\n"
    assert (root / "etc/ssl/certs/ca-certificates.crt").read_text() == "first\nsecond\n"
    assert (root / "etc/ca-certificates.conf").read_text() == "mozilla/A.crt\nmozilla/B.crt\n"
    assert "bookworm-security main" in (root / "etc/apt/sources.list").read_text()
    assert (root / "sbin/init").stat().st_mode & 0o111


@needs_e2fsprogs
def test_an_image_depends_on_nothing_but_the_content(tmp_path: Path) -> None:
    images = []
    for number, names in enumerate((("a", "b c", "ü"), ("ü", "b c", "a"))):
        root = tmp_path / str(number)
        root.mkdir()
        tree = Tree(root)
        for name in names:
            tree.file(f"/folder/{name}", name * 5000)
        tree.owners["/folder/a"] = Owner(3, 42)
        tree.newest = 1_700_000_000
        images.append(tmp_path / f"{number}.ext4")
        make_image(tree, images[-1], "test")
    assert images[0].read_bytes() == images[1].read_bytes()
    stat = _debugfs(images[0], "stat /folder/a")
    assert "User:     3   Group:    42" in stat
    assert stat.count("0x6553f100") == 4, "all four times"
    assert _debugfs(images[0], 'cat "/folder/b c"') == "b c" * 5000


def _debugfs(image: Path, command: str) -> str:
    settings = {**os.environ, "PATH": TOOLS}
    done = subprocess.run(["debugfs", "-R", command, image], check=True, env=settings, capture_output=True, text=True)
    return done.stdout


def test_every_file_of_the_recipes_is_in_one() -> None:
    folder = Path(cpio.__file__).parent
    there = {path.name for path in folder.iterdir() if path.is_file()} - {"__init__.py"}
    assert there == {name for product in guest.PRODUCTS for name in product.recipe}
