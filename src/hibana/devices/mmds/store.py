"""The metadata itself: one JSON value, which the API writes and the guest reads (api.md §3.15)."""

from typing import Any

from hibana.devices.mmds.text import compact
from hibana.errors import MmdsDoesNotFit, MmdsNotInitialized


class Store:
    """A JSON value of limited size."""

    def __init__(self, limit: int) -> None:
        """Start empty; `limit` is in bytes of compact JSON."""
        self._limit = limit
        self._value: Any = None
        self._initialized = False

    def put(self, value: Any) -> None:
        """Replace the value. Raises MmdsDoesNotFit."""
        self._check_size(value)
        self._value = value
        self._initialized = True

    def patch(self, patch: Any) -> None:
        """Merge into the value (RFC 7396). Raises MmdsNotInitialized, MmdsDoesNotFit; then nothing has changed."""
        if not self._initialized:
            raise MmdsNotInitialized
        merged = merge(self._value, patch)
        self._check_size(merged)
        self._value = merged

    def get(self) -> Any:
        """Give the value; an empty object while there is none."""
        return {} if self._value is None else self._value

    def render(self) -> bytes:
        """Give the value as compact JSON, keys sorted."""
        return compact(self.get())

    def _check_size(self, value: Any) -> None:
        if len(compact(value)) > self._limit:
            raise MmdsDoesNotFit


def merge(target: Any, patch: Any) -> Any:
    """Apply a merge patch (RFC 7396 §2): null removes, objects merge, anything else replaces. Changes neither."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged
