"""The real-time clock: the host's time of day in whatever format the guest asks for."""

import calendar
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.engine.soft import rtc as reg
from hibana.engine.soft.rtc import CONTENT, INDEX, Rtc

BINARY = 0x04
TWENTY_FOUR = 0x02
SECOND = 10**9

moments = st.integers(0, calendar.timegm((2099, 12, 31, 23, 59, 59)))


def clock(ns: int) -> Rtc:
    return Rtc(lambda: ns)


def read(rtc: Rtc, register: int) -> int:
    rtc.write(INDEX, register)
    return rtc.read(CONTENT)


def write(rtc: Rtc, register: int, value: int) -> None:
    rtc.write(INDEX, register)
    rtc.write(CONTENT, value)


def decimal(bcd: int) -> int:
    assert bcd & 0xF <= 9
    assert bcd >> 4 <= 9
    return (bcd >> 4) * 10 + (bcd & 0xF)


@given(moments)
def test_the_default_format_is_decimal_with_24_hours(moment: int) -> None:
    rtc = clock(moment * SECOND)
    century, year, month, day, hours, minutes, seconds = (
        decimal(read(rtc, register))
        for register in (reg.CENTURY, reg.YEAR, reg.MONTH, reg.DAY, reg.HOURS, reg.MINUTES, reg.SECONDS)
    )
    assert calendar.timegm((100 * century + year, month, day, hours, minutes, seconds)) == moment


@given(moments)
def test_binary_and_12_hours(moment: int) -> None:
    rtc = clock(moment * SECOND)
    write(rtc, reg.B, BINARY)
    host = time.gmtime(moment)
    assert read(rtc, reg.SECONDS) == host.tm_sec
    assert read(rtc, reg.YEAR) == host.tm_year % 100
    hours = read(rtc, reg.HOURS)
    assert 1 <= hours & 0x7F <= 12
    assert (hours & 0x7F) % 12 + (12 if hours & 0x80 else 0) == host.tm_hour


@pytest.mark.parametrize(("hour", "twelve"), [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)])
def test_midnight_and_noon_are_twelve(hour: int, twelve: int) -> None:
    rtc = clock(hour * 3600 * SECOND)
    write(rtc, reg.B, 0)
    assert read(rtc, reg.HOURS) == twelve


def test_the_week_begins_on_sunday() -> None:
    sunday = calendar.timegm((2024, 9, 1, 12, 0, 0))
    days = [read(clock((sunday + 86400 * n) * SECOND), reg.DAY_OF_WEEK) for n in range(7)]
    assert days == [1, 2, 3, 4, 5, 6, 7]


def test_the_update_flag_warns_a_quarter_millisecond_ahead() -> None:
    assert read(clock(5 * SECOND), reg.A) == 0x26
    assert read(clock(6 * SECOND - 244_001), reg.A) == 0x26
    assert read(clock(6 * SECOND - 244_000), reg.A) == 0xA6
    assert read(clock(6 * SECOND - 1), reg.A) == 0xA6


def test_the_update_flag_cannot_be_written() -> None:
    rtc = clock(5 * SECOND)
    write(rtc, reg.A, 0xAF)
    assert read(rtc, reg.A) == 0x2F


def test_a_stopped_clock_announces_no_update() -> None:
    rtc = clock(6 * SECOND - 1)
    write(rtc, reg.B, 0x82)
    assert read(rtc, reg.A) == 0x26


def test_the_time_cannot_be_set() -> None:
    rtc = clock(0)
    for register in (reg.SECONDS, reg.HOURS, reg.YEAR, reg.CENTURY):
        before = read(rtc, register)
        write(rtc, register, 0x59)
        assert read(rtc, register) == before


def test_interrupts_cannot_be_enabled() -> None:
    rtc = clock(0)
    write(rtc, reg.B, 0xFF)
    assert read(rtc, reg.B) == 0x8F
    assert read(rtc, reg.C) == 0


def test_the_battery_is_good() -> None:
    rtc = clock(0)
    write(rtc, reg.D, 0)
    assert read(rtc, reg.D) == 0x80


def test_memory_keeps_what_is_written_and_bit_7_of_the_index_is_the_nmi_mask() -> None:
    rtc = clock(0)
    write(rtc, 0x40, 0xA5)
    assert read(rtc, 0xC0) == 0xA5
    assert rtc.read(INDEX) == 0xFF


@given(st.lists(st.tuples(st.sampled_from([INDEX, CONTENT]), st.integers(0, 255))))
def test_a_saved_clock_is_the_same(story: list[tuple[int, int]]) -> None:
    rtc, copy = clock(1), clock(1)
    for port, value in story:
        rtc.write(port, value)
        assert 0 <= rtc.read(CONTENT) <= 0xFF
    copy.load(rtc.save())
    assert copy.read(CONTENT) == rtc.read(CONTENT)
    assert copy.save() == rtc.save()
