"""Machine code as tools/assemble_thunks.py writes it down: bytes, and what its labels mean."""

from typing import NamedTuple


class Assembled(NamedTuple):
    """A piece of code that is read-only and the same everywhere, and the cells behind it that are neither."""

    code: bytes
    entries: dict[str, int]
    """Thunk → offset in `code`. A thunk with the name of a library function replaces it."""
    cells: dict[str, int]
    """Cell → offset from `cells_at`; `lib_NAME`, `libc_NAME` and `plain_NAME` hold the addresses of functions."""
    cells_size: int
    cells_at: int
    """From where `code` begins: the page after its last."""
