"""The test plays the guest's init, and both clocks."""

import re

import pytest

from hibana.devices.boot_timer import BootTimer, Moment, now


def messages(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [line.partition("] ")[2] for line in capfd.readouterr().out.splitlines()]


def test_the_byte_123_logs_how_long_the_guest_took(capfd: pytest.CaptureFixture[str]) -> None:
    timer = BootTimer(Moment(1_000_000, 500_000), lambda: Moment(1_123_456, 507_890))
    timer.write(0, 1, 123)
    assert messages(capfd) == ["Guest-boot-time = 123456 us 123 ms,   7890 CPU us 7 CPU ms"]


def test_the_line_is_what_the_reference_s_tests_look_for(capfd: pytest.CaptureFixture[str]) -> None:
    started = now()
    BootTimer(started).write(0, 1, 123)
    (line,) = messages(capfd)
    assert re.search(r"Guest-boot-time =\s+(\d+) us\s+(\d+) ms,\s+(\d+) CPU us\s+(\d+) CPU ms", line)


@pytest.mark.parametrize(("offset", "size", "value"), [(0, 1, 122), (1, 1, 123), (0, 4, 123)])
def test_other_writes_are_ignored(capfd: pytest.CaptureFixture[str], offset: int, size: int, value: int) -> None:
    BootTimer(now()).write(offset, size, value)
    assert messages(capfd) == []


def test_there_is_nothing_to_read() -> None:
    assert BootTimer(now()).read(0, 4) == 0
