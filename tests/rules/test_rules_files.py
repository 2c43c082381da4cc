"""A file answers one question: it is small, it says what it is, and it leaves nothing to be done later."""

import ast
import re

from hibana import errors
from tests.rules.source_tree import PACKAGE, ROOT, sources

MAX_LINES = 600
TABLES = {
    "src/hibana/errors.py",
    "src/hibana/observe/metrics_groups.py",
    "src/hibana/engine/soft/thunks.py",
}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "managers"}
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


def test_no_file_is_longer_than_six_hundred_lines() -> None:
    long = {
        source.name: count
        for source in sources("src", "tests", "tools")
        if (count := source.text.count("\n")) > MAX_LINES and source.name not in TABLES
    }
    assert not long


def test_the_tables_that_may_be_long_exist() -> None:
    assert all((ROOT / table).exists() for table in TABLES)


def test_a_package_starts_with_a_docstring_and_nothing_else() -> None:
    for source in sources("src/hibana"):
        if source.path.name == "__init__.py" and source.module:
            assert ast.get_docstring(source.tree), f"{source.name}: no introduction to the chapter"
            assert len(source.tree.body) == 1, f"{source.name}: importing a package must cost nothing"


def test_every_folder_with_code_is_a_package() -> None:
    folders = {source.path.parent for source in sources("src/hibana")}
    missing = [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").exists()]
    assert not missing


def test_every_file_of_the_product_and_its_tools_says_what_it_is() -> None:
    silent = [source.name for source in sources("src", "tools") if not ast.get_docstring(source.tree)]
    assert not silent


def test_file_names_say_what_is_inside() -> None:
    vague = [source.name for source in sources("src", "tests", "tools") if source.path.stem in VAGUE_NAMES]
    assert not vague


def test_nothing_is_left_to_be_done() -> None:
    unfinished = [
        f"{source.name}:{number}: {line.strip()}"
        for source in sources("src", "tests", "tools")
        for number, line in enumerate(source.text.splitlines(), start=1)
        if UNFINISHED.search(line)
    ]
    assert not unfinished, "\n".join(unfinished)


def test_every_sentence_that_a_user_can_see_is_in_one_file() -> None:
    known = {
        name for name, item in vars(errors).items() if isinstance(item, type) and issubclass(item, errors.VmmError)
    }
    strays = [
        f"{source.name}:{node.lineno}: {node.name}"
        for source in sources("src/hibana")
        if source.module != "errors"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and known & {_last_name(base) for base in node.bases}
    ]
    assert not strays, f"errors live in errors.py: {strays}"


def _last_name(base: ast.expr) -> str:
    return base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""


def test_the_book_lists_every_file_once_and_no_other() -> None:
    listed = re.findall(r"^\| `([\w/]+\.py)`", (ROOT / "docs/book.md").read_text(), re.MULTILINE)
    there = {str(source.path.relative_to(PACKAGE)) for source in sources("src/hibana")}
    assert sorted(listed) == sorted(name for name in there if not name.endswith("__init__.py"))
