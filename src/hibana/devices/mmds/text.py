"""Metadata as text: compact JSON with the digits of the reference's serde_json (api.md §3.15).

msgspec writes the same but for one thing. A float of 10^16 and more gets an exponent from both, and serde_json 1.0.151,
which finds its digits with Żmij where older ones had Ryū, puts a sign before it: `1e+16`.
"""

import re
from typing import Any, Final

import msgspec

_UNSIGNED: Final = re.compile(rb"\de\d").search
# Possessive, because a match that could be taken back costs 150 bytes of memory for each byte of a string.
_STRING_OR_UNSIGNED: Final = re.compile(rb'("(?:[^"\\]++|\\.)*+"|\de(?=\d))').sub


def compact(value: Any) -> bytes:
    """Write a value without blanks, keys sorted."""
    text = msgspec.json.encode(value, order="deterministic")
    if _UNSIGNED(text):  # perhaps only in a string
        return _STRING_OR_UNSIGNED(_signed, text)
    return text


def _signed(found: re.Match[bytes]) -> bytes:
    return found[1] if found[1].endswith(b'"') else found[1] + b"+"
