"""How a failure looks: to the client, and in the log (api.md §1.3, §1.6, §1.8)."""

from typing import Final

import msgspec

from hibana.api.http import Response
from hibana.errors import EmptyId, InvalidId, InvalidPathMethod, RequestError, UnreadableBody, VmmError
from hibana.serde.rust import quoted

STATUS: Final = {
    200: "200 OK",
    204: "204 No Content",
    400: "400 Bad Request",
    413: "413 Payload too large",
}


def fault(error: VmmError) -> Response:
    """Answer with an error's sentence."""
    return Response(error.status, msgspec.json.encode({"fault_message": str(error)}))


def debug_form(error: RequestError) -> str:
    """Write a refused request as the reference's log does: the error's name and parts."""
    if isinstance(error, EmptyId):
        return "EmptyID"
    if isinstance(error, InvalidId):
        return "InvalidID"
    if isinstance(error, InvalidPathMethod):
        return f"InvalidPathMethod({quoted(error.path)}, {error.method.capitalize()})"
    if isinstance(error, UnreadableBody):
        cause = error.cause
        return f"SerdeJson(Error({quoted(cause.message)}, line: {cause.line}, column: {cause.column}))"
    return f"Generic(BadRequest, {quoted(str(error))})"
