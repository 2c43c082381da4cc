"""AML, encoded and decoded again by the rules of ACPI 6.5 §20.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.boot.acpi import aml


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("_HID", b"_HID"),
        ("\\_SB_", b"\\_SB_"),
        ("_SB_.COM1", b"\x2e_SB_COM1"),
        ("\\_SB_.VGEN", b"\\\x2e_SB_VGEN"),
        ("\\_SB_.PHPR.PCEJ", b"\\\x2f\x03_SB_PHPRPCEJ"),
    ],
)
def test_a_path_counts_its_segments(text: str, encoded: bytes) -> None:
    assert aml.path(text) == encoded


def test_integers_have_their_declared_width() -> None:
    assert aml.byte(0) + aml.word(1) + aml.dword(2) == bytes.fromhex("0a00 0b0100 0c02000000")


@pytest.mark.parametrize(
    ("text", "encoded"), [("PNP0501", "0c41d00501"), ("PNP0303", "0c41d00303"), ("PNP0A08", "0c41d00a08")]
)
def test_an_eisa_id_is_compressed_to_four_bytes(text: str, encoded: str) -> None:
    assert aml.eisa_id(text).hex() == encoded


def package_length(encoded: bytes) -> tuple[int, int]:
    """Decode a PkgLength: its value, and how many bytes it takes."""
    extra = encoded[0] >> 6
    if extra == 0:
        return encoded[0] & 0x3F, 1
    return encoded[0] & 0xF | int.from_bytes(encoded[1 : 1 + extra], "little") << 4, 1 + extra


@pytest.mark.parametrize(
    ("size", "prefix"),
    [
        (0, "01"),
        (62, "3f"),
        (63, "4104"),
        (4093, "4fff"),
        (4094, "810001"),
        ((1 << 20) - 4, "8fffff"),
        ((1 << 20) - 3, "c1000001"),
    ],
)
def test_the_package_length_grows_at_the_last_moment(size: int, prefix: str) -> None:
    condition = bytes(size)
    assert aml.if_(condition)[: 1 + len(prefix) // 2].hex() == "a0" + prefix
    assert package_length(aml.if_(condition)[1:])[0] == len(aml.if_(condition)) - 1


@given(content=st.binary(max_size=70_000).map(lambda some: some * 3))
def test_a_buffer_says_how_long_it_is(content: bytes) -> None:
    encoded = aml.buffer(content)
    length, size = package_length(encoded[1:])
    assert length == len(encoded) - 1
    number = encoded[1 + size : len(encoded) - len(content)]
    if len(number) == 1:
        assert number[0] == len(content) < 2
    else:
        assert {0x0A: 1, 0x0B: 2, 0x0C: 4}[number[0]] == len(number) - 1
        assert int.from_bytes(number[1:], "little") == len(content)


def test_a_package_counts_its_elements() -> None:
    assert aml.package(aml.ZERO, aml.ONE) == bytes.fromhex("12 04 02 00 01")


def test_a_method_packs_its_arguments_and_whether_it_is_serialized() -> None:
    assert aml.method("_STA", 0, aml.return_(aml.byte(0x0F))) == bytes.fromhex("14 09 5f535441 00 a4 0a0f")
    assert aml.method("_EVT", 1, serialized=True) == bytes.fromhex("14 06 5f455654 09")


def test_resources_end_with_an_end_tag_without_checksum() -> None:
    assert aml.resources() == bytes.fromhex("11 05 0a02 7900")
    assert aml.io_ports(0x3F8, 8) == bytes.fromhex("4701f803f8030108")
    assert aml.interrupt(4) == bytes.fromhex("890600030104000000")
    assert aml.fixed_memory(0xC0001000, 0x1000) == bytes.fromhex("86090001001000c000100000")
