"""Where a snapshot's memory comes from."""

import pytest

from hibana.config.snapshot import LoadSnapshotConfig, MemBackendConfig
from hibana.errors import (
    JsonError,
)


def test_memory_comes_from_one_of_two_fields() -> None:
    backend = MemBackendConfig("/m", "File")
    assert LoadSnapshotConfig("/s", mem_file_path="/m").memory() == backend
    assert LoadSnapshotConfig("/s", mem_backend=backend).memory() == backend
    with pytest.raises(JsonError) as both:
        LoadSnapshotConfig("/s", mem_file_path="/m", mem_backend=backend).memory()
    assert str(both.value) == "too many fields: either `mem_backend` or `mem_file_path` exclusively is required"
    with pytest.raises(JsonError) as neither:
        LoadSnapshotConfig("/s").memory()
    assert str(neither.value) == "missing field: either `mem_backend` or `mem_file_path` is required"
