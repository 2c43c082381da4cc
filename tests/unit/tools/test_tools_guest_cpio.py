"""The initramfs writer, read back by a reader of the documented format."""

import stat
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from tools.guest.cpio import Archive

HEADER = 110
NAMES = st.text("abcdefgh", min_size=1, max_size=8)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def members(archive: bytes) -> Iterator[tuple[str, list[int], bytes]]:
    """Read name, the thirteen fields, content."""
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_end = at + HEADER + fields[11]
        name = archive[at + HEADER : name_end - 1].decode()
        assert archive[name_end - 1] == 0
        start = (name_end + 3) & ~3
        if name == "TRAILER!!!":
            assert not any(archive[start:])
            return
        yield name, fields, archive[start : start + fields[6]]
        at = (start + fields[6] + 3) & ~3


@given(st.dictionaries(PATHS, st.binary(max_size=50), max_size=8))
def test_every_file_comes_back_as_it_was(files: dict[str, bytes]) -> None:
    archive = Archive()
    for path, content in files.items():
        archive.file(path, content)
    read = {name: content for name, fields, content in members(archive.to_bytes()) if name in files}
    assert read == files


def test_parents_come_before_children_and_are_made_where_nobody_named_them() -> None:
    archive = Archive()
    archive.file("a/b/c", b"x")
    assert [name for name, _, _ in members(archive.to_bytes())] == ["a", "a/b", "a/b/c"]


def test_every_kind_of_member_has_its_mode() -> None:
    archive = Archive()
    archive.file("init", b"#!", 0o755)
    archive.symlink("sh", "busybox")
    archive.directory("tmp", 0o777)
    archive.character_device("console", 5, 1)
    modes = {name: fields[1] for name, fields, _ in members(archive.to_bytes())}
    assert stat.filemode(modes["init"]) == "-rwxr-xr-x"
    assert stat.filemode(modes["sh"]) == "lrwxrwxrwx"
    assert stat.filemode(modes["tmp"]) == "drwxrwxrwx"
    assert stat.filemode(modes["console"]) == "crw-------"


def test_a_device_node_carries_its_numbers() -> None:
    archive = Archive()
    archive.character_device("console", 5, 1)
    (_, fields, _), *_ = members(archive.to_bytes())
    assert (fields[9], fields[10]) == (5, 1)


def test_the_order_of_adding_leaves_no_trace() -> None:
    one, other = Archive(), Archive()
    for path in ("a", "b", "c/d"):
        one.file(path, path.encode())
    for path in ("c/d", "b", "a"):
        other.file(path, path.encode())
    assert one.to_bytes() == other.to_bytes()
