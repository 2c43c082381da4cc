"""Strings and floats as Rust prints them."""

import pytest

from hibana.serde.rust import floating, quoted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", '"plain"'),
        ('a "b"', r'"a \"b\""'),
        ("back\\slash", r'"back\\slash"'),
        ("a\nb\r\t\0", r'"a\nb\r\t\0"'),
        ("\x01\x7f", r'"\u{1}\u{7f}"'),
        ("é日本", '"é日本"'),
        ("it's", '"it\'s"'),
        ("a\u00a0b", r'"a\u{a0}b"'),
    ],
)
def test_strings_are_quoted_and_escaped(text: str, shown: str) -> None:
    assert quoted(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.5, "1.5"),
        (2.0, "2.0"),
        (-0.0, "-0.0"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e+16"),
        (1e20, "1e+20"),
        (1e-4, "0.0001"),
        (1e-5, "0.00001"),
        (-1.25e-5, "-0.0000125"),
        (1e-6, "1e-6"),
        (1.5e-7, "1.5e-7"),
    ],
)
def test_floats_have_the_fewest_digits_and_a_point(value: float, shown: str) -> None:
    assert floating(value) == shown
