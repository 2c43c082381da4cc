"""Modules that are read now and run later."""

import subprocess
import sys
from pathlib import Path

import pytest

from hibana.cli import preload

SOURCE = Path(preload.__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "package/__init__.py": "print('package')",
        "package/one.py": "from package.inner import two\nprint('one', two.WORD, __file__)",
        "package/inner/__init__.py": "",
        "package/inner/two.py": "WORD = 2",
        "package/other/__init__.py": "print('never')",
        "package/data.txt": "",
        "package/notes/readme.py": "print('not a package')",
        "broken.py": "raise ValueError('at the right place')",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def run(folder: Path, *lines: str) -> str:
    """Put things on a shelf, hide all files, and go on."""
    script = [
        "import sys, os, shutil",
        f"sys.path[:0] = [{str(SOURCE)!r}, {str(folder)!r}]",
        "from hibana.cli.shelf import Shelf",
        "shelf = Shelf()",
        "shelf.put('package', ['package.other']); shelf.put('broken'); shelf.put('_bisect'); shelf.put('nowhere')",
        f"shutil.rmtree({str(folder)!r})",
        "sys.path.clear(); sys.meta_path.append(shelf)",
        *lines,
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(script)], check=False, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_nothing_runs_before_it_is_imported(folder: Path) -> None:
    assert run(folder) == ""


@pytest.mark.parametrize("is_cached", [False, True])
def test_a_package_is_imported_when_its_files_are_gone(folder: Path, is_cached: bool) -> None:
    if is_cached:
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder)], check=True)
    assert run(folder, "import package.one") == f"package\none 2 {folder}/package/one.py\n"


def test_a_cache_that_is_out_of_date_is_not_believed(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder)], check=True)
    (folder / "package/inner/two.py").write_text("WORD = 'changed'")
    assert "one changed" in run(folder, "import package.one")


@pytest.mark.parametrize("name", ["package.other", "package.notes", "package.data", "nowhere"])
def test_what_was_left_out_or_is_nowhere_is_not_found(name: str, folder: Path) -> None:
    assert f"No module named '{name}'" in run(folder, f"import {name}")


def test_extension_modules_are_found_again(folder: Path) -> None:
    assert run(folder, "import _bisect; print(_bisect.bisect_left([1, 3], 2))") == "1\n"


def test_tracebacks_name_the_place(folder: Path) -> None:
    said = run(folder, "import broken")
    assert f'File "{folder}/broken.py", line 1, in <module>' in said
    assert said.endswith("ValueError: at the right place\n")
