"""Imports point down (docs/book.md): a chapter may know the chapters below it, never those above or beside it."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter

from tests.rules.source_tree import PACKAGE, Source, sources

FLOOR = {"errors", "units", "view", "whole_file", "observe"}
MACHINE = FLOOR | {"memory", "bus", "devices"}

# Package → what it may import besides itself and the standard library.
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),
    "errors": set(),
    "units": set(),
    "view": set(),
    "whole_file": {"units"},
    "observe": {"errors", "units"},
    "serde": {"errors", "units"},
    "memory": {"errors", "units", "view", "observe"},
    "engine": {"memory"},
    "bus": FLOOR | {"memory", "engine"},
    "devices": FLOOR | {"memory", "bus"},
    "host": MACHINE,
    "engine.soft": FLOOR | {"memory", "engine"},
    "engine.kvm": FLOOR | {"memory", "engine"},
    "boot": FLOOR | {"memory", "engine"},
    "config": FLOOR | {"", "serde"},
    "cpu_templates": FLOOR | {"", "serde", "config", "engine"},
    "seccomp": FLOOR | {"serde"},
    "vmm": MACHINE
    | {"", "serde", "seccomp", "config", "cpu_templates", "boot", "host", "engine", "engine.soft", "engine.kvm"},
    "api": FLOOR | {"", "serde", "config", "vmm"},
    "jail": {"errors", "serde"},
    "doctor": FLOOR | {"host", "jail", "vmm"},
    "cli": MACHINE
    | {"", "serde", "seccomp", "config", "cpu_templates", "boot", "host", "engine", "vmm", "api", "jail", "doctor"},
    "sdk": FLOOR | {"", "serde", "config"},
    "testing": MACHINE | {"engine"},
}

# Modules of the standard library that would spend the start-up budget, and what they cost (style.md §2.2).
TOO_SLOW_TO_START = {"asyncio", "dataclasses", "inspect", "logging", "pathlib", "typing_extensions", "unittest"}


def package_of(module: str) -> str:
    """Find the row of the table that a module below `hibana` belongs to."""
    first, _, rest = module.partition(".")
    second = f"{first}.{rest.partition('.')[0]}"
    return second if second in MAY_IMPORT else first


def imported_modules(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute module) for every import, also those inside functions."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source.name}:{node.lineno}: relative import"
            if node.module == "hibana":
                yield from ((node.lineno, _member(alias.name)) for alias in node.names)
            else:
                yield node.lineno, node.module or ""


def _member(name: str) -> str:
    is_module = (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()
    return f"hibana.{name}" if is_module else "hibana"


def test_every_import_points_down() -> None:
    upward = []
    for source in sources("src/hibana"):
        own = package_of(source.module)
        for line, module in imported_modules(source):
            if module.partition(".")[0] != "hibana":
                continue
            other = package_of(module.removeprefix("hibana").removeprefix("."))
            if other != own and other not in MAY_IMPORT[own]:
                upward.append(f"{source.name}:{line}: {own or 'hibana'} must not import {module}")
    assert not upward, "\n".join(upward)


def test_every_package_has_its_place_in_the_table() -> None:
    there = {package_of(source.module) for source in sources("src/hibana")}
    assert there <= MAY_IMPORT.keys(), "give the new package a row in MAY_IMPORT and a line in docs/book.md"


def test_the_table_itself_has_no_circle() -> None:
    order = list(TopologicalSorter(MAY_IMPORT).static_order())
    assert order.index("errors") < order.index("devices") < order.index("vmm") < order.index("api") < order.index("cli")


def test_transports_know_no_device() -> None:
    allowed = {"hibana.devices.virtio.device", "hibana.devices.virtio.queue"}
    for source in sources("src/hibana/devices"):
        if source.module in ("devices.virtio.mmio", "devices.virtio.pci"):
            for line, module in imported_modules(source):
                if module.startswith("hibana.devices"):
                    assert module in allowed, f"{source.name}:{line}: a transport imports {module}"


def test_nothing_in_the_product_imports_what_is_slow_to_start() -> None:
    slow = [
        f"{source.name}:{line}: {module}"
        for source in sources("src/hibana")
        for line, module in imported_modules(source)
        if module.partition(".")[0] in TOO_SLOW_TO_START
    ]
    assert not slow, "\n".join(slow)
