"""Records from JSON text: a decoder per type, made once from the annotations of a msgspec Struct.

A decoder reads one value at the reader's place. It walks the text in document order and stops at the first thing the
reference would complain about. msgspec itself would report something else first, accepts a key that is given twice and
takes `-0` for an integer, so for records it is not even asked; a request's body is short.
"""

import re
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from hibana.errors import JsonError
from hibana.serde.reader import (
    CLOSE_BRACE,
    CLOSE_BRACKET,
    END,
    NUMERIC,
    OPEN_BRACE,
    OPEN_BRACKET,
    QUOTE,
    Complaint,
    Reader,
    described,
)
from hibana.serde.shapes import TEXT, Converted, Integer, Tagged, Untagged, Wording

T = TypeVar("T")
Decoder = Callable[[Reader], Any]

_DEPTH: Final = 127
_MAYBE_FLOAT: Final = re.compile(rb"(?:^|[\[:,\s])-0(?![.\d])|\d{19}").search


def decode(text: bytes, kind: type[T]) -> T:
    """Read a record from a JSON text. Raises JsonError."""
    reader = Reader(text)
    value: T = decoder_for(kind)(reader)
    reader.finish()
    return value


def decode_any(text: bytes) -> Any:
    """Read any JSON document. Raises JsonError.

    A document may be large, and nothing else runs meanwhile: msgspec reads it fifty times faster. It is not asked
    where it understands a number differently (`-0` and integers beyond 64 bits are floats), and not believed where it
    allows deeper nesting.
    """
    if not _MAYBE_FLOAT(text):
        try:
            value = msgspec.json.decode(text)
            if not _deeper(value, _DEPTH):
                return value
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass  # the reader knows what to say
    reader = Reader(text)
    value = reader.value()
    reader.finish()
    return value


def _deeper(value: object, levels: int) -> bool:
    """Tell whether arrays and objects nest in each other more than so many levels."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(item, levels - 1) for item in inner)


# --- decoders: one function that makes one, per kind of type ----------------------------------------------------------

_DECODERS: Final[dict[Any, Decoder]] = {}


def decoder_for(kind: Any) -> Decoder:
    """Find or make the decoder of a type."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = _make(kind)
    return decoder


def _make(kind: Any) -> Decoder:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1])
    if origin in (Union, UnionType):
        (present,) = (each for each in arguments if each not in (NoneType, msgspec.UnsetType))
        return _optional(decoder_for(present))
    if origin is Literal:
        return _variant(dict.fromkeys(arguments))
    if origin is list:
        return _sequence(decoder_for(arguments[0]))
    if origin is dict:
        return _map(decoder_for(arguments[1]))
    if kind is bool:
        return _boolean
    if kind is str:
        return _text(TEXT)
    return _Record(kind).read


def _annotated(plain: Any, shape: object) -> Decoder:
    if isinstance(shape, Integer):
        return _integer(shape)
    if isinstance(shape, Wording):
        return _text(shape)
    if isinstance(shape, Converted):
        return _converted(shape)
    if isinstance(shape, Tagged):
        return _variant({word: value and decoder_for(value) for word, value in shape.variants})
    assert isinstance(shape, Untagged)
    return _untagged(shape, [decoder_for(each) for each in get_args(plain)])


def _boolean(reader: Reader) -> bool:
    code = reader.peek()
    if code not in (ord("t"), ord("f")):
        raise reader.unexpected("a boolean")
    value: bool = reader.value()
    return value


def _integer(shape: Integer) -> Decoder:
    def read(reader: Reader) -> int:
        code = reader.peek()
        if code == END or code not in NUMERIC:
            raise reader.unexpected(shape.name)
        value = reader.number()
        if isinstance(value, float):
            raise reader.error(f"invalid type: {described(value)}, expected {shape.name}")
        if not shape.low <= value <= shape.high:
            raise reader.error(f"invalid value: {described(value)}, expected {shape.name}")
        return value

    return read


def _text(shape: Wording) -> Decoder:
    def read(reader: Reader) -> str:
        if reader.peek() != QUOTE:
            raise reader.unexpected(shape.expected)
        return reader.string()

    return read


def _converted(shape: Converted) -> Decoder:
    plain = _text(Wording(shape.expected) if shape.expected else TEXT)

    def read(reader: Reader) -> object:
        text = plain(reader)
        try:
            return shape.convert(text)
        except ValueError as error:
            complaint = reader.error if shape.expected else Complaint
            raise complaint(str(error)) from None

    return read


def _optional(present: Decoder) -> Decoder:
    def read(reader: Reader) -> Any:
        if reader.peek() == ord("n"):
            reader.word(b"null")
            return None
        return present(reader)

    return read


def _variant(variants: Mapping[str, Decoder | None]) -> Decoder:
    def name(reader: Reader) -> str:
        if reader.peek() != QUOTE:
            raise reader.unexpected("variant identifier")
        found = reader.string()
        if found not in variants:
            raise reader.error(f"unknown variant `{found}`, expected {_one_of(tuple(variants))}")
        return found

    def read(reader: Reader) -> object:
        code = reader.peek()
        if code == OPEN_BRACE:
            return tagged(reader)
        if code != QUOTE:
            raise reader.peek_error("EOF while parsing a value" if code == END else "expected value")
        found = name(reader)
        if variants[found]:
            raise Complaint("invalid type: unit variant, expected newtype variant")
        return found

    def tagged(reader: Reader) -> object:
        """Read `{"name": value}`, or `{"name": null}`, the long way to write a variant without a value."""
        reader.open()
        found = name(reader)
        reader.colon()
        value = content(reader, variants[found])
        code = reader.peek()
        if code != CLOSE_BRACE:
            raise reader.error("EOF while parsing an object" if code == END else "expected value")
        reader.close(CLOSE_BRACE)
        return (found, value) if variants[found] else found

    def content(reader: Reader, decoder: Decoder | None) -> object:
        if decoder:
            return decoder(reader)
        if reader.peek() != ord("n"):
            raise reader.unexpected("unit")
        reader.word(b"null")
        return None

    return read


def _sequence(element: Decoder) -> Decoder:
    def read_elements(reader: Reader) -> list[Any]:
        return [element(reader) for _ in reader.elements()]

    def read(reader: Reader) -> list[Any]:
        if reader.peek() != OPEN_BRACKET:
            raise reader.unexpected("a sequence")
        return reader.inside(CLOSE_BRACKET, read_elements)

    return read


def _map(value: Decoder) -> Decoder:
    def read_members(reader: Reader) -> dict[str, Any]:
        members = {}
        for key in reader.members():
            reader.colon()
            members[key] = value(reader)
        return members

    def read(reader: Reader) -> dict[str, Any]:
        if reader.peek() != OPEN_BRACE:
            raise reader.unexpected("a map")
        return reader.inside(CLOSE_BRACE, read_members)

    return read


def _untagged(shape: Untagged, alternatives: list[Decoder]) -> Decoder:
    def read(reader: Reader) -> Any:
        start = reader.at
        reader.value()
        text = reader.text[start : reader.at]
        for alternative in alternatives:
            try:
                return alternative(Reader(text))
            except JsonError:
                pass  # maybe the next one fits
        raise Complaint(f"data did not match any variant of untagged enum {shape.name}")

    return read


class _Record:
    """The decoder of a Struct: an object, or an array of its fields in order of declaration."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        types = get_type_hints(kind, include_extras=True)
        keys, attributes = kind.__struct_encode_fields__, kind.__struct_fields__
        defaults = (msgspec.NODEFAULT,) * (len(keys) - len(kind.__struct_defaults__)) + kind.__struct_defaults__
        self._kind = kind
        self._strict = kind.__struct_config__.forbid_unknown_fields
        fields = list(zip(keys, attributes, defaults, strict=True))
        self._fields = {key: (name, decoder_for(types[name])) for key, name, _ in fields}
        self._required = {key: name for key, name, default in fields if default is msgspec.NODEFAULT}
        self._expected = f"struct {kind.__name__}"

    def read(self, reader: Reader) -> msgspec.Struct:
        """Read the record at the reader's place."""
        code = reader.peek()
        if code == OPEN_BRACE:
            return reader.inside(CLOSE_BRACE, self._from_object)
        if code == OPEN_BRACKET:
            return reader.inside(CLOSE_BRACKET, self._from_array)
        raise reader.unexpected(self._expected)

    def _from_object(self, reader: Reader) -> msgspec.Struct:
        found: dict[str, Any] = {}
        for key in reader.members():
            if key in self._fields:
                attribute, decoder = self._fields[key]
                if attribute in found:
                    raise Complaint(f"duplicate field `{key}`")
                reader.colon()
                found[attribute] = decoder(reader)
            elif self._strict:
                raise Complaint(f"unknown field `{key}`, expected {_one_of(tuple(self._fields))}")
            else:  # read as strictly as any value; the reference looks less closely at what it ignores
                reader.colon()
                reader.value()
        return self._record(found)

    def _from_array(self, reader: Reader) -> msgspec.Struct:
        found: dict[str, Any] = {}
        for (attribute, decoder), _ in zip(self._fields.values(), reader.elements(), strict=False):
            found[attribute] = decoder(reader)
        for index, (key, (attribute, _)) in enumerate(self._fields.items()):
            if key in self._required and attribute not in found:
                elements = "1 element" if len(self._fields) == 1 else f"{len(self._fields)} elements"
                raise Complaint(f"invalid length {index}, expected {self._expected} with {elements}")
        return self._record(found)

    def _record(self, found: dict[str, Any]) -> msgspec.Struct:
        for key, attribute in self._required.items():
            if attribute not in found:
                raise Complaint(f"missing field `{key}`")
        return self._kind(**found)


def _one_of(names: tuple[str, ...]) -> str:
    quoted = [f"`{name}`" for name in names]
    if len(quoted) <= 2:
        return " or ".join(quoted)
    return "one of " + ", ".join(quoted)
