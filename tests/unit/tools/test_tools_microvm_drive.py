"""A microVM's copy of an image."""

import os
from pathlib import Path

import pytest

from tools.microvm.drive import copy_on_write

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Make an image with content, a hole, content, and a hole at the end."""
    path = tmp_path / "image.ext4"
    with open(path, "wb") as file:
        file.write(os.urandom(MIB))
        file.seek(8 * MIB)
        file.write(os.urandom(MIB))
        file.truncate(16 * MIB)
    return path


def test_a_copy_has_the_same_bytes_and_the_same_holes(image: Path) -> None:
    with copy_on_write(image) as copy:
        assert copy.read_bytes() == image.read_bytes()
        assert copy.stat().st_blocks <= image.stat().st_blocks


def test_what_is_written_into_the_copy_stays_there(image: Path) -> None:
    before = image.read_bytes()
    with copy_on_write(image) as copy:
        copy.write_bytes(b"changed")
    assert image.read_bytes() == before


def test_a_copy_does_not_outlive_its_microvm(image: Path) -> None:
    with pytest.raises(KeyboardInterrupt), copy_on_write(image) as copy:
        raise KeyboardInterrupt
    assert not copy.exists()
    assert os.listdir(image.parent) == [image.name]


def test_an_image_that_is_all_hole(tmp_path: Path) -> None:
    image = tmp_path / "empty"
    image.touch()
    os.truncate(image, MIB)
    with copy_on_write(image) as copy:
        assert copy.read_bytes() == bytes(MIB)
