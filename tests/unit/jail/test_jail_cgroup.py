"""Cgroups of both versions, on folders that look like a cgroup file system (operations.md §1.4)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hibana.errors import VmmError
from hibana.jail import cgroup
from hibana.jail.cgroup import Value


class Host:
    """A host's cgroup mounts: version 1 hierarchies for some controllers, and one of version 2."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounts = str(folder / "mounts")
        self.written: list[tuple[str, str]] = []
        lines = ["proc /proc proc rw,relatime 0 0", "cgroup2 nonsense"]
        for name, options in (("cpuset", "rw,cpuset"), ("cpu", "rw,cpu,cpuacct")):
            (folder / name).mkdir()
            lines.append(f"cgroup {folder}/{name} cgroup {options} 0 0")
        (folder / "unified").mkdir()
        lines.append(f"cgroup2 {folder}/unified cgroup2 rw 0 0")
        (folder / "unified/cgroup.controllers").write_text("cpuset memory\n")
        (folder / "unified/cgroup.subtree_control").write_text("")
        (folder / "mounts").write_text("\n".join([*lines, ""]))

    def note(self, path: str, text: str) -> None:
        self.written.append((os.path.relpath(path, self.folder), text))
        there = Path(path).read_text() if text.startswith("+") else ""
        Path(path).write_text(f"{there} {text.removeprefix('+')}")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    host = Host(tmp_path)
    monkeypatch.setattr(cgroup, "_write", host.note)
    yield host


def refused(host: Host, version: int, *words: str) -> str:
    with pytest.raises(VmmError) as caught:
        cgroup.plan(version, cgroup.parse(words), "parent", "id", host.mounts)
    return str(caught.value)


# --- what may be asked ------------------------------------------------------------------------------------------------


def test_a_value_names_its_controller() -> None:
    assert cgroup.parse(["cpu.max=1 2", "memory.swap.max=0"]) == [
        Value("cpu", "cpu.max", "1 2"),
        Value("memory", "memory.swap.max", "0"),
    ]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("cpu.max", "Invalid format for cgroups: cpu.max"),
        ("cpu.max=", "Invalid format for cgroups: cpu.max="),
        ("cpu.max=1=2", "Invalid format for cgroups: cpu.max=1=2"),
        ("../cpu.max=1", "Cgroup invalid file: ../cpu.max=1"),
        ("./cpu.max=1", "Cgroup invalid file: ./cpu.max=1"),
        ("/cpu.max=1", "Cgroup invalid file: /cpu.max=1"),
        ("cpu=1", "Cgroup invalid file: cpu"),
        ("=1", "Cgroup invalid file: "),
    ],
)
def test_a_value_that_makes_no_sense(word: str, sentence: str) -> None:
    with pytest.raises(VmmError) as caught:
        cgroup.parse([word])
    assert str(caught.value) == sentence


def test_controllers_must_be_there(host: Host) -> None:
    assert refused(host, 1, "memory.limit_in_bytes=1") == "Controller memory is unavailable"
    assert refused(host, 2, "cpu.max=1") == "Controller cpu is unavailable"
    assert refused(host, 3, "cpu.max=1") == "Hierarchy not found: No hierarchy found for this cgroup version."
    (host.folder / "mounts").write_text("")
    assert refused(host, 2, "cpuset.cpus=0") == "Hierarchy not found: No hierarchy found for this cgroup version."


# --- version 1 --------------------------------------------------------------------------------------------------------


def test_version_1_inherits_then_writes_then_moves_in_once_a_hierarchy(host: Host) -> None:
    for above in ("cpuset", "cpuset/parent"):
        (host.folder / above).mkdir(exist_ok=True)
        (host.folder / above / "cpuset.cpus").write_text("0-3\n")
        (host.folder / above / "cpuset.mems").write_text("0\n")
    (host.folder / "cpu/parent").mkdir()
    (host.folder / "cpu/parent/cpu.shares").write_text("1024\n")
    values = cgroup.parse(["cpuset.cpus=1", "cpu.shares=9", "cpuset.mems=0"])
    cgroup.plan(1, values, "parent", "id", host.mounts).enter(77)
    assert host.written == [
        ("cpuset/parent/id/cpuset.cpus", "0-3"),
        ("cpu/parent/id/cpu.shares", "1024"),
        ("cpuset/parent/id/cpuset.mems", "0"),
        ("cpuset/parent/id/cpuset.cpus", "1"),
        ("cpu/parent/id/cpu.shares", "9"),
        ("cpuset/parent/id/cpuset.mems", "0"),
        ("cpuset/parent/id/tasks", "77"),
        ("cpu/parent/id/tasks", "77"),
    ]


def test_version_1_fills_all_empty_folders_on_the_way(host: Host) -> None:
    (host.folder / "cpuset/cpuset.cpus").write_text("0-3\n")
    for folder in ("a", "a/b"):
        (host.folder / "cpuset" / folder).mkdir()
        (host.folder / "cpuset" / folder / "cpuset.cpus").write_text("\n")
    cgroup.plan(1, cgroup.parse(["cpuset.cpus=1"]), "a/b", "id", host.mounts).enter(1)
    assert host.written[:4] == [
        ("cpuset/a/cpuset.cpus", "0-3"),
        ("cpuset/a/b/cpuset.cpus", "0-3"),
        ("cpuset/a/b/id/cpuset.cpus", "0-3"),
        ("cpuset/a/b/id/cpuset.cpus", "1"),
    ]


def test_version_1_with_nothing_to_inherit(host: Host) -> None:
    (host.folder / "cpuset/cpuset.cpus").write_text("")
    (host.folder / "cpuset/parent").mkdir()
    (host.folder / "cpuset/parent/cpuset.cpus").write_text("\n")
    with pytest.raises(VmmError) as caught:
        cgroup.plan(1, cgroup.parse(["cpuset.cpus=1"]), "parent", "id", host.mounts).enter(1)
    assert str(caught.value) == (
        f"Failed to inherit cgroups configurations from file cpuset.cpus in path {host.folder}/cpuset/parent/id"
    )


# --- version 2 --------------------------------------------------------------------------------------------------------


def test_version_2_delegates_from_the_top_and_moves_in_once(host: Host) -> None:
    (host.folder / "unified/a").mkdir()
    (host.folder / "unified/a/cgroup.subtree_control").write_text("memory\n")
    values = cgroup.parse(["memory.max=1", "cpuset.cpus=0", "memory.high=1"])
    cgroup.plan(2, values, "a", "id", host.mounts).enter(77)
    assert host.written == [
        ("unified/cgroup.subtree_control", "+memory"),
        ("unified/cgroup.subtree_control", "+cpuset"),
        ("unified/a/cgroup.subtree_control", "+cpuset"),
        ("unified/a/id/memory.max", "1"),
        ("unified/a/id/cpuset.cpus", "0"),
        ("unified/a/id/memory.high", "1"),
        ("unified/a/id/cgroup.procs", "77"),
    ]


def test_version_2_without_values_joins_the_parent_if_there_is_one(host: Host) -> None:
    cgroup.join_parent("nowhere", 77, host.mounts)
    (host.folder / "unified/parent").mkdir()
    cgroup.join_parent("parent", 77, host.mounts)
    assert (host.folder / "unified/parent/cgroup.procs").read_text() == "77\n"


def test_a_parent_that_takes_nobody(host: Host) -> None:
    folder = host.folder / "unified/parent"
    (folder / "cgroup.procs").mkdir(parents=True)
    with pytest.raises(VmmError) as caught:
        cgroup.join_parent("parent", 77, host.mounts)
    assert str(caught.value) == (
        f"Failed to move process to cgroup ({folder}): Is a directory (os error 21).\n"
        f"Hint: If you intended to create a child cgroup under {folder}, pass any --cgroup parameters."
    )
