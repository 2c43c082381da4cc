"""The log against the reference's line format and habits (api.md §9)."""

import os
import re
import threading
import time
from collections.abc import Callable
from fcntl import F_SETPIPE_SZ, fcntl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.errors import LogFileError
from hibana.observe.log import DEBUG, ERROR, OFF, TRACE, WARN, CallSite, Logger, level_named, module_path
from hibana.observe.metrics_groups import METRICS
from hibana.observe.sink import Sink

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}"
SECOND_NS = 1_000_000_000


class Reader:
    """A logger and the pipe its lines go to."""

    def __init__(self) -> None:
        self._read_end, write_end = os.pipe2(os.O_NONBLOCK)
        self.write_end = write_end
        self.logger = Logger(Sink(write_end))

    def lines(self) -> list[str]:
        try:
            return os.read(self._read_end, 1 << 20).decode().splitlines()
        except BlockingIOError:
            return []

    def messages(self) -> list[str]:
        return [line.partition("] ")[2] for line in self.lines()]

    def close(self) -> None:
        os.close(self._read_end)
        os.close(self.write_end)


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture(autouse=True)
def closing(reader: Reader) -> object:
    yield
    reader.close()


def test_a_line_says_when_who_and_what(reader: Reader) -> None:
    reader.logger.set_instance("MYID")
    reader.logger.info("Running Firecracker v1.17.0-dev")
    (line,) = reader.lines()
    assert re.fullmatch(STAMP + r" \[MYID:main\] Running Firecracker v1\.17\.0-dev", line)


def test_a_line_says_on_request_how_bad_and_where_from(reader: Reader) -> None:
    reader.logger.configure(show_level=True, show_log_origin=True)
    reader.logger.error("x")
    (line,) = reader.lines()
    assert re.fullmatch(STAMP + r" \[anonymous-instance:main:ERROR:([^:]+/[^:]+):([0-9]+)\] x", line)
    assert f"{__name__.rpartition('.')[2]}.py:" in line


def test_every_thread_has_a_name_of_its_own(reader: Reader) -> None:
    def vcpu() -> None:
        reader.logger.info("before")
        reader.logger.set_thread_name("fc_vcpu 0")
        reader.logger.info("after")

    thread = threading.Thread(target=vcpu)
    thread.start()
    thread.join()
    reader.logger.info("here")
    assert [line.split("[")[1] for line in reader.lines()] == [
        "anonymous-instance:-] before",
        "anonymous-instance:fc_vcpu 0] after",
        "anonymous-instance:main] here",
    ]


@pytest.mark.parametrize(
    ("level", "spoken"),
    [
        (OFF, []),
        (ERROR, ["error"]),
        (WARN, ["error", "warn"]),
        (None, ["error", "warn", "info"]),
        (DEBUG, ["error", "warn", "info", "debug"]),
        (TRACE, ["error", "warn", "info", "debug", "trace"]),
    ],
)
def test_a_level_lets_through_itself_and_what_is_worse(reader: Reader, level: int | None, spoken: list[str]) -> None:
    logger = reader.logger
    logger.configure(level=level)
    for speak, name in (
        (logger.error, "error"),
        (logger.warn, "warn"),
        (logger.info, "info"),
        (logger.debug, "debug"),
        (logger.trace, "trace"),
    ):
        speak(name)
    assert reader.messages() == spoken
    assert logger.enabled(DEBUG) == ("debug" in spoken)


def test_configuring_again_keeps_what_is_not_given_except_the_level(reader: Reader) -> None:
    reader.logger.configure(level=DEBUG, show_level=True)
    reader.logger.configure()
    reader.logger.debug("unheard")
    reader.logger.info("heard")
    (line,) = reader.lines()
    assert line.endswith("[anonymous-instance:main:INFO] heard")


def test_levels_have_names_in_any_case() -> None:
    assert [level_named(name) for name in ("off", "Error", "WARN", "Warning", "trace")] == [
        OFF,
        ERROR,
        WARN,
        WARN,
        TRACE,
    ]
    assert level_named("verbose") is None


@pytest.mark.parametrize(
    ("module", "path"),
    [
        ("hibana.api.server", "firecracker::api_server::server"),
        ("hibana.api.routes", "firecracker::api_server::parsed_request"),
        ("hibana.cli.firecracker", "firecracker"),
        ("hibana.vmm.assemble", "vmm::builder"),
        ("hibana.vmm.controller", "vmm::rpc_interface"),
        ("hibana.devices.virtio.net", "vmm::devices::virtio::net"),
        ("hibana.snapshot.load", "vmm::persist::load"),
        ("hibana", "vmm"),
        ("plugin.thing", "plugin::thing"),
    ],
)
def test_modules_have_paths_like_the_references(module: str, path: str) -> None:
    assert module_path(module) == path


def test_a_module_filter_silences_the_others(reader: Reader) -> None:
    reader.logger.configure(module="vmm::devices")
    exec("log.info('device')", {"__name__": "hibana.devices.virtio.net", "log": reader.logger})
    exec("log.info('api')", {"__name__": "hibana.api.routes", "log": reader.logger})
    assert reader.messages() == ["device"]


def test_a_file_is_written_from_its_start_and_not_truncated(reader: Reader, tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "log")
    with open(path, "w") as file:
        file.write("x" * 1000)
    reader.logger.configure(path=path)
    reader.logger.info("one")
    reader.logger.info("two")
    with open(path) as file:
        text = file.read()
    assert text.index("one") < text.index("two") < text.index("xxx")
    assert len(text) == 1000
    assert reader.lines() == []


def test_a_new_file_takes_over_from_the_last(reader: Reader, tmp_path: os.PathLike[str]) -> None:
    for name in ("first", "second", "third"):
        reader.logger.configure(path=os.path.join(tmp_path, name))
        reader.logger.info(f"this is the {name}")
    for name in ("first", "second", "third"):
        with open(os.path.join(tmp_path, name)) as file:
            assert file.read().endswith(f"this is the {name}\n")


def test_a_file_that_cannot_be_opened_is_reported_and_nothing_changes(reader: Reader) -> None:
    with pytest.raises(LogFileError, match=r"^Failed to open target file: No such file or directory \(os error 2\)$"):
        reader.logger.configure(path="/nonexistent/log", level=OFF)
    reader.logger.info("still here")
    assert reader.messages() == ["still here"]


def test_a_fifo_needs_no_reader_and_a_full_one_only_loses_lines(reader: Reader, tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "fifo")
    os.mkfifo(path)
    missed = METRICS.logger.missed_log_count
    reader.logger.configure(path=path)
    fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl(fifo, F_SETPIPE_SZ, 4096)
    for number in range(100):
        reader.logger.info(f"{number:03} " + "x" * 200)
    lost = METRICS.logger.missed_log_count - missed
    lines = os.read(fifo, 1 << 20).splitlines()
    assert 0 < lost == 100 - len(lines)
    assert all(line.endswith(b"x" * 200) for line in lines)
    os.close(fifo)


def test_a_line_cut_in_two_by_a_full_fifo_is_completed_before_the_next(reader: Reader) -> None:
    fcntl(reader.write_end, F_SETPIPE_SZ, 4096)
    reader.logger.info("a" * 10_000)
    received = "".join(reader.lines())
    reader.logger.info("lost, because the long one is not out yet")
    for _ in range(2):
        received += "".join(reader.lines())
        reader.logger.info("short")
    received += "".join(reader.lines())
    assert re.fullmatch(STAMP + r" \[anonymous-instance:main\] a{10000}" + STAMP + r" \[.*\] short", received)


def test_no_line_comes_before_all_of_a_torn_one_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    written = bytearray()

    def four_bytes_at_a_time(fd: int, content: bytes) -> int:
        written.extend(content[:4])
        return min(4, len(content))

    monkeypatch.setattr("os.write", four_bytes_at_a_time)
    sink = Sink(-1)
    sink.write(b"first line\n")
    with pytest.raises(BlockingIOError):
        sink.write(b"lost\n")
    sink.write(b"next\n")
    assert written == b"first line\nnext"


def test_lines_of_several_threads_never_mix_however_little_a_fifo_takes() -> None:
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    fcntl(write_end, F_SETPIPE_SZ, 4096)
    sink = Sink(write_end)
    talkers = [threading.Thread(target=_talk, args=(sink, letter)) for letter in (b"a", b"b")]
    for talker in talkers:
        talker.start()
    heard = b""
    while any(talker.is_alive() for talker in talkers):
        try:
            heard += os.read(read_end, 1000)
        except BlockingIOError:
            time.sleep(0)
    os.close(read_end)
    os.close(write_end)
    whole = heard.split(b"\n")[:-1]
    assert whole
    assert {line for line in whole if line not in (b"a" * 6000, b"b" * 6000)} == set()


def _talk(sink: Sink, letter: bytes) -> None:
    written = 0
    while written < 100:
        try:
            sink.write(letter * 6000 + b"\n")  # longer than what a FIFO takes whole or not at all
            written += 1
        except BlockingIOError:
            time.sleep(0)


def test_ten_messages_then_one_every_half_second() -> None:
    site = CallSite()
    assert [site.admits(0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not site.admits(SECOND_NS // 2 - 1)
    assert site.admits(SECOND_NS // 2)
    assert not site.admits(SECOND_NS // 2)
    assert [site.admits(100 * SECOND_NS) for _ in range(11)] == [True] * 10 + [False]


@given(st.lists(st.integers(min_value=0, max_value=2 * SECOND_NS)))
def test_no_window_of_five_seconds_sees_more_than_twice_the_allowance(gaps: list[int]) -> None:
    site, now, admitted = CallSite(), 0, list[int]()
    for gap in gaps:
        now += gap
        if site.admits(now):
            admitted.append(now)
    for start in admitted:
        assert sum(start <= moment < start + 5 * SECOND_NS for moment in admitted) <= 20


def speak(limited: Callable[[str], None], text: str) -> None:
    limited(text)


def test_suppressed_messages_are_counted_and_announced(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0
    monkeypatch.setattr("time.monotonic_ns", lambda: now)
    counted = METRICS.logger.rate_limited_log_count
    for number in range(15):
        speak(reader.logger.error_limited, f"noise {number}")
    assert reader.messages() == [f"noise {number}" for number in range(10)]
    assert METRICS.logger.rate_limited_log_count - counted == 5
    now = SECOND_NS // 2
    speak(reader.logger.error_limited, "again")
    assert reader.messages() == ["5 messages were suppressed due to rate limiting", "again"]


def test_every_place_in_the_code_has_its_own_allowance(reader: Reader) -> None:
    for _ in range(12):
        reader.logger.warn_limited("here")
        reader.logger.info_limited("there")
    messages = reader.messages()
    assert messages.count("here") == messages.count("there") == 10
