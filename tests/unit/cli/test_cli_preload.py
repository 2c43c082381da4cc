"""Everything that the VMM may import later is imported before the door closes."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hibana.cli import preload

SOURCE = Path(preload.__file__).parents[2]
NEVER_NEEDED = {"backports.zstd", "compression.zstd"} - set(preload.MODULES)


def loaded(statements: str) -> set[str]:
    """Run statements in a new interpreter; give the modules that are there afterwards."""
    script = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {statements}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def imports_of(module: str) -> Iterator[str]:
    """Name what a module of ours imports anywhere, functions included."""
    path = SOURCE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("engine", ["auto", "kvm"])
def test_no_import_is_left_for_later(engine: str) -> None:
    modules = loaded(f"from hibana.cli import preload; preload.everything({engine!r})")
    ours = {module for module in modules if module.partition(".")[0] == "hibana"}
    assert "hibana.vmm.assemble" in ours
    later = {
        f"{module} imports {name}"
        for module in ours
        for name in imports_of(module)
        if name not in modules and name not in NEVER_NEEDED and not (engine == "kvm" and ".engine.soft" in name)
    }
    assert not later


def test_the_soft_engine_is_loaded_unless_another_one_is_asked_for() -> None:
    assert "hibana.engine.soft.vm" in loaded("from hibana.cli import preload; preload.everything('auto')")
    assert "hibana.engine.soft.vm" not in loaded("from hibana.cli import preload; preload.everything('kvm')")


def test_afterwards_nothing_is_looked_for_any_more() -> None:
    script = "from hibana.cli import preload; preload.stop_looking()\ntry: import wave\nexcept ImportError: pass"
    modules = loaded(f"exec({script!r})")
    assert "wave" not in modules
