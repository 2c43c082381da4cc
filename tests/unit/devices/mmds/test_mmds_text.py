"""Metadata as text: floats as serde_json writes them."""

import json
import re
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.devices.mmds.text import compact

finite = st.floats(allow_nan=False, allow_infinity=False)
near_the_bounds = st.builds(
    lambda digits, exponent: float(f"{digits}e{exponent}"), st.integers(-(10**17), 10**17), st.integers(-25, 25)
)
texts = st.text() | st.sampled_from(["1e5", 'a"1e5', "1e5\\", '\\"1e5', "1e+5"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | finite | near_the_bounds | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (100.0, "100.0"),
        (0.1, "0.1"),
        (1e-5, "0.00001"),
        (1.25e-5, "0.0000125"),
        (1e-6, "1e-6"),
        (1.5e-7, "1.5e-7"),
        (5e-324, "5e-324"),
        (1e15, "1000000000000000.0"),
        (1234567890123456.0, "1234567890123456.0"),
        (1e16, "1e+16"),
        (123456789012345680.0, "1.2345678901234568e+17"),
        (-1.7976931348623157e308, "-1.7976931348623157e+308"),
    ],
)
def test_floats_are_written_as_the_reference_writes_them(value: float, text: str) -> None:
    assert compact(value) == text.encode()


def test_strings_that_look_like_floats_stay_as_they_are() -> None:
    value = {"1e5": ["2e6", 'x"3e7', "4e8\\", 1e20, "\\", "5e9"]}
    assert compact(value) == rb'{"1e5":["2e6","x\"3e7","4e8\\",1e+20,"\\","5e9"]}'


@pytest.mark.parametrize("piece", ["1e5.", "\n1e5"])
def test_a_long_string_that_looks_like_floats_takes_no_more_memory_than_a_few_copies(piece: str) -> None:
    value = {"key": piece * 50_000}
    size = len(compact(value))
    tracemalloc.start()
    compact(value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * size


@given(values)
def test_what_is_written_reads_back_as_the_same(value: Any) -> None:
    assert json.dumps(json.loads(compact(value)), sort_keys=True) == json.dumps(value, sort_keys=True)


@given(finite | near_the_bounds)
def test_a_float_has_a_point_in_the_middle_of_the_scale_and_a_signed_exponent_at_its_ends(value: float) -> None:
    text = compact(value).decode()
    if value == 0 or 1e-5 <= abs(value) < 1e16:
        assert re.fullmatch(r"-?\d+\.\d+", text)
    else:
        assert re.fullmatch(r"-?\d(\.\d+)?e[-+][1-9]\d*", text)
