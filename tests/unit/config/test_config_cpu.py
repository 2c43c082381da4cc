"""CPU templates: numbers, bitmaps and capabilities in strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.config.cpu import KvmCapability, RegisterValueFilter, bitmap, kvm_capability, number


def test_numbers_have_prefixes() -> None:
    assert number(32)("0x1F") == 31
    assert number(32)("0b101") == 5
    assert number(32)("0xffffffff") == 0xFFFFFFFF
    with pytest.raises(ValueError, match="No supported number system prefix found in value"):
        number(32)("31")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0x", "Empty"),
        ("0x+", "InvalidDigit"),
        ("0b2", "InvalidDigit"),
        ("0x1_0", "InvalidDigit"),
        ("0x100000000", "PosOverflow"),
    ],
)
def test_what_is_wrong_with_a_number(text: str, kind: str) -> None:
    with pytest.raises(ValueError, match=rf"ParseIntError {{ kind: {kind} }}$"):
        number(32)(text)


def test_a_bitmap_says_which_bits_change_and_into_what() -> None:
    assert bitmap(32)("0b1x_0") == RegisterValueFilter(0b101, 0b100)
    assert bitmap(32)("") == RegisterValueFilter(0, 0)
    assert bitmap(32)("1" * 32) == RegisterValueFilter(0xFFFFFFFF, 0xFFFFFFFF)


@given(st.text("01x", min_size=1, max_size=64), st.integers(0, (1 << 64) - 1))
def test_applying_a_bitmap_touches_only_the_named_bits(text: str, register: int) -> None:
    result = bitmap(64)(text).apply(register)
    for bit, mark in enumerate(reversed(text.rjust(64, "x"))):
        expected = {"0": 0, "1": 1, "x": register >> bit & 1}[mark]
        assert result >> bit & 1 == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [("0b1y", "unknown character: 121"), ("1" * 33, "string is too long"), ("y" * 33, "unknown character: 121")],
)
def test_what_is_wrong_with_a_bitmap(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"as a bitmap - {problem}$"):
        bitmap(32)(text)


def test_capabilities_are_added_and_removed() -> None:
    assert kvm_capability("171") == KvmCapability(171, added=True)
    assert kvm_capability("!171") == KvmCapability(171, added=False)
    for text, problem in (("", "empty string"), ("!!1", "invalid digit"), ("9" * 5000, "number too large")):
        with pytest.raises(ValueError, match=problem):
            kvm_capability(text)
