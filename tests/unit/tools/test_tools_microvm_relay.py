"""What a person types reaches the guest, but for the way out."""

import os

import pytest

from tools.microvm.job import Output
from tools.microvm.relay import Console, Keys, Left, relay


def test_keys_go_through() -> None:
    assert Keys().feed(b"ls -l\r\x03\x04\x1b[A") == b"ls -l\r\x03\x04\x1b[A"


def test_ctrl_a_x_leaves_also_when_typed_slowly() -> None:
    keys = Keys()
    assert keys.feed(b"\x01") == b""
    with pytest.raises(Left):
        keys.feed(b"x")


def test_who_hangs_up_has_left() -> None:
    console, keyboard = os.pipe(), os.pipe()
    os.close(keyboard[1])
    with pytest.raises(Left):
        relay(Console(*console), Output("word"), keyboard[0], verbose=False)
    for fd in (*console, keyboard[0]):
        os.close(fd)


def test_ctrl_a_twice_is_one_ctrl_a() -> None:
    assert Keys().feed(b"a\x01\x01b") == b"a\x01b"
