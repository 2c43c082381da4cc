"""Files that the user names."""

import os
from pathlib import Path

import pytest

from hibana.config.host_file import open_host_file, read_host_file
from hibana.errors import (
    HostFileError,
)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/nowhere", "No such file or directory (os error 2)"),
        ("", "No such file or directory (os error 2)"),
        ("/etc/passwd/x", "Not a directory (os error 20)"),
        ("/" + "x" * 300, "Filename too long (os error 36)"),
        ("/a\0b", "file name contained an unexpected NUL byte"),
    ],
)
def test_a_file_that_cannot_be_opened_has_the_systems_sentence(path: str, sentence: str) -> None:
    with pytest.raises(HostFileError) as refused:
        open_host_file(path, os.O_RDONLY)
    assert str(refused.value) == sentence


def test_opening_a_fifo_waits_for_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fd = open_host_file(str(tmp_path / "fifo"), os.O_RDONLY)
    assert os.get_blocking(fd)
    os.close(fd)


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    """Command lines are bytes; those that are no UTF-8 come to us in Python's disguise."""
    path = os.fsdecode(bytes(tmp_path) + b"/\xff\xe9")
    Path(path).write_bytes(b"content")
    assert read_host_file(path) == b"content"
    os.close(open_host_file(path, os.O_RDONLY))


def test_reading_a_directory_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(HostFileError, match=r"^Is a directory \(os error 21\)$"):
        read_host_file(str(tmp_path))


def test_reading_a_file_without_an_end_is_an_error_with_a_sentence() -> None:
    with pytest.raises(HostFileError, match=r"^File too large \(os error 27\)$"):
        read_host_file("/dev/zero")
