"""A guest's file system in a folder of the host, which it never leaves."""

import tarfile
from pathlib import Path

import pytest

from tools.guest.debian import DebianError
from tools.guest.tree import Tree


def member(
    kind: bytes = tarfile.REGTYPE, mode: int = 0o644, gid: int = 0, link: str = "", mtime: int = 0
) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.mode, info.gid, info.linkname, info.mtime = kind, mode, gid, link, mtime
    return info


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_every_kind_of_member_arrives(tree: Tree, tmp_path: Path) -> None:
    tree.add("/etc", member(tarfile.DIRTYPE, 0o700), b"")
    tree.add("/etc/motd", member(mode=0o4755, mtime=7), b"hello")
    tree.add("/etc/same", member(tarfile.LNKTYPE, link="./etc/motd"), b"")
    tree.add("/etc/other", member(tarfile.SYMTYPE, link="motd", mtime=5), b"")
    assert (tmp_path / "etc").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "etc/motd").stat().st_mode & 0o7777 == 0o4755
    assert (tmp_path / "etc/same").samefile(tmp_path / "etc/motd")
    assert (tmp_path / "etc/other").read_bytes() == b"hello"
    assert tree.newest == 7


def test_an_owner_is_remembered_by_where_the_file_really_lies(tree: Tree) -> None:
    tree.directory("/usr/sbin")
    tree.symlink("/sbin", "usr/sbin")
    tree.add("/sbin/chage", member(gid=42), b"")
    tree.add("/sbin/other", member(), b"")
    assert tree.owners == {"/usr/sbin/chage": (0, 42)}


def test_a_link_takes_the_place_of_an_empty_folder_and_of_a_file(tree: Tree, tmp_path: Path) -> None:
    tree.directory("/var/run")
    tree.file("/var/file", "")
    for name in ("/var/run", "/var/file", "/var/new", "/var/new"):
        tree.symlink(name, "/run")
        assert (tmp_path / name.lstrip("/")).readlink() == Path("/run")


def test_a_package_cannot_write_through_its_own_link_into_the_host(tree: Tree, tmp_path: Path) -> None:
    outside = tmp_path.parent
    tree.symlink("/way", str(outside))
    with pytest.raises(DebianError, match="leads out of the tree"):
        tree.file("/way/out", "")
    with pytest.raises(DebianError, match="leads out of the tree"):
        tree.directory("/../out")
    assert not (outside / "out").exists()


def test_a_file_replaces_a_link_and_not_what_it_points_to(tree: Tree, tmp_path: Path) -> None:
    tree.file("/kept", "kept")
    tree.symlink("/name", "kept")
    tree.file("/name", "new")
    assert (tmp_path / "kept").read_text() == "kept"
    assert tree.read("/name") == b"new"
