"""Files of compiled filters: what was written is read, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.errors import FilterFileBroken, FilterFileTooLong
from hibana.seccomp.container import MAGIC, SIZE_LIMIT, Program, read, write

programs = st.dictionaries(
    st.text(max_size=20),
    st.builds(Program, st.binary(max_size=20).map(lambda code: code * 8), st.integers(0, (1 << 32) - 1)),
    max_size=5,
)


@given(programs)
def test_what_was_written_is_read(wanted: dict[str, Program]) -> None:
    assert read(write(wanted)) == wanted


@given(programs, st.data())
def test_a_file_that_was_cut_is_damaged_unless_it_was_cut_between_programs(
    wanted: dict[str, Program], data: st.DataObject
) -> None:
    content = write(wanted)
    cut = content[: data.draw(st.integers(0, len(content)))]
    try:
        assert read(cut).items() <= wanted.items()
    except FilterFileBroken:
        assert len(cut) < len(content)


@given(st.binary(max_size=200))
def test_no_file_does_more_than_complain(content: bytes) -> None:
    for start in (b"", MAGIC):
        try:
            read(start + content)
        except FilterFileBroken:
            pass


def test_a_file_never_grows_beyond_what_is_read() -> None:
    head = len(write({"a": Program(b"", 0)}))
    most = (SIZE_LIMIT - head) // 8 * 8
    assert len(write({"a": Program(bytes(most), 0)})) <= SIZE_LIMIT
    for tried in ({"a": Program(bytes(most + 8), 0)}, {"a" * 256: Program(b"", 0)}):
        with pytest.raises(FilterFileTooLong):
            write(tried)
