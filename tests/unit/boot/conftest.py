"""What every boot test leaves behind: nothing."""

from collections.abc import Iterator

import pytest

from tests.unit.boot.images import close_files


@pytest.fixture(autouse=True)
def _no_file_stays_open() -> Iterator[None]:
    yield
    close_files()
