"""Everything that the VMM may import later is in memory before the door closes."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hibana.cli import preload
from hibana.vmm import engines

SOURCE = Path(preload.__file__).parents[2]
LATER = {"hibana", "msgspec", "lz4", "backports", *sys.stdlib_module_names}

# What a jailed VMM does, without the jail: afterwards everything is imported that it may import, and nothing is opened.
SCRIPT = """
import importlib, sys
sys.path.insert(0, {source!r})
from hibana.cli import preload
preload.everything({engine!r})
preload.stop_looking()
opened = []
sys.addaudithook(lambda event, words: opened.append(words[0]) if event == "open" else None)
for module in {modules!r}:
    importlib.import_module(module)
print(*opened, sep="\\n")
print("hibana.engine.soft.library" in sys.modules)
"""


def imports_of(module: str) -> Iterator[str]:
    """Name what a module of ours imports anywhere, functions included."""
    path = SOURCE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if is_ours(f"{node.module}.{alias.name}"))


def is_ours(module: str) -> bool:
    path = SOURCE.joinpath(*module.split("."))
    return module.startswith("hibana.") and (path.is_dir() or path.with_suffix(".py").exists())


def everything_imported(*roots: str) -> set[str]:
    """Follow imports through our own modules."""
    found: set[str] = set()
    new = set(roots)
    while new:
        found |= new
        new = {name for module in new if is_ours(module) for name in imports_of(module)} - found
    zstd = {"backports.zstd", "compression.zstd"} - set(preload.MODULES)
    return found - zstd


def preloaded(engine: str, modules: set[str]) -> list[str]:
    """Import modules where nothing can be opened; give the files that were opened, and whether soft is loaded."""
    script = SCRIPT.format(source=str(SOURCE), engine=engine, modules=sorted(modules))
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_no_import_is_left_for_later() -> None:
    modules = everything_imported(*preload.MODULES, *engines.modules("auto"))
    assert {"hibana.vmm.assemble", "hibana.engine.soft.vm", "lz4.block", "traceback"} <= modules
    assert preloaded("auto", modules) == ["True"]


def test_another_version_of_python_gets_the_same_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = everything_imported(*preload.MODULES, *engines.modules("auto"))
    monkeypatch.setattr(
        sys.modules[__name__], "SCRIPT", SCRIPT.replace("preload.every", "preload._PYTHON = ()\npreload.every")
    )
    assert preloaded("auto", modules) == ["True"]


def test_the_library_of_the_soft_engine_is_loaded_unless_another_engine_is_asked_for() -> None:
    assert preloaded("soft", set()) == ["True"]
    assert preloaded("kvm", set()) == ["False"]


def test_afterwards_nothing_is_looked_for_any_more() -> None:
    script = SCRIPT.format(source=str(SOURCE), engine="kvm", modules=["wave"])
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'wave'\n")
