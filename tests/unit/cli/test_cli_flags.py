"""The flags of `firecracker` (api.md §7.2-§7.5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana import __version__
from hibana.cli.flags import FLAGS, Numbers, Options, help_text, parse, version_text
from hibana.errors import ArgumentsError, InvalidInstanceId, InvalidLogLevel, InvalidNumber, Panic
from hibana.observe import log

REFERENCE = [
    "api-sock", "boot-timer", "config-file", "describe-snapshot", "enable-pci", "help", "http-api-max-payload-size",
    "id", "level", "log-path", "metadata", "metrics-path", "mmds-size-limit", "module", "no-api", "no-seccomp",
    "parent-cpu-time-us", "seccomp-filter", "show-level", "show-log-origin", "snapshot-version", "start-time-cpu-us",
    "start-time-us", "version",
]  # fmt: skip


def typed(line: str) -> Options:
    return parse(line.split())


def test_the_references_flags_and_one_of_ours_are_known() -> None:
    assert sorted(flag.name for flag in FLAGS) == sorted([*REFERENCE, "engine"])


def test_nothing_typed_means_the_documented_defaults() -> None:
    options = typed("")
    assert options.api_sock == "/run/firecracker.socket"
    assert options.instance_id() == "anonymous-instance"
    assert options.log_level() is None
    assert options.numbers() == Numbers(51200, 51200, None, None, 0)
    assert options.engine is None
    assert not (options.help or options.version or options.snapshot_version or options.enable_pci)


def test_everything_typed_arrives() -> None:
    options = typed(
        "--api-sock a --config-file c --metadata m --id i-1 --engine soft --enable-pci --boot-timer --log-path l "
        "--level debug --show-level --show-log-origin --module vmm --metrics-path p --seccomp-filter s "
        "--describe-snapshot d --http-api-max-payload-size 100 --mmds-size-limit 200 "
        "--start-time-us 1 --start-time-cpu-us 2 --parent-cpu-time-us 3"
    )
    assert (options.api_sock, options.config_file, options.metadata, options.id) == ("a", "c", "m", "i-1")
    assert (options.engine, options.enable_pci, options.boot_timer) == ("soft", True, True)
    assert (options.log_path, options.log_level(), options.module) == ("l", log.DEBUG, "vmm")
    assert (options.show_level, options.show_log_origin) == (True, True)
    assert (options.metrics_path, options.seccomp_filter, options.describe_snapshot) == ("p", "s", "d")
    assert options.numbers() == Numbers(100, 200, 1, 2, 3)


def test_the_mmds_may_be_as_large_as_a_request_unless_said_otherwise() -> None:
    assert typed("--http-api-max-payload-size 7").numbers().mmds_size_limit == 7


def test_without_an_api_there_is_no_socket_and_nobody_reads_the_times() -> None:
    options = typed("--no-api --config-file c --start-time-us nonsense --no-seccomp")
    assert options.api_sock is None
    assert options.no_seccomp
    assert options.numbers() == Numbers(51200, 51200, None, None, 0)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--foo", "Found argument 'foo' which wasn't expected, or isn't valid in this context."),
        ("--no-api", "Argument 'config-file' required, but not found."),
        ("--api-sock", "The argument 'api-sock' requires a value, but none was supplied."),
        (
            "--seccomp-filter f --no-seccomp",
            "Argument 'seccomp-filter' cannot be used together with argument 'no-seccomp'.",
        ),
    ],
)
def test_a_wrong_line_ends_with_153_and_a_hint(line: str, sentence: str) -> None:
    with pytest.raises(ArgumentsError) as caught:
        typed(line)
    assert str(caught.value) == rf"Arguments parsing error: {sentence} \n\nFor more information try --help."
    assert caught.value.exit_code == 153


@pytest.mark.parametrize("name", ["a", "A-1", "x" * 64, "é" * 32])
def test_identifiers_are_letters_digits_and_dashes(name: str) -> None:
    assert parse(["--id", name]).instance_id() == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "InvalidLen(0, 1, 64)"),
        ("x" * 65, "InvalidLen(65, 1, 64)"),
        ("é" * 33, "InvalidLen(66, 1, 64)"),
        ("my_vm", "InvalidChar('_', 2)"),
        ("a b", "InvalidChar(' ', 1)"),
    ],
)
def test_other_identifiers_make_the_reference_panic(name: str, problem: str) -> None:
    with pytest.raises(InvalidInstanceId) as caught:
        parse(["--id", name]).instance_id()
    assert str(caught.value) == f"Invalid instance ID: {problem}"
    assert isinstance(caught.value, Panic)


def test_an_unknown_level_ends_with_152() -> None:
    with pytest.raises(InvalidLogLevel) as caught:
        typed("--level verbose").log_level()
    assert str(caught.value) == (
        "Invalid value for logger level: Failed to parse string to level filter: verbose."
        "Possible values: [Error, Warning, Info, Debug]"
    )
    assert caught.value.exit_code == 152


@pytest.mark.parametrize(
    ("flag", "text", "type_", "kind"),
    [
        ("http-api-max-payload-size", "10k", "usize", "InvalidDigit"),
        ("http-api-max-payload-size", "-1", "usize", "InvalidDigit"),
        ("http-api-max-payload-size", "", "usize", "Empty"),
        ("mmds-size-limit", "18446744073709551616", "usize", "PosOverflow"),
        ("mmds-size-limit", "9" * 5000, "usize", "PosOverflow"),
        ("start-time-us", "1_000", "u64", "InvalidDigit"),
        ("start-time-cpu-us", "٣", "u64", "InvalidDigit"),
        ("parent-cpu-time-us", "+", "u64", "InvalidDigit"),
    ],
)
def test_a_number_that_is_none_makes_the_reference_panic(flag: str, text: str, type_: str, kind: str) -> None:
    with pytest.raises(InvalidNumber) as caught:
        parse([f"--{flag}", text]).numbers()
    assert str(caught.value) == (
        f"'{flag}' parameter expected to be of '{type_}' type.: ParseIntError {{ kind: {kind} }}"
    )


@given(st.integers(min_value=0, max_value=2**64 - 1), st.sampled_from(["", "+", "000"]))
def test_64_bit_numbers_are_read(number: int, prefix: str) -> None:
    assert parse(["--http-api-max-payload-size", f"{prefix}{number}"]).numbers().max_payload == number


def test_the_version_starts_with_the_line_that_programs_read() -> None:
    assert version_text() == f"Firecracker v1.17.0-dev\n\nHibana {__version__}"


def test_the_help_is_laid_out_like_the_references() -> None:
    lines = help_text().splitlines()
    assert lines[:3] == ["Firecracker v1.17.0-dev", "", "optional arguments:"]
    assert '  --id <id>                                                 MicroVM unique identifier. [default: "' in (
        "\n".join(lines)
    )
    flags = lines[3:]
    assert len(flags) == 25
    assert flags == sorted(flags)
    assert all(line[57:60] == "   " and line[60] != " " for line in flags)
