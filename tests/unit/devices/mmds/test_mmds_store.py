"""The metadata store: put, merge, limit, show."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.devices.mmds.store import Store, merge
from hibana.errors import MmdsDoesNotFit, MmdsNotInitialized

values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


def test_an_empty_store_shows_an_empty_object() -> None:
    store = Store(100)
    assert store.render() == b"{}"
    store.put(None)
    assert store.render() == b"{}"


def test_keys_are_shown_in_order_at_every_level() -> None:
    store = Store(100)
    store.put({"b": {"z": 1, "é": 2, "a": [{"y": 1, "x": 2}]}, "a": 1.5, "B": None})
    assert store.render() == '{"B":null,"a":1.5,"b":{"a":[{"x":2,"y":1}],"z":1,"é":2}}'.encode()


def test_the_limit_is_for_the_text_that_is_shown() -> None:
    store = Store(len("[1e+16]"))
    store.put([1e16])
    assert store.render() == b"[1e+16]"
    with pytest.raises(MmdsDoesNotFit):
        Store(len("[1e16]")).put([1e16])


def test_a_patch_needs_something_to_patch() -> None:
    with pytest.raises(MmdsNotInitialized):
        Store(100).patch({})


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merging_follows_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merge(target, patch) == result


@given(values, values)
def test_merging_changes_neither_side_and_happens_once(target: Any, patch: Any) -> None:
    before = json.dumps([target, patch])
    merged = merge(target, patch)
    assert json.dumps([target, patch]) == before
    assert merge(merged, patch) == merged


def test_the_limit_is_on_the_compact_text_in_bytes() -> None:
    store = Store(len('{"a":"éé"}'.encode()))
    store.put({"a": "éé"})
    with pytest.raises(MmdsDoesNotFit):
        store.put({"a": "ééé"})
    assert store.get() == {"a": "éé"}


def test_a_patch_that_makes_it_too_large_changes_nothing() -> None:
    store = Store(12)
    store.put({"a": 1})
    with pytest.raises(MmdsDoesNotFit):
        store.patch({"b": 123456})
    assert store.get() == {"a": 1}
    store.patch({"a": None, "b": 123})
    assert store.get() == {"b": 123}
