"""The argument grammar, its errors and its help against the reference (api.md §7.1, §7.5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.cli.args import HELP, VERSION, Argument, Arguments, help_text, parse
from hibana.errors import VmmError

TABLE = (
    HELP,
    VERSION,
    Argument("id", "Name.", takes_value=True, required=True),
    Argument("cgroup", "A cgroup setting.", takes_value=True, repeatable=True),
    Argument("base", "Where.", takes_value=True, default="/srv"),
    Argument("quiet", "Say nothing.", forbids=("loud",)),
    Argument("loud", "Say everything.", forbids=("quiet",)),
    Argument("no-api", "No API.", requires="base"),
)


def typed(line: str) -> Arguments:
    return parse(TABLE, line.split())


def test_flags_values_and_defaults() -> None:
    arguments = typed("--id 1 --quiet")
    assert arguments.value("id") == "1"
    assert arguments.given("quiet")
    assert not arguments.given("loud")
    assert arguments.value("base") == "/srv"
    assert not arguments.given("base")
    assert arguments.value("cgroup") is None


def test_a_repeatable_argument_keeps_all_its_values_in_order() -> None:
    assert typed("--cgroup b --id 1 --cgroup a").values("cgroup") == ["b", "a"]
    assert typed("--id 1").values("cgroup") == []


def test_what_follows_two_dashes_is_not_looked_at() -> None:
    arguments = typed("--id 1 -- --id 2 --nonsense -- --help")
    assert arguments.value("id") == "1"
    assert arguments.extra == ["--id", "2", "--nonsense", "--", "--help"]
    assert not arguments.given("help")


def test_a_value_may_start_with_one_dash_and_may_be_empty() -> None:
    assert typed("--id -1").value("id") == "-1"
    assert parse(TABLE, ["--id", ""]).value("id") == ""


@pytest.mark.parametrize("line", ["--help", "--id --help", "--nonsense -h", "--version --help", "-h --id 1 --id 2"])
def test_help_wins_over_everything(line: str) -> None:
    arguments = typed(line)
    assert arguments.given("help")
    assert not arguments.given("version")


def test_version_wins_over_everything_but_help() -> None:
    assert typed("--nonsense --version --id").given("version")


def test_a_program_without_a_version_flag_does_not_know_it() -> None:
    with pytest.raises(VmmError, match="Found argument 'version'"):
        parse((HELP,), ["--version"])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--id 1 --foo", "Found argument 'foo' which wasn't expected, or isn't valid in this context."),
        ("--id=1", "Found argument 'id=1' which wasn't expected, or isn't valid in this context."),
        ("--id 1 bar", "Found argument 'bar' which wasn't expected, or isn't valid in this context."),
        ("--id 1 -q", "Found argument '-q' which wasn't expected, or isn't valid in this context."),
        ("--quiet true --id 1", "Found argument 'true' which wasn't expected, or isn't valid in this context."),
        ("--id", "The argument 'id' requires a value, but none was supplied."),
        ("--id --quiet", "The argument 'id' requires a value, but none was supplied."),
        ("--id -- 1", "The argument 'id' requires a value, but none was supplied."),
        ("--id 1 --id 2", "The argument 'id' was provided more than once."),
        ("--quiet --quiet", "The argument 'quiet' was provided more than once."),
        ("--quiet", "Argument 'id' required, but not found."),
        ("--id 1 --no-api", "Argument 'base' required, but not found."),
        ("--id 1 --quiet --loud", "Argument 'quiet' cannot be used together with argument 'loud'."),
        ("--loud --quiet", "Argument 'id' required, but not found."),  # i comes before l
    ],
)
def test_what_is_wrong_with_a_line_is_said_in_the_references_words(line: str, sentence: str) -> None:
    with pytest.raises(VmmError) as caught:
        typed(line)
    assert str(caught.value) == sentence


WORDS = st.sampled_from(["--id", "--base", "--quiet", "--cgroup", "--", "-h", "x", "", "--help", "--=", "---"])


@given(st.lists(WORDS | st.text(max_size=5), max_size=8))
def test_any_line_is_understood_or_refused_with_a_sentence(words: list[str]) -> None:
    try:
        parse(TABLE, words)
    except VmmError as error:
        assert str(error).endswith(".")


def test_the_help_lists_what_is_required_and_then_what_is_optional() -> None:
    assert help_text(TABLE) == (
        "required arguments:\n"
        "  --id <id>   Name.\n"
        "\n"
        "optional arguments:\n"
        '  --base <base>       Where. [default: "/srv"]\n'
        "  --cgroup <cgroup>   A cgroup setting.\n"
        "  --help              Show the help message.\n"
        "  --loud              Say everything.\n"
        "  --no-api            No API.\n"
        "  --quiet             Say nothing.\n"
        "  --version           Print the binary version number."
    )
