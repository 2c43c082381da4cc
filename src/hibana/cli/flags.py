"""The flags of `firecracker`: the reference's 23 and one of ours (api.md §7.2)."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from hibana import FIRECRACKER_VERSION, __version__
from hibana.cli import args
from hibana.cli.args import HELP, VERSION, Argument, Arguments
from hibana.errors import ArgumentsError, InvalidInstanceId, InvalidLogLevel, InvalidNumber, VmmError
from hibana.observe import log
from hibana.serde.rust import NotUnsigned, unsigned

FLAGS: Final = (
    HELP,
    VERSION,
    Argument("api-sock", "Path of the API's unix socket.", True, "/run/firecracker.socket"),
    Argument("boot-timer", "Let the guest report the end of its boot to a timer device."),
    Argument("config-file", "Path of a JSON file that configures the whole microVM, which then starts.", True),
    Argument("describe-snapshot", "Print the data format version of the snapshot state file at this path.", True),
    Argument("enable-pci", "Put the virtio devices on a PCI bus."),
    Argument("engine", "What runs the guest's code: auto, kvm or soft. [HIBANA_ENGINE, otherwise auto]", True),
    Argument("http-api-max-payload-size", "Largest body of an API request, in bytes.", True, "51200"),
    Argument("id", "MicroVM unique identifier.", True, "anonymous-instance"),
    Argument("level", "Log level: Off, Error, Warning, Info, Debug or Trace.", True),
    Argument("log-path", "Path of the file or FIFO that gets the log instead of the standard output.", True),
    Argument("metadata", "Path of a JSON file with the contents of the MMDS.", True),
    Argument("metrics-path", "Path of the file or FIFO that gets the metrics.", True),
    Argument("mmds-size-limit", "Largest size of the MMDS, in bytes; as http-api-max-payload-size if absent.", True),
    Argument("module", "Log only messages from modules whose path starts with this.", True),
    Argument("no-api", "Run without an API, with what --config-file says.", requires="config-file"),
    Argument("no-seccomp", "Run without seccomp filters. Not recommended.", forbids=("seccomp-filter",)),
    Argument("parent-cpu-time-us", "CPU time that the parent of this process has used, in microseconds.", True, "0"),
    Argument("seccomp-filter", "Path of a compiled seccomp filter that replaces the built-in one.", True,
             forbids=("no-seccomp",)),
    Argument("show-level", "Show the level in log lines."),
    Argument("show-log-origin", "Show file and line of their origin in log lines."),
    Argument("snapshot-version", "Print the snapshot data format version that this program reads and writes."),
    Argument("start-time-cpu-us", "CPU time of this process when it was started, in microseconds.", True),
    Argument("start-time-us", "Monotonic time when this process was started, in microseconds.", True),
)  # fmt: skip


class Numbers(NamedTuple):
    """The flags that are numbers."""

    max_payload: int
    mmds_size_limit: int
    start_time_us: int | None = None
    start_time_cpu_us: int | None = None
    parent_cpu_time_us: int = 0


class Options:
    """What was typed, flag by flag; `id`, `level` and the numbers are checked when they are asked for."""

    def __init__(self, arguments: Arguments) -> None:
        given, value = arguments.given, arguments.value
        self.help = given("help")
        self.version = given("version")
        self.snapshot_version = given("snapshot-version")
        self.describe_snapshot = value("describe-snapshot")
        self.api_sock = None if given("no-api") else value("api-sock")
        self.config_file = value("config-file")
        self.metadata = value("metadata")
        self.id = value("id") or ""
        self.engine = value("engine")
        self.enable_pci = given("enable-pci")
        self.boot_timer = given("boot-timer")
        self.no_seccomp = given("no-seccomp")
        self.seccomp_filter = value("seccomp-filter")
        self.log_path = value("log-path")
        self.level = value("level")
        self.show_level = given("show-level")
        self.show_log_origin = given("show-log-origin")
        self.module = value("module")
        self.metrics_path = value("metrics-path")
        self._arguments = arguments

    def instance_id(self) -> str:
        """Check the identifier: 1 to 64 letters, digits and dashes. Raises InvalidInstanceId."""
        size = len(self.id.encode("utf-8", "surrogateescape"))
        if not 1 <= size <= 64:
            raise InvalidInstanceId(problem=f"InvalidLen({size}, 1, 64)")
        for at, character in enumerate(self.id):
            if not (character.isalnum() or character == "-"):
                raise InvalidInstanceId(problem=f"InvalidChar('{character}', {at})")
        return self.id

    def log_level(self) -> int | None:
        """Translate the level; None if it was not given. Raises InvalidLogLevel."""
        if self.level is None:
            return None
        level = log.level_named(self.level)
        if level is None:
            raise InvalidLogLevel(level=self.level)
        return level

    def numbers(self) -> Numbers:
        """Read the flags that are numbers; the times only matter to an API server. Raises InvalidNumber."""
        payload = self._number("http-api-max-payload-size", "usize") or 0
        mmds = self._number("mmds-size-limit", "usize")
        sizes = Numbers(payload, payload if mmds is None else mmds)
        if self.api_sock is None:
            return sizes
        return sizes._replace(
            start_time_us=self._number("start-time-us", "u64"),
            start_time_cpu_us=self._number("start-time-cpu-us", "u64"),
            parent_cpu_time_us=self._number("parent-cpu-time-us", "u64") or 0,
        )

    def _number(self, name: str, kind: str) -> int | None:
        text = self._arguments.value(name)
        if text is None:
            return None
        try:
            return unsigned(text, 64)
        except NotUnsigned as error:
            raise InvalidNumber(name=name, type=kind, kind=error.kind) from error


def parse(argv: Sequence[str]) -> Options:
    """Read the command line, without the program's name. Raises ArgumentsError."""
    try:
        return Options(args.parse(FLAGS, argv))
    except VmmError as error:
        raise ArgumentsError(cause=error) from error


def version_text() -> str:
    """Say which Firecracker this is compatible with, on the line that programs read, and then what it really is."""
    return f"Firecracker v{FIRECRACKER_VERSION}\n\nHibana {__version__}"


def help_text() -> str:
    """Give the whole help."""
    return f"Firecracker v{FIRECRACKER_VERSION}\n\n{args.help_text(FLAGS)}"
