"""The grammar of JSON over a byte string, with serde_json's complaints at serde_json's positions.

A complaint is *placed* at a byte offset that becomes line and column: behind what was read (`error`), or on the byte
that was looked at but not taken (`peek_error`). A complaint about a value's meaning knows no place when it is raised
(`Complaint`); the innermost array or object around it finds one, by trying to read its own end first. This explains
columns that look odd, such as a missing field reported behind the closing brace.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from hibana.errors import JsonError
from hibana.serde.rust import floating, quoted

T = TypeVar("T")

END: Final = -1
QUOTE: Final = ord('"')
COMMA: Final = ord(",")
COLON: Final = ord(":")
BACKSLASH: Final = ord("\\")
OPEN_BRACKET: Final = ord("[")
CLOSE_BRACKET: Final = ord("]")
OPEN_BRACE: Final = ord("{")
CLOSE_BRACE: Final = ord("}")
NUMERIC: Final = b"-0123456789"

_DEPTH: Final = 127  # arrays and objects within each other
_INK: Final = re.compile(rb"[^ \n\t\r]").search
_STRING_STOP: Final = re.compile(rb'["\\\x00-\x1f]').search
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?").match
_FOUR_HEX: Final = re.compile(rb"[0-9A-Fa-f]{4}").fullmatch
_WORDS: Final[dict[int, tuple[bytes, bool | None]]] = {
    ord("n"): (b"null", None),
    ord("t"): (b"true", True),
    ord("f"): (b"false", False),
}
_ESCAPES: Final = {
    ord('"'): b'"',
    ord("\\"): b"\\",
    ord("/"): b"/",
    ord("b"): b"\b",
    ord("f"): b"\f",
    ord("n"): b"\n",
    ord("r"): b"\r",
    ord("t"): b"\t",
}


class Complaint(Exception):
    """What is wrong with a value, before the array or object around it has found a place for it."""


class Reader:
    """A place in a JSON text."""

    __slots__ = ("_depth", "at", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0
        self._depth = 0

    # --- complaints -------------------------------------------------------------------------------------------------

    def error(self, message: str) -> JsonError:
        """Place a complaint behind what has been read."""
        return self._placed(message, self.at)

    def peek_error(self, message: str) -> JsonError:
        """Place a complaint on the next byte."""
        return self._placed(message, min(self.at + 1, len(self.text)))

    def _placed(self, message: str, at: int) -> JsonError:
        line_start = self.text.rfind(b"\n", 0, at) + 1
        return JsonError(message, self.text.count(b"\n", 0, at) + 1, at - line_start)

    def unexpected(self, expected: str) -> JsonError:
        """Read whatever comes and complain that it is not what was expected."""
        code = self.peek()
        if code == END:
            return self.peek_error("EOF while parsing a value")
        if code == OPEN_BRACKET:
            found = "sequence"
        elif code == OPEN_BRACE:
            found = "map"
        else:
            found = described(self.value())
        return self.error(f"invalid type: {found}, expected {expected}")

    # --- tokens -----------------------------------------------------------------------------------------------------

    def peek(self) -> int:
        """Skip whitespace and tell the next byte, or END."""
        found = _INK(self.text, self.at)
        if found is None:
            self.at = len(self.text)
            return END
        self.at = found.start()
        return self.text[self.at]

    def finish(self) -> None:
        """Make sure that only whitespace is left."""
        if self.peek() != END:
            raise self.peek_error("trailing characters")

    def word(self, word: bytes) -> None:
        """Read `null`, `true` or `false`, of which the first letter has been seen."""
        self.at += 1
        for letter in word[1:]:
            if self._take() != letter:
                raise self.error("expected ident")

    def number(self) -> int | float:
        """Read a number. As in the reference `-0` and whatever fits neither u64 nor i64 become floats."""
        found = _NUMBER(self.text, self.at)
        if found is None:  # a minus sign and then no digit
            self.at += 1
            raise self._digit_missing()
        token, fraction, exponent = found[0], found[1], found[2]
        self.at = found.end()
        following = self.text[self.at : self.at + 1]
        if not exponent:
            if following in (b"e", b"E"):
                self.at += 1
                if self.text[self.at : self.at + 1] in (b"+", b"-"):
                    self.at += 1
                raise self._digit_missing()
            if not fraction:
                if following == b".":
                    self.at += 1
                    at_end = self.at == len(self.text)
                    raise self.peek_error("EOF while parsing a value" if at_end else "invalid number")
                if following.isdigit():  # a leading zero
                    raise self.peek_error("invalid number")
                if len(token) <= 20 and token != b"-0" and -(1 << 63) <= int(token) < 1 << 64:
                    return int(token)
        value = float(token)
        if value in (float("inf"), float("-inf")):
            raise self.error("number out of range")
        return value

    def _digit_missing(self) -> JsonError:
        self._take()
        return self.error("invalid number")

    def _take(self, ended: str = "EOF while parsing a value") -> int:
        """Take the next byte, whatever it is."""
        if self.at == len(self.text):
            raise self.error(ended)
        self.at += 1
        return self.text[self.at - 1]

    def string(self) -> str:
        """Read a string, of which the opening quote has been seen."""
        self.at += 1
        pieces: list[bytes] = []
        while True:
            stop = _STRING_STOP(self.text, self.at)
            if stop is None:
                self.at = len(self.text)
                raise self.error("EOF while parsing a string")
            pieces.append(self.text[self.at : stop.start()])
            self.at = stop.end()
            if stop[0] == b'"':
                break
            if stop[0] != b"\\":
                raise self.error("control character (\\u0000-\\u001F) found while parsing a string")
            pieces.append(self._escape())
        try:
            return b"".join(pieces).decode()
        except UnicodeDecodeError:
            raise self.error("invalid unicode code point") from None

    def _escape(self) -> bytes:
        letter = self._take("EOF while parsing a string")
        if letter != ord("u"):
            if letter not in _ESCAPES:
                raise self.error("invalid escape")
            return _ESCAPES[letter]
        code = self._four_hex_digits()
        if 0xDC00 <= code <= 0xDFFF:
            raise self.error("lone leading surrogate in hex escape")
        if 0xD800 <= code <= 0xDBFF:
            for expected in b"\\u":
                if self._take("EOF while parsing a string") != expected:
                    raise self.error("unexpected end of hex escape")
            low = self._four_hex_digits()
            if not 0xDC00 <= low <= 0xDFFF:
                raise self.error("lone leading surrogate in hex escape")
            code = 0x10000 + ((code - 0xD800) << 10 | low - 0xDC00)
        return chr(code).encode()

    def _four_hex_digits(self) -> int:
        digits = self.text[self.at : self.at + 4]
        self.at += len(digits)
        if len(digits) < 4:
            raise self.error("EOF while parsing a string")
        if not _FOUR_HEX(digits):
            raise self.error("invalid escape")
        return int(digits, 16)

    # --- arrays and objects -----------------------------------------------------------------------------------------

    def elements(self) -> Iterator[None]:
        """Step to each element of an open array; the caller reads it before the next step."""
        first = True
        while (code := self.peek()) != CLOSE_BRACKET:
            if code == END:
                raise self.peek_error("EOF while parsing a list")
            if not first:
                if code != COMMA:
                    raise self.peek_error("expected `,` or `]`")
                self.at += 1
                code = self.peek()
                if code == CLOSE_BRACKET:
                    raise self.peek_error("trailing comma")
                if code == END:
                    raise self.peek_error("EOF while parsing a value")
            first = False
            yield

    def members(self) -> Iterator[str]:
        """Step to each member of an open object and give its key; the caller reads `colon` and the value."""
        first = True
        while (code := self.peek()) != CLOSE_BRACE:
            if code == END:
                raise self.peek_error("EOF while parsing an object")
            if not first:
                if code != COMMA:
                    raise self.peek_error("expected `,` or `}`")
                self.at += 1
                code = self.peek()
                if code == CLOSE_BRACE:
                    raise self.peek_error("trailing comma")
                if code == END:
                    raise self.peek_error("EOF while parsing a value")
            if code != QUOTE:
                raise self.peek_error("key must be a string")
            first = False
            yield self.string()

    def colon(self) -> None:
        """Read the colon behind a key."""
        code = self.peek()
        if code != COLON:
            raise self.peek_error("EOF while parsing an object" if code == END else "expected `:`")
        self.at += 1

    def open(self) -> None:
        """Take an opening bracket or brace."""
        if self._depth == _DEPTH:
            raise self.peek_error("recursion limit exceeded")
        self._depth += 1
        self.at += 1

    def close(self, closing: int) -> None:
        """Take the closing bracket or brace."""
        code = self.peek()
        if code == closing:
            self._depth -= 1
            self.at += 1
            return
        if code == END:
            raise self.peek_error("EOF while parsing a list")
        if code == COMMA and closing == CLOSE_BRACKET:
            self.at += 1
            code = self.peek()
        raise self.peek_error("trailing comma" if code == closing else "trailing characters")

    def inside(self, closing: int, read: Callable[["Reader"], T]) -> T:
        """Read an array or object from its opening to its end, and find a place for complaints about it."""
        self.open()
        try:
            value = read(self)
        except Complaint as complaint:
            try:
                self.close(closing)
            except JsonError:
                pass  # what follows is wrong too, but the complaint came first
            raise self.error(str(complaint)) from None
        self.close(closing)
        return value

    # --- values without a schema ------------------------------------------------------------------------------------

    def value(self) -> Any:
        """Read any value; of a repeated key the last one counts."""
        code = self.peek()
        if code == QUOTE:
            return self.string()
        if code == OPEN_BRACE:
            return self._object()
        if code == OPEN_BRACKET:
            return self._array()
        if code in _WORDS:
            word, value = _WORDS[code]
            self.word(word)
            return value
        if code == END:
            raise self.peek_error("EOF while parsing a value")
        if code in NUMERIC:
            return self.number()
        raise self.peek_error("expected value")

    def _array(self) -> list[Any]:
        self.open()
        items = []
        for _ in self.elements():  # no comprehension: it would be one more frame per level of nesting
            items.append(self.value())  # noqa: PERF401
        self.close(CLOSE_BRACKET)
        return items

    def _object(self) -> dict[str, Any]:
        self.open()
        members = {}
        for key in self.members():
            self.colon()
            members[key] = self.value()
        self.close(CLOSE_BRACE)
        return members


def described(value: object) -> str:
    """Name a scalar as complaints do: ``integer `5` ``, `string "x"`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"boolean `{str(value).lower()}`"
    if isinstance(value, int):
        return f"integer `{value}`"
    if isinstance(value, float):
        return f"floating point `{floating(value)}`"
    return f"string {quoted(str(value))}"
