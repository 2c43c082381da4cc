"""Files that somebody names are read as a whole, or not at all, and never for ever."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hibana import whole_file
from hibana.units import KIB
from hibana.whole_file import LIMIT, read_whole_file


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_file, "_PATIENCE_S", 0.05)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    yield str(path)


def refusal(path: str, limit: int = LIMIT) -> int:
    with pytest.raises(OSError) as refused:
        read_whole_file(path, limit)
    assert refused.value.errno
    return refused.value.errno


@pytest.mark.parametrize("size", [0, 1, 64 * KIB])
def test_a_file_is_read_from_beginning_to_end(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert read_whole_file(str(tmp_path / "file"), limit=64 * KIB) == content


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(65))
    assert refusal(str(tmp_path / "file"), limit=64) == errno.EFBIG


def test_a_file_without_an_end_is_refused() -> None:
    assert refusal("/dev/zero") == errno.EFBIG


def test_a_huge_sparse_file_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    assert refusal(str(tmp_path / "sparse")) == errno.EFBIG


@pytest.mark.usefixtures("impatient")
def test_nobody_is_waited_for_who_never_writes_into_a_fifo(fifo: str) -> None:
    assert refusal(fifo) == errno.ETIMEDOUT


@pytest.mark.usefixtures("impatient")
def test_nobody_is_waited_for_who_holds_a_fifo_open_and_writes_no_more(fifo: str) -> None:
    holding = os.open(fifo, os.O_RDWR)
    os.write(holding, b"{")
    assert refusal(fifo) == errno.ETIMEDOUT
    os.close(holding)


@pytest.mark.usefixtures("impatient")
def test_nobody_is_waited_for_who_says_that_there_is_something_and_never_gives_it(
    fifo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding = os.open(fifo, os.O_RDWR)
    os.write(holding, b"{")

    def others_are_faster(*_: int) -> bytes:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", others_are_faster)
        assert refusal(fifo) == errno.ETIMEDOUT
    os.close(holding)


def test_a_fifo_is_read_until_its_writer_has_finished(fifo: str) -> None:
    """As the shell's `<(command)` gives one; more than a pipe holds at once."""
    content = os.urandom(300 * KIB)
    writer = threading.Thread(target=Path(fifo).write_bytes, args=(content,))
    writer.start()
    assert read_whole_file(fifo) == content
    writer.join()


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert refusal(str(tmp_path)) == errno.EISDIR


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(65))
    before = os.listdir("/proc/self/fd")
    read_whole_file(str(tmp_path / "file"))
    refusal(str(tmp_path / "file"), limit=64)
    assert os.listdir("/proc/self/fd") == before
