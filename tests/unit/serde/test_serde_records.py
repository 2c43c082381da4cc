"""Decoding: what the reference refuses is refused, what it accepts keeps its value, nothing breaks the reader."""

import base64
import string
from collections.abc import Callable
from typing import Annotated, Any, get_args

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hibana.api.endpoints import ENDPOINTS, Endpoint, Fork
from hibana.config.action import ActionBody
from hibana.config.balloon import BalloonDeviceConfig
from hibana.config.drive import BlockDeviceConfig
from hibana.config.machine import MachineConfig
from hibana.config.metrics import MetricsConfig
from hibana.config.mmds import MmdsConfig
from hibana.config.snapshot import LoadSnapshotConfig
from hibana.config.vm_config import VmmConfig
from hibana.config.vm_state import Vm
from hibana.errors import JsonError
from hibana.serde.reader import Reader
from hibana.serde.records import decode, decode_any
from hibana.serde.shapes import U8, Tagged


def _records(place: Endpoint | Fork) -> list[Any]:
    if isinstance(place, Endpoint):
        return [place.body]
    inner = [record for way in place.ways.values() for record in _records(way)]
    return inner + (_records(place.otherwise) if isinstance(place.otherwise, Endpoint) else [])


RECORDS: list[type[msgspec.Struct]] = [
    record
    for table in ENDPOINTS.values()
    for place in table.values()
    for record in _records(place)
    if isinstance(record, type) and issubclass(record, msgspec.Struct)
] + [VmmConfig]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([1 << 16, 1 << 32, (1 << 64) - 1, 1 << 64, -(1 << 63), -(1 << 63) - 1, 1.0, 1.5, -0.0, 1e300]),
    st.text(string.printable, max_size=6),
    st.sampled_from(["V1", "V2", "None", "2M", "Paused", "Full", "Sync", "06:00:00:00:00:01", "169.254.1.1", "0x1"]),
)
KEYS = sorted({key for record in RECORDS for key in record.__struct_encode_fields__} | {"size", "refill_time"})
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=12,
)


def accepts(body: bytes, kind: type[msgspec.Struct]) -> bool:
    try:
        decode(body, kind)
    except JsonError as error:
        assert str(error)
        return False
    return True


@given(st.sampled_from(RECORDS), documents)
@settings(max_examples=150, deadline=None)
def test_any_document_is_a_record_or_gets_a_sentence(kind: type[msgspec.Struct], document: Any) -> None:
    accepts(msgspec.json.encode(document), kind)


@given(st.sampled_from(RECORDS), documents, st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_document_never_breaks_the_reader(
    kind: type[msgspec.Struct], document: Any, data: st.DataObject
) -> None:
    body = msgspec.json.encode(document)
    at = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(at, len(body)))
    damage = data.draw(st.binary(max_size=3) | st.sampled_from([b'"', b"\\", b"{", b"]", b"\\u", b"-", b"\xff", b"e"]))
    accepts(body[:at] + damage + body[end:], kind)


@given(st.sampled_from(RECORDS), documents)
@settings(max_examples=150, deadline=None)
def test_what_msgspec_refuses_for_its_syntax_is_refused(kind: type[msgspec.Struct], document: Any) -> None:
    text = msgspec.json.encode(document)
    for body in (text[:-1], text + b"]", b"[" + text, text.replace(b":", b"", 1), text.replace(b'"', b"", 1)):
        try:
            msgspec.json.decode(body)
        except msgspec.DecodeError:
            assert not accepts(body, kind)


FILLED: list[msgspec.Struct] = [
    MachineConfig(vcpu_count=2, mem_size_mib=256, smt=True, cpu_template="T2", huge_pages="2M"),
    BalloonDeviceConfig(16, True, 5, True, False),
    MetricsConfig("/m", True, {"a": "b"}),
    MmdsConfig(version="V2", network_interfaces=["eth0"], ipv4_address="169.254.1.1", imds_compat=True),
    BlockDeviceConfig(drive_id="a", is_root_device=True, path_on_host="/x", io_engine="Async"),
    LoadSnapshotConfig("/s", mem_file_path="/m", resume_vm=True),
    Vm("Resumed"),
    ActionBody("InstanceStart"),
]


@pytest.mark.parametrize("record", FILLED, ids=lambda record: type(record).__name__)
def test_a_record_survives_the_way_through_text(record: msgspec.Struct) -> None:
    assert decode(msgspec.json.encode(record), type(record)) == record


@given(st.sampled_from(FILLED), st.data(), scalars)
@settings(max_examples=150, deadline=None)
def test_a_value_that_msgspec_refuses_in_a_record_is_refused(
    record: msgspec.Struct, data: st.DataObject, value: Any
) -> None:
    members = msgspec.json.decode(msgspec.json.encode(record))
    members[data.draw(st.sampled_from(sorted(members)))] = value
    body = msgspec.json.encode(members)
    try:
        msgspec.json.decode(body, type=type(record))
    except msgspec.ValidationError:
        assert not accepts(body, type(record))


@pytest.mark.parametrize("record", FILLED, ids=lambda record: type(record).__name__)
def test_an_array_of_the_fields_is_a_record_too(record: msgspec.Struct) -> None:
    fields = [getattr(record, name) for name in record.__struct_fields__]
    assert decode(msgspec.json.encode(fields), type(record)) == record


@pytest.mark.parametrize("record", FILLED, ids=lambda record: type(record).__name__)
def test_every_key_of_a_record_given_twice_is_refused(record: msgspec.Struct) -> None:
    members = msgspec.json.decode(msgspec.json.encode(record), type=dict[str, msgspec.Raw])
    for key, value in members.items():
        body = b'{"%s":%s,"%s":%s}' % (key.encode(), value, key.encode(), value)
        with pytest.raises(JsonError, match=f"duplicate field `{key}`"):
            decode(body, type(record))


class Paint(msgspec.Struct):
    tint: Annotated[str | tuple[str, int], Tagged((("plain", None), ("grey", U8)))]


@pytest.mark.parametrize(
    ("text", "tint"),
    [
        (b'{"tint":"plain"}', "plain"),
        (b'{"tint":{"plain":null}}', "plain"),
        (b'{"tint":{"grey":255}}', ("grey", 255)),
    ],
)
def test_a_variant_may_come_with_a_value(text: bytes, tint: object) -> None:
    assert decode(text, Paint).tint == tint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b'{"tint":"grey"}', "invalid type: unit variant, expected newtype variant at line 1 column 15"),
        (b'{"tint":{"grey":256}}', "invalid value: integer `256`, expected u8 at line 1 column 19"),
        (b'{"tint":{"plain":1}}', "invalid type: integer `1`, expected unit at line 1 column 18"),
        (b'{"tint":"red"}', "unknown variant `red`, expected `plain` or `grey` at line 1 column 13"),
    ],
)
def test_a_variant_without_its_value_is_refused(text: bytes, complaint: str) -> None:
    with pytest.raises(JsonError) as refused:
        decode(text, Paint)
    assert str(refused.value) == complaint


def test_a_variant_may_be_written_the_long_way() -> None:
    assert decode(b'{"state":{"Paused":null}}', Vm) == Vm("Paused")


def test_every_variant_of_every_field_is_accepted() -> None:
    for template in get_args(get_args(MachineConfig.__annotations__["cpu_template"])[0]):
        body = msgspec.json.encode({"vcpu_count": 1, "mem_size_mib": 1, "cpu_template": template})
        assert decode(body, MachineConfig).cpu_template == template


def test_escapes_become_the_characters_they_mean() -> None:
    body = rb'{"drive_id":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","is_root_device":true}'
    assert decode(body, BlockDeviceConfig).drive_id == '"\\/\b\f\n\r\té😀'


# --- documents without a schema ---------------------------------------------------------------------------------------


def outcome(read: Callable[[], Any]) -> str:
    try:
        return repr(read())
    except JsonError as error:
        return f"{type(error).__name__}: {error}"


def read_slowly(text: bytes) -> Any:
    reader = Reader(text)
    value = reader.value()
    reader.finish()
    return value


@given(documents)
@settings(max_examples=150, deadline=None)
@example({"a": [1, -1, 0.5, "é\n", None, True], "b": {}})
@example([-(1 << 63), (1 << 64) - 1])
def test_both_readers_understand_a_document_alike(document: Any) -> None:
    body = msgspec.json.encode(document)
    assert repr(decode_any(body)) == repr(read_slowly(body))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"-0", "-0.0"),
        (b"[-0]", "[-0.0]"),
        (b"18446744073709551615", "18446744073709551615"),
        (b"18446744073709551616", "1.8446744073709552e+19"),
        (b"-9223372036854775808", "-9223372036854775808"),
        (b"-9223372036854775809", "-9.223372036854776e+18"),
        (b"1e2", "100.0"),
        (b'{"a":1,"a":2}', "{'a': 2}"),
    ],
)
def test_numbers_and_repeated_keys_become_what_the_reference_makes_of_them(text: bytes, value: str) -> None:
    assert repr(decode_any(text)) == value


@pytest.mark.parametrize("document", [b"[" * 127 + b"]" * 127, b'{"a":' * 127 + b"1" + b"}" * 127])
def test_127_levels_are_not_too_deep(document: bytes) -> None:
    decode_any(document)


@pytest.mark.parametrize(
    "document",
    [
        b"[" * 128 + b"]" * 128,
        b'{"a":' * 128 + b"1" + b"}" * 128,
        b"[" * 400 + b"]" * 400,
        b"[" * 100_000,
        b'[{"a":' * 50_000,
    ],
)
@pytest.mark.parametrize("kind", [None, MetricsConfig, VmmConfig])
def test_deep_nesting_is_refused_and_breaks_nothing(document: bytes, kind: type[msgspec.Struct] | None) -> None:
    with pytest.raises(JsonError):
        if kind is None:
            decode_any(document)
        else:
            decode(b'{"ignored":' + document + b"}", kind)


def test_the_level_that_is_too_deep_has_a_place() -> None:
    with pytest.raises(JsonError, match=r"^recursion limit exceeded at line 1 column 128$"):
        decode_any(b"[" * 128 + b"]" * 128)


@given(documents.map(msgspec.json.encode), st.data())
@settings(max_examples=150, deadline=None)
def test_both_readers_agree_about_damaged_documents(document: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(document)))
    end = data.draw(st.integers(at, len(document)))
    damage = data.draw(
        st.binary(max_size=3) | st.sampled_from([b'"', b"\\ud800", b"[", b"}", b"-0", b"1e400", b"\xff"])
    )
    damaged = document[:at] + damage + document[end:]
    assert outcome(lambda: decode_any(damaged)) == outcome(lambda: read_slowly(damaged))


@given(st.binary(max_size=40))
@settings(max_examples=150, deadline=None)
@example(b'{"\xff":1}')
@example(b'"\xed\xa0\x80"')
def test_both_readers_agree_about_garbage(garbage: bytes) -> None:
    assert outcome(lambda: decode_any(garbage)) == outcome(lambda: read_slowly(garbage))


def test_a_long_number_costs_no_more_than_its_length() -> None:
    with pytest.raises(JsonError, match="number out of range"):
        decode_any(b"1" * 50_000)
    assert decode_any(b"0." + b"1" * 50_000) == pytest.approx(1 / 9)


def test_binary_strings_are_no_problem_when_they_are_text() -> None:
    blob = base64.b64encode(bytes(range(256))).decode()
    assert decode_any(msgspec.json.encode({"blob": blob})) == {"blob": blob}
