"""Which files of a checkout go into the box."""

import subprocess
from pathlib import Path

import pytest

from tools.box.checkout import sources
from tools.dev.say import Failure


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("__pycache__/\n/build/\n")
    return tmp_path


def write(checkout: Path, *names: str) -> None:
    for name in names:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(name)


def test_what_git_tracks_or_would_be_asked_to_track(checkout: Path) -> None:
    write(checkout, "src/old.py", "src/gone.py", "build/large")
    subprocess.run(["git", "add", "."], check=True, cwd=checkout)
    (checkout / "src/gone.py").unlink()
    write(checkout, "src/new with space.py")
    assert set(sources(checkout)) == {".gitignore", "src/old.py", "src/new with space.py"}


def test_a_link_goes_along_even_if_it_leads_nowhere(checkout: Path) -> None:
    (checkout / "link").symlink_to("nowhere")
    assert "link" in set(sources(checkout))


def test_what_is_compiled_for_the_python_of_the_box(checkout: Path) -> None:
    compiled = "__pycache__/test_one.cpython-311.pyc", "__pycache__/test_one.cpython-311-pytest-9.2.0.pyc"
    write(checkout, "test_one.py", *compiled, "__pycache__/test_one.cpython-313.pyc", "__pycache__/two.cpython-311.pyc")
    assert set(sources(checkout)) == {".gitignore", "test_one.py", *compiled}


def test_a_folder_that_git_does_not_know_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="git"):
        list(sources(tmp_path))
