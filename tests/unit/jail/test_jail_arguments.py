"""What may be asked of the jailer, and the sentences for what may not (operations.md §1.1, §1.2)."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hibana.errors import VmmError
from hibana.jail import arguments
from hibana.jail.arguments import Limits

LENGTH = "Invalid instance ID: Invalid len"
RANGE = "the length must be between 1 and 64"
MISSING = "Failed to canonicalize path /no/such: No such file or directory (os error 2)"
PARENT = "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'"


@pytest.mark.parametrize("name", ["a", "A-1", "x" * 64, "é" * 32])
def test_identifiers_are_letters_digits_and_dashes(name: str) -> None:
    assert arguments.instance_id(name) == name


@pytest.mark.parametrize(
    ("check", "text", "sentence"),
    [
        (arguments.instance_id, "", f"{LENGTH} (0);  {RANGE}"),
        (arguments.instance_id, "x" * 65, f"{LENGTH} (65);  {RANGE}"),
        (arguments.instance_id, "é" * 33, f"{LENGTH} (66);  {RANGE}"),
        (arguments.instance_id, "ab:c", "Invalid instance ID: Invalid char (:) at position 2"),
        (arguments.executable, "/no/such", MISSING),
        (arguments.executable, "/dev", "/dev is not a file"),
        (arguments.base_folder, "/no/such", MISSING),
        (arguments.base_folder, "/dev/null", "/dev/null is not a directory"),
        (arguments.user, "root", "Invalid uid: root"),
        (arguments.user, "-1", "Invalid uid: -1"),
        (arguments.user, "4294967296", "Invalid uid: 4294967296"),
        (arguments.group, "", "Invalid gid: "),
        (arguments.cgroup_version, "256", "256 is an invalid cgroup version specifier"),
        (arguments.cgroup_version, "two", "two is an invalid cgroup version specifier"),
        (arguments.parent_cgroup, "/a", PARENT),
        (arguments.parent_cgroup, "./a", PARENT),
        (arguments.parent_cgroup, "a/../b", PARENT),
        (arguments.parent_cgroup, "..", PARENT),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(check: Callable[[str], object], text: str, sentence: str) -> None:
    with pytest.raises(VmmError) as caught:
        check(text)
    assert str(caught.value) == sentence
    assert caught.value.exit_code == 1


def test_numbers_are_read_as_rust_reads_them() -> None:
    assert arguments.user("+007") == 7
    assert arguments.group("4294967295") == 0xFFFF_FFFF
    assert arguments.cgroup_version("3") == 3


@pytest.mark.parametrize("path", ["a", "a/b", "a/./b", "a..b/.c"])
def test_a_parent_cgroup_may_be_a_path(path: str) -> None:
    assert arguments.parent_cgroup(path) == path


def test_paths_become_real_paths(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"")
    (tmp_path / "link").symlink_to("program")
    (tmp_path / "folder").symlink_to(".")
    assert arguments.executable(str(tmp_path / "link")) == os.path.realpath(tmp_path / "program")
    assert arguments.base_folder(str(tmp_path / "folder")) == os.path.realpath(tmp_path)


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], Limits(None, 2048)),
        (["fsize=10"], Limits(10, 2048)),
        (["no-file=1"], Limits(None, 1)),
        (["no-file=1", "fsize=2", "no-file=3"], Limits(2, 3)),
        ([f"fsize={2**64 - 1}"], Limits(2**64 - 1, 2048)),
    ],
)
def test_the_last_limit_of_a_kind_counts(words: list[str], wanted: Limits) -> None:
    assert arguments.limits(words) == wanted


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("fsize", "Invalid format for resources limits: fsize"),
        ("fsize=", "Invalid limit value for resource: : cannot parse integer from empty string"),
        ("fsize=1M", "Invalid limit value for resource: 1M: invalid digit found in string"),
        ("fsize=1=2", "Invalid limit value for resource: 1=2: invalid digit found in string"),
        (f"fsize={2**64}", f"Invalid limit value for resource: {2**64}: number too large to fit in target type"),
        ("cpu=1", "Invalid resource argument: cpu"),
        ("cpu=x", "Invalid limit value for resource: x: invalid digit found in string"),
    ],
)
def test_a_limit_that_is_none(word: str, sentence: str) -> None:
    with pytest.raises(VmmError) as caught:
        arguments.limits([word])
    assert str(caught.value) == sentence
