"""How failures look, and that every one of them has the reference's words."""

import pytest

from hibana.api.faults import debug_form, fault
from hibana.api.http import Response
from hibana.errors import (
    EmptyId,
    IdMismatch,
    InvalidId,
    InvalidPathMethod,
    JsonError,
    MmdsDoesNotFit,
    MmdsLimitError,
    NotAfterStart,
    RequestError,
    UnreadableBody,
)


def test_a_fault_is_json_whatever_the_sentence_says() -> None:
    answer = fault(UnreadableBody(JsonError('unknown field `"\n\x01é`', 1, 2)))
    assert answer == Response(
        400,
        b'{"fault_message":"An error occurred when deserializing the json body of a request: '
        b'unknown field `\\"\\n\\u0001\xc3\xa9` at line 1 column 2."}',
    )


def test_a_fault_has_the_status_of_its_error() -> None:
    assert fault(MmdsLimitError(cause=MmdsDoesNotFit())).status == 413
    assert fault(NotAfterStart()).status == 400


@pytest.mark.parametrize(
    ("error", "form"),
    [
        (EmptyId(), "EmptyID"),
        (InvalidId(), "InvalidID"),
        (InvalidPathMethod("PATCH", "foo"), 'InvalidPathMethod("foo", Patch)'),
        (
            UnreadableBody(JsonError("missing field `vcpu_count`", 1, 21)),
            'SerdeJson(Error("missing field `vcpu_count`", line: 1, column: 21))',
        ),
        (UnreadableBody(JsonError("too many fields")), 'SerdeJson(Error("too many fields", line: 0, column: 0))'),
        (IdMismatch(), 'Generic(BadRequest, "The id from the path does not match the id from the body!")'),
    ],
)
def test_the_log_shows_a_refusals_parts(error: RequestError, form: str) -> None:
    assert debug_form(error) == form
