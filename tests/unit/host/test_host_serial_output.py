"""The test plays the serial port on one side and whoever reads the console on the other."""

import fcntl
import os
import resource
from pathlib import Path

import pytest

from hibana.devices.rate_limiter import Limit, TokenBucket
from hibana.devices.uart16550 import Sink
from hibana.errors import SerialOutError
from hibana.host.serial_output import RateLimitedOutput, SerialOutput, open_serial_file
from hibana.observe.metrics_groups import METRICS
from hibana.testing.fakes import FakeClock


def test_each_byte_is_out_the_moment_it_is_written() -> None:
    reader, writer = os.pipe()
    output: Sink = SerialOutput(writer)
    for byte in range(256):
        assert output.write(bytes([byte])) == 1
        assert os.read(reader, 10) == bytes([byte])
    os.close(reader)
    os.close(writer)


def test_a_full_pipe_loses_the_byte_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    output = SerialOutput(writer)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    errors = METRICS.uart.error_count
    assert output.write(b"A") == 0
    assert METRICS.uart.error_count == errors + 1
    os.read(reader, 4096)
    assert output.write(b"B") == 1, "when there is room again the console goes on"
    assert "] Failed the write to serial: Resource temporarily unavailable (os error 11)\n" in capfd.readouterr().out
    os.close(reader)
    os.close(writer)


def test_a_pipe_that_is_nearly_full_takes_what_there_is_room_for() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, bytes(4090))
    errors = METRICS.uart.error_count
    assert SerialOutput(writer).write(b"0123456") == 6
    assert METRICS.uart.error_count == errors + 1
    assert os.read(reader, 5000) == bytes(4090) + b"012345"
    os.close(reader)
    os.close(writer)


def test_a_file_that_may_not_grow_takes_what_there_is_room_for(tmp_path: Path) -> None:
    fd = open_serial_file(str(tmp_path / "console"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, limits[1]))
    try:
        taken = SerialOutput(fd).write(b"01234")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        os.close(fd)
    assert taken == 4
    assert (tmp_path / "console").read_bytes() == b"0123"


def test_a_reader_that_went_away_does_not_kill_the_vmm(capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert not SerialOutput(writer).write(b"A")
    assert "Failed the write to serial: Broken pipe (os error 32)" in capfd.readouterr().out
    os.close(writer)


def test_the_file_is_made_but_never_emptied(tmp_path: Path) -> None:
    path = tmp_path / "console"
    for text in (b"first", b"2nd"):
        fd = open_serial_file(str(path))
        assert SerialOutput(fd).write(text) == len(text)
        os.close(fd)
    assert path.read_bytes() == b"2ndst", "writing starts at the beginning, as in the reference"


def test_a_fifo_needs_no_reader_to_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "console"
    os.mkfifo(path)
    fd = open_serial_file(str(path))
    assert not os.get_blocking(fd), "a guest must not wait for a reader"
    assert SerialOutput(fd).write(b"A") == 1
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 10) == b"A"
    os.close(reader)
    os.close(fd)


def test_a_file_that_cannot_be_opened_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(SerialOutError) as caught:
        open_serial_file(str(tmp_path / "no" / "such"))
    assert str(caught.value) == "Error with EventFd: No such file or directory (os error 2)"


def test_a_path_that_cannot_be_one_is_the_users_error() -> None:
    with pytest.raises(SerialOutError) as caught:
        open_serial_file("a\0b")
    assert str(caught.value) == "Error with EventFd: file name contained an unexpected NUL byte"


def test_a_rate_limit_drops_what_exceeds_it_and_counts_it(tmp_path: Path) -> None:
    dropped = METRICS.uart.rate_limiter_dropped_bytes
    clock = FakeClock()
    fd = open_serial_file(str(tmp_path / "console"))
    limited: Sink = RateLimitedOutput(SerialOutput(fd), TokenBucket(Limit(3, 0, 1000), lambda: int(clock() * 1e9)))
    assert limited.write(b"ab") + limited.write(b"cde") == 5, "dropped is not lost"
    assert METRICS.uart.rate_limiter_dropped_bytes == dropped + 2
    clock.advance(1)
    assert limited.write(b"fghi") == 4
    os.close(fd)
    assert METRICS.uart.rate_limiter_dropped_bytes == dropped + 3
    assert (tmp_path / "console").read_bytes() == b"abcfgh"
