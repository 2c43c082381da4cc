"""Views: fields of a record over somebody else's bytes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.view import View, u8, u16, u32, u64


class Record(View):
    """One field of each width, none of them aligned."""

    SIZE = 16
    byte = u8(0)
    half = u16(1)
    word = u32(3)
    long = u64(7)


@given(st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, (1 << 64) - 1))
def test_fields_are_little_endian_and_do_not_touch_each_other(byte: int, half: int, word: int, long: int) -> None:
    record = Record(bytearray(Record.SIZE))
    record.byte, record.half, record.word, record.long = byte, half, word, long
    assert record.buf == struct.pack("<BHIQB", byte, half, word, long, 0)
    assert (record.byte, record.half, record.word, record.long) == (byte, half, word, long)


def test_a_view_is_a_window_and_not_a_copy() -> None:
    elsewhere = bytearray(32)
    record = Record(memoryview(elsewhere)[16:])
    record.half = 0x1234
    assert elsewhere[17:19] == b"\x34\x12"
    elsewhere[16] = 9
    assert record.byte == 9


def test_a_value_too_wide_for_its_field_is_a_programming_error() -> None:
    with pytest.raises(struct.error):
        Record(bytearray(Record.SIZE)).byte = 256


def test_the_class_gives_the_field_itself() -> None:
    assert type(Record.byte).__name__ == "Field"
