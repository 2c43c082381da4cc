"""How Rust writes strings and floats into messages and logs, and how it reads whole numbers."""

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
    """Write a float with the fewest digits that read back as the same number: `1.5`, `2.0`, `0.00001`, `1e+20`."""
    digits, mark, exponent = repr(value).partition("e")
    if exponent == "-05":  # where Python begins to write exponents; serde_json does one later
        sign, figures = ("-", digits[1:]) if value < 0 else ("", digits)
        return f"{sign}0.0000{figures.replace('.', '')}"
    return f"{digits}e{int(exponent):+d}" if mark else digits


class NotUnsigned(ValueError):
    """A text is not the whole number it should be; `kind` is Rust's name for the reason, `str()` its sentence."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(_NOT_UNSIGNED[kind])


_NOT_UNSIGNED: Final = {
    "Empty": "cannot parse integer from empty string",
    "InvalidDigit": "invalid digit found in string",
    "PosOverflow": "number too large to fit in target type",
}


def unsigned(text: str, bits: int) -> int:
    """Read a number as Rust's `parse` does for `u8` to `u64`: digits, perhaps after a plus. Raises NotUnsigned."""
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        raise NotUnsigned("InvalidDigit" if text else "Empty")
    significant = digits.lstrip("0") or "0"
    # Python refuses to read a number of thousands of digits.
    if len(significant) > bits or int(significant) >> bits:
        raise NotUnsigned("PosOverflow")
    return int(significant)
