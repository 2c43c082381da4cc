"""The jailer's command line, from words to a checked request, and whose program it is that runs in the jail."""

import os
from pathlib import Path

import pytest

from hibana.cli import jailer, jailer_flags
from hibana.errors import JailArgumentsError, VmmError
from hibana.jail import cgroup, chroot
from hibana.jail.arguments import Limits
from hibana.jail.chroot import Owner
from hibana.jail.steps import Clock, Jail, command

REQUIRED = {"id": "my-id", "exec-file": "/usr/bin/env", "uid": "1", "gid": "2", "chroot-base-dir": "/"}


@pytest.fixture(autouse=True)
def no_cgroups_move(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    moves: list[tuple[str, int]] = []
    monkeypatch.setattr(cgroup, "join_parent", lambda parent, pid: moves.append((parent, pid)))
    return moves


def read(*words: str, **changed: str) -> Jail:
    values = REQUIRED | {name.replace("_", "-"): value for name, value in changed.items()}
    line = [word for name, value in values.items() for word in (f"--{name}", value)]
    return jailer_flags.read(jailer_flags.parse([*line, *words]))


def test_what_is_typed_is_what_is_jailed() -> None:
    jail = read("--daemonize", "--resource-limit", "fsize=7", netns="/some/where")
    assert jail == Jail(
        "my-id", os.path.realpath("/usr/bin/env"), "/", Owner(1, 2), "/some/where", True, False, None, Limits(7),
        chroot.userfaultfd_minor(),
    )  # fmt: skip
    assert jail.program == os.path.basename(os.path.realpath("/usr/bin/env"))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            ["id", "exec-file", "chroot-base-dir", "uid", "gid", "parent-cgroup", "cgroup-version"],
            "Invalid instance ID",
        ),
        (["exec-file", "chroot-base-dir", "uid", "gid", "parent-cgroup", "cgroup-version"], "Failed to canonicalize"),
        (["chroot-base-dir", "uid", "gid", "parent-cgroup", "cgroup-version"], "Failed to canonicalize"),
        (["uid", "gid", "parent-cgroup", "cgroup-version"], "Invalid uid"),
        (["gid", "parent-cgroup", "cgroup-version"], "Invalid gid"),
        (["parent-cgroup", "cgroup-version"], "Parent cgroup path is invalid"),
        (["cgroup-version"], " is an invalid cgroup version specifier"),
    ],
)
def test_mistakes_are_found_in_the_references_order(wrong: list[str], sentence: str) -> None:
    with pytest.raises(VmmError) as caught:
        read(**{name.replace("-", "_"): "/no/such/thing" for name in wrong})
    assert sentence in str(caught.value)


def test_only_version_2_without_values_joins_the_parent(no_cgroups_move: list[tuple[str, int]]) -> None:
    read()
    assert no_cgroups_move == []
    read(cgroup_version="2", parent_cgroup="mine")
    assert no_cgroups_move == [("mine", os.getpid())]


def test_the_parent_cgroup_is_called_like_the_program(no_cgroups_move: list[tuple[str, int]]) -> None:
    read(cgroup_version="2")
    assert no_cgroups_move == [(os.path.basename(os.path.realpath("/usr/bin/env")), os.getpid())]


def test_a_line_that_makes_no_sense_has_its_own_words() -> None:
    with pytest.raises(JailArgumentsError) as caught:
        jailer_flags.parse(["--foo"])
    assert str(caught.value).startswith("Failed to parse arguments: Found argument 'foo' which")


def test_the_program_gets_the_words_of_the_reference_and_then_the_callers() -> None:
    clock = Clock()
    clock.stop()
    words = command(read(exec_file="/usr/bin/env"), clock, ["--extra", "--"])
    assert words[1:4] == ["--id", "my-id", "--start-time-us"]
    assert words[4] == str(clock.started_us)
    assert words[7:9] == ["--parent-cpu-time-us", str(clock.parents_us)]
    assert words[9:] == ["--extra", "--"]


# --- whose program ----------------------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    for name, content in {"jailer": b"jailer", "firecracker": b"vmm", "same": b"vmm", "like": b"vmN"}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link").symlink_to("jailer")
    (tmp_path / "hard").hardlink_to(tmp_path / "firecracker")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [("firecracker", True), ("hard", True), ("same", True), ("like", False), ("jailer", False), ("none", False)],
)
def test_our_own_program_is_the_one_beside_the_jailer_or_a_copy_of_it(programs: Path, name: str, is_ours: bool) -> None:
    assert jailer.is_ours(str(programs / name), str(programs / "jailer")) is is_ours
    assert jailer.is_ours(str(programs / name), str(programs / "link")) is is_ours


def test_a_jailer_alone_has_no_own_program(programs: Path) -> None:
    assert not jailer.is_ours(str(programs / "firecracker"), "/nowhere/jailer")
