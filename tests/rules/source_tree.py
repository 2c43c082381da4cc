"""The source files as the rules see them: path, text, syntax tree."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "src" / "hibana"


class Source(NamedTuple):
    """One Python file."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """The path as it is written in messages."""
        return str(self.path.relative_to(ROOT))

    @property
    def module(self) -> str:
        """The dotted name below `hibana`; empty for the package itself."""
        parts = self.path.relative_to(PACKAGE).with_suffix("").parts
        return ".".join(part for part in parts if part != "__init__")


def sources(*folders: str) -> Iterator[Source]:
    """Parse every Python file below the given folders of the repository."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text()
            yield Source(path, text, ast.parse(text, str(path)))
