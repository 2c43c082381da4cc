"""How Rust writes strings and floats into messages and logs."""

from typing import Final

_ESCAPES: Final = str.maketrans(
    {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"},
)


def quoted(text: str) -> str:
    """Write a string as Rust's `{:?}` does: in double quotes, with everything unprintable escaped."""
    text = text.translate(_ESCAPES)
    if not text.isprintable():
        text = "".join(char if char.isprintable() else f"\\u{{{ord(char):x}}}" for char in text)
    return f'"{text}"'


def floating(value: float) -> str:
    """Write a float with the fewest digits that read back as the same number: `1.5`, `2.0`, `1e+20`."""
    digits, mark, exponent = repr(value).partition("e")
    return f"{digits}e{int(exponent):+d}" if mark else digits
