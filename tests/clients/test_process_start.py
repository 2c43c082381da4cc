"""How a process begins, or says why not: texts, exit codes, and what is left behind (api.md §6-§8.1)."""

import re
import resource
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Start
from tests.clients.process import SOCKET, Vmm, config
from tests.clients.tiny_guests import HALT, RESET, kernel, say

EXITED_WELL = "Firecracker exiting successfully. exit_code=0"


def panic(vmm: Vmm) -> str:
    """Expect the end of a panic: two lines in the log, nothing more, SIGABRT. Gives the second line."""
    assert vmm.wait() == -signal.SIGABRT
    assert re.fullmatch(r"Firecracker panicked at src/hibana/[a-z_/]+\.py:\d+:\d+:", vmm.messages[-2])
    assert vmm.err == ""
    return vmm.messages[-1]


def failure(vmm: Vmm, code: int = 1) -> str:
    """Expect an error: the same sentence in the log and on standard error, the code in the log's last line."""
    assert vmm.wait() == code
    assert vmm.messages[-1] == f"Firecracker exiting with error. exit_code={code}"
    assert vmm.err == f"Error: {vmm.messages[-2]}\n"
    return vmm.messages[-2]


def sockets(vmm: Vmm) -> list[str]:
    return [path.name for path in vmm.folder.iterdir() if path.is_socket()]


# --- information ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "beginning"),
    [
        ("--version", ["Firecracker v1.17.0-dev", "", "Hibana "]),
        ("--snapshot-version", ["v11.0.0"]),
        ("--help", ["Firecracker v1.17.0-dev", "", "optional arguments:"]),
        ("-h", ["Firecracker v1.17.0-dev", "", "optional arguments:"]),
    ],
)
def test_a_question_about_the_program_is_answered_and_nothing_else_happens(
    flag: str, beginning: list[str], start: Start
) -> None:
    vmm = start(flag)
    assert vmm.wait() == 0
    assert [line[: len(wanted)] for line, wanted in zip(vmm.out.splitlines(), beginning, strict=False)] == beginning
    assert vmm.messages[-1] == EXITED_WELL
    assert vmm.err == ""
    assert sockets(vmm) == []


def test_a_question_wins_over_mistakes(start: Start) -> None:
    assert start("--foo", "--version").wait() == 0


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--foo"], "Found argument 'foo' which wasn't expected, or isn't valid in this context."),
        (["--id"], "The argument 'id' requires a value, but none was supplied."),
        (["--id", "a", "--id", "b"], "The argument 'id' was provided more than once."),
        (["--no-api"], "Argument 'config-file' required, but not found."),
        (
            ["--no-seccomp", "--seccomp-filter", "f"],
            "Argument 'seccomp-filter' cannot be used together with argument 'no-seccomp'.",
        ),
    ],
)
def test_a_command_line_that_makes_no_sense(words: list[str], sentence: str, start: Start) -> None:
    wrapped = rf"Arguments parsing error: {sentence} \n\nFor more information try --help."
    assert failure(start(*words), 153) == wrapped


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (
            ["--level", "loud"],
            152,
            "Invalid value for logger level: Failed to parse string to level filter: loud."
            "Possible values: [Error, Warning, Info, Debug]",
        ),
        (
            ["--log-path", "nowhere/log"],
            1,
            "Could not initialize logger: Failed to open target file: No such file or directory (os error 2)",
        ),
        (
            ["--metrics-path", "nowhere/metrics"],
            1,
            "Could not initialize metrics: Cannot initialize the metrics system due to bad user input:"
            " No such file or directory (os error 2)",
        ),
        (["--engine", "qvm"], 152, "There is no engine 'qvm'. Choose one of auto, kvm, soft."),
        (["--enable-pci"], 1, "This build of Hibana has no PCI transport yet. Leave --enable-pci out."),
        (
            ["--seccomp-filter", "f"],
            1,
            "Seccomp error: Filter file open error: No such file or directory (os error 2)",
        ),
        (
            ["--describe-snapshot", "f"],
            1,
            "When printing Snapshot Data format: this build of Hibana has no snapshots yet.",
        ),
    ],
)
def test_what_cannot_be_done_is_said_before_there_is_a_socket(
    words: list[str], code: int, sentence: str, start: Start
) -> None:
    vmm = start(*words)
    assert failure(vmm, code) == sentence
    assert sockets(vmm) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--id", "a_b"], "Invalid instance ID: InvalidChar('_', 1)"),
        (["--id", ""], "Invalid instance ID: InvalidLen(0, 1, 64)"),
        (["--id", "a" * 65], "Invalid instance ID: InvalidLen(65, 1, 64)"),
        (
            ["--http-api-max-payload-size", "many"],
            "'http-api-max-payload-size' parameter expected to be of 'usize' type.: ParseIntError"
            " { kind: InvalidDigit }",
        ),
        (
            ["--start-time-us", "-1"],
            "'start-time-us' parameter expected to be of 'u64' type.: ParseIntError { kind: InvalidDigit }",
        ),
        (
            ["--config-file", "nowhere"],
            "Unable to open or read from the configuration file: Os { code: 2, kind: NotFound, message:"
            ' "No such file or directory" }',
        ),
        (
            ["--config-file", "/dev/zero"],
            "Unable to open or read from the configuration file: Os { code: 27, kind: FileTooLarge, message:"
            ' "File too large" }',
        ),
        (
            ["--metadata", "nowhere"],
            "Unable to open or read from the mmds content file: Os { code: 2, kind: NotFound, message:"
            ' "No such file or directory" }',
        ),
    ],
)
def test_some_mistakes_are_panics(words: list[str], sentence: str, start: Start) -> None:
    vmm = start(*words)
    assert panic(vmm) == sentence
    assert sockets(vmm) == []


def test_the_end_of_the_program_is_logged_where_the_log_goes(start: Start) -> None:
    vmm = start("--log-path", "log", "--metrics-path", "nowhere/metrics")
    assert vmm.wait() == 1
    assert vmm.out == ""
    assert (vmm.folder / "log").read_text().endswith("Firecracker exiting with error. exit_code=1\n")


@pytest.mark.parametrize(("limit", "places"), [(500, 512), (4096, 2048)])
def test_the_table_of_descriptors_has_grown_before_there_are_threads(limit: int, places: int, start: Start) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    vmm = start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most)))
    assert vmm.state == "Not started"
    assert f"FDSize:\t{places}\n" in Path(f"/proc/{vmm.process.pid}/status").read_text()


# --- the engine -------------------------------------------------------------------------------------------------------


def test_the_engine_may_be_named_in_the_environment(start: Start) -> None:
    for engine in ("soft", "auto", ""):
        vmm = start(guest=RESET, api=None, environment={"HIBANA_ENGINE": engine})
        assert vmm.wait() == 0, engine
    assert "qvm" in failure(start(environment={"HIBANA_ENGINE": "qvm"}), 152)


def test_the_command_line_wins_over_the_environment(start: Start) -> None:
    vmm = start("--engine", "soft", guest=RESET, api=None, environment={"HIBANA_ENGINE": "kvm"})
    assert vmm.wait() == 0
    assert "Running guest code on the soft engine: it was asked for." in vmm.messages


# --- the socket -------------------------------------------------------------------------------------------------------


def test_a_socket_in_use_is_left_to_its_owner(start: Start) -> None:
    first = start()
    assert first.state == "Not started"
    sentence = f"RunWithApiError error: Failed to open the API socket at: {SOCKET}. Check that it is not already used."
    assert failure(start()) == sentence
    assert first.state == "Not started"


def test_a_socket_that_nobody_uses_any_more_is_not_ours_either(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as former:
        former.bind(str(tmp_path / SOCKET))
    assert "Check that it is not already used." in failure(start())
    assert sockets(start("--version")) == [SOCKET]


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("nowhere/socket", "No such file or directory (os error 2)"),
        ("x" * 200, "path must be shorter than SUN_LEN"),
        ("", "No such file or directory (os error 2)"),
    ],
)
def test_a_socket_that_cannot_be_made(path: str, cause: str, start: Start) -> None:
    sentence = f"RunWithApiError error: Failed to bind and run the HTTP server: IO error: {cause}"
    assert failure(start(api=path)) == sentence


# --- the configuration file -------------------------------------------------------------------------------------------

FAILED = "RunWithoutApiError error: Failed to build MicroVM from Json: "
REFUSED = FAILED + "Configuration for VMM from one single json failed: "
NOT_STARTED = FAILED + "Could not Start MicroVM from one single json: "


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({}, ""),
        ({"machine_config": {"vcpu_count": 2, "mem_size_mib": 64, "smt": False, "track_dirty_pages": False}}, ""),
        ({"machine_config": None, "network_interfaces": [], "vsock": None, "unknown": {"a": 1}}, ""),
        (
            {"machine_config": {"vcpu_count": 33, "mem_size_mib": 1024}},
            REFUSED + "VM config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an"
            " even number if SMT is enabled.",
        ),
        (
            {"cpu_config": "nowhere.json"},
            REFUSED + "File operation error: No such file or directory (os error 2)",
        ),
        (
            {"mmds_config": {"version": "V2", "network_interfaces": ["1"]}},
            REFUSED + "MMDS config error: The list of network interface IDs provided contains at least one ID that does"
            " not correspond to any existing network interface.",
        ),
        (
            {"drives": [{"drive_id": "rootfs", "is_root_device": True, "path_on_host": "nowhere.ext4"}]},
            REFUSED + "Block device error: Unable to create the virtio block device: Virtio backend error: Error"
            " manipulating the backing file: No such file or directory (os error 2) nowhere.ext4",
        ),
        (
            {"logger": {"log_path": "nowhere/log", "level": "Info"}},
            REFUSED + "Logger error: Failed to open target file: No such file or directory (os error 2)",
        ),
        (
            {"metrics": {"metrics_path": "nowhere/metrics"}},
            REFUSED + "Metrics error: Cannot initialize the metrics system due to bad user input:"
            " No such file or directory (os error 2)",
        ),
        (
            {"machine_config": {"vcpu_count": 1, "mem_size_mib": 64, "cpu_template": "C3"}},
            NOT_STARTED + "Failed to get CPU template: The soft engine has one fixed CPU and takes no CPU template.",
        ),
        (
            {"vsock": {"guest_cid": 3, "uds_path": "v.sock"}},
            NOT_STARTED + "This build of Hibana has no vsock device yet; remove it from the configuration"
            " to start the microVM.",
        ),
        (
            {"machine_config": {"vcpu_count": 1, "mem_size_mib": 8}},
            NOT_STARTED + "System configuration error: Cannot load kernel due to invalid memory configuration or"
            " invalid kernel image: Kernel Loader: failed to load ELF kernel image: Kernel Loader: Unable to read"
            " kernel image",
        ),
    ],
)
def test_a_configuration_file_boots_or_says_why_not(parts: dict[str, Any], sentence: str, start: Start) -> None:
    vmm = start(guest=RESET, configuration=config(**parts), api=None)
    if sentence:
        assert failure(vmm) == sentence
    else:
        assert vmm.wait() == 0
        assert "Successfully started microvm that was configured from one single json" in vmm.messages


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", REFUSED + "Invalid JSON: EOF while parsing an object at line 1 column 1"),
        ("", REFUSED + "Invalid JSON: EOF while parsing a value at line 1 column 0"),
        (
            '{"drives": [],\n"machine-config": {"vcpu_count": 2}}',
            REFUSED + "Invalid JSON: missing field `mem_size_mib` at line 2 column 35",
        ),
        (
            '{"drives": [],\n"machine-config": {"mem_size_mib": 1024}}',
            REFUSED + "Invalid JSON: missing field `vcpu_count` at line 2 column 40",
        ),
        ('{"drives": []}', REFUSED + "Invalid JSON: missing field `boot-source` at line 1 column 14"),
        (
            '{"drives": [], "boot-source": {"kernel_image_path": "nowhere"}}',
            REFUSED + "Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)",
        ),
    ],
)
def test_a_configuration_file_that_is_none(text: str, sentence: str, start: Start, tmp_path: Path) -> None:
    (tmp_path / "vm.json").write_text(text)
    assert failure(start("--config-file", "vm.json", api=None)) == sentence


def test_a_failed_boot_with_an_api_is_told_apart_and_leaves_the_socket_file(start: Start) -> None:
    vmm = start(configuration=config("nowhere"))
    assert failure(vmm).startswith("RunWithApiError error: Failed to build MicroVM from Json: ")
    assert sockets(vmm) == [SOCKET]


def test_a_microvm_that_never_ran_has_no_metrics(start: Start) -> None:
    vmm = start("--metrics-path", "metrics", configuration=config("nowhere"))
    failure(vmm)
    assert (vmm.folder / "metrics").read_text() == ""


def test_log_and_metrics_may_be_configured_in_the_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(kernel(RESET))
    logger = {"log_path": "log", "level": "Error"}
    metrics = {"metrics_path": "metrics", "emit_id": True}
    vmm = start(configuration=config(logger=logger, metrics=metrics), api=None)
    assert vmm.wait() == 0
    assert (tmp_path / "log").read_text() == ""
    assert (tmp_path / "metrics").read_text().count('"id":"anonymous-instance"') == 2
    assert vmm.messages == ["Running Firecracker v1.17.0-dev"]


def test_metrics_cannot_be_configured_twice(start: Start) -> None:
    vmm = start(
        "--metrics-path", "metrics", guest=RESET, configuration=config(metrics={"metrics_path": "other"}), api=None
    )
    assert failure(vmm) == (
        REFUSED + "Metrics error: Cannot initialize the metrics system due to bad user input: Reinitialization of"
        " metrics not allowed."
    )


# --- metadata ---------------------------------------------------------------------------------------------------------


def test_metadata_from_a_file_is_there_from_the_beginning(start: Start, tmp_path: Path) -> None:
    (tmp_path / "metadata").write_text('{"latest": {"meta-data": {"ami-id": "x"}}}')
    vmm = start("--metadata", "metadata")
    assert vmm.get("/mmds") == {"latest": {"meta-data": {"ami-id": "x"}}}
    assert vmm.state == "Not started"
    assert "Successfully added metadata to mmds from file" in vmm.messages


def test_metadata_goes_with_a_configuration_file_too(start: Start, tmp_path: Path) -> None:
    (tmp_path / "metadata").write_text('{"latest": 1}')
    vmm = start("--metadata", "metadata", guest=say("!") + HALT)
    vmm.wait_for("!")
    assert "Successfully added metadata to mmds from file" in vmm.messages


def test_metadata_that_is_no_json_is_a_panic(start: Start, tmp_path: Path) -> None:
    (tmp_path / "metadata").write_text('{\n"a": 1\n')
    assert panic(start("--metadata", "metadata")) == (
        'MMDS error: metadata provided not valid json: Error("EOF while parsing an object", line: 3, column: 0)'
    )


@pytest.mark.parametrize(
    ("configured", "sentence"),
    [
        (
            False,
            "RunWithApiError error: Failed to build MicroVM: Populating MMDS from file failed:"
            " The MMDS patch request doesn't fit..",
        ),
        (
            True,
            "RunWithApiError error: Failed to build MicroVM from Json: Configuration for VMM from one single json"
            " failed: MMDS error: The MMDS patch request doesn't fit.",
        ),
    ],
)
def test_metadata_that_does_not_fit(configured: bool, sentence: str, start: Start, tmp_path: Path) -> None:
    (tmp_path / "metadata").write_text('{"a": "much too long"}')
    vmm = start("--metadata", "metadata", "--mmds-size-limit", "10", guest=RESET if configured else None)
    assert failure(vmm) == sentence
