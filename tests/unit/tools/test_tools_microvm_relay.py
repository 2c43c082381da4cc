"""What a person types reaches the guest, but for the way out."""

import pytest

from tools.microvm.relay import Keys, Left


def test_keys_go_through() -> None:
    assert Keys().feed(b"ls -l\r\x03\x04\x1b[A") == b"ls -l\r\x03\x04\x1b[A"


def test_ctrl_a_x_leaves_also_when_typed_slowly() -> None:
    keys = Keys()
    assert keys.feed(b"\x01") == b""
    with pytest.raises(Left):
        keys.feed(b"x")


def test_ctrl_a_twice_is_one_ctrl_a() -> None:
    assert Keys().feed(b"a\x01\x01b") == b"a\x01b"
