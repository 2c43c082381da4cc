"""A request from its words to its answer: find the row, read the body, have it carried out, log all of it.

The checks come in the reference's order (api.md §1.5, §1.6): is there a body where none may be, or none where one
must be; is there such a path; is the id an id; is the body what it should be; does it repeat the id. Only then is
anyone asked to act.
"""

import time
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from hibana.api.endpoints import ENDPOINTS, Endpoint, Fork
from hibana.api.faults import STATUS, debug_form, fault
from hibana.api.http import Request, Response
from hibana.config.snapshot import CreateSnapshotParams
from hibana.errors import (
    DeleteWithBody,
    EmptyId,
    EmptyPatch,
    EmptyPut,
    Fatal,
    GetWithBody,
    InvalidId,
    InvalidPathMethod,
    JsonError,
    RequestError,
    UnreadableBody,
    VmmError,
)
from hibana.observe import log
from hibana.observe.metrics_groups import METRICS
from hibana.serde.records import decode, decode_any
from hibana.serde.rust import quoted
from hibana.vmm.verbs import Call

_COUNTERS: Final = {
    "GET": METRICS.get_api_requests,
    "PUT": METRICS.put_api_requests,
    "PATCH": METRICS.patch_api_requests,
}

# Verbs whose duration is logged and kept in `latencies_us`.
_TIMED: Final = {
    "pause_vm": ("pause vm", "pause_vm"),
    "resume_vm": ("resume vm", "resume_vm"),
    "load_snapshot": ("load snapshot", "load_snapshot"),
}
_TIMED_SNAPSHOTS: Final = {
    "Full": ("create full snapshot", "full_create_snapshot"),
    "Diff": ("create diff snapshot", "diff_create_snapshot"),
}


class Controller(Protocol):
    """Who carries out calls."""

    def perform(self, call: Call, /) -> object:
        """Carry out a call and give its answer, None if it has none. Raises ActionError."""


class Understood(NamedTuple):
    """What a request asks for, and what is to be said about how it asks."""

    call: Call
    notice: str = ""


class Dispatcher:
    """Answers requests."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        start_ns = time.monotonic_ns()
        response = self._answer(request, start_ns)
        log.debug(f"Total previous API call duration: {_microseconds_since(start_ns)} us.")
        return response

    def _answer(self, request: Request, start_ns: int) -> Response:
        if log.enabled(log.INFO):
            log.info(f"The API server received a {_described(request)}.")
        try:
            call, notice = understand(request)
        except RequestError as error:
            log.error(debug_form(error))
            return fault(error)
        response = self._carry_out(call, start_ns)
        if notice:
            log.warn(notice)
            response = response._replace(deprecation=True)
        return response

    def _carry_out(self, call: Call, start_ns: int) -> Response:
        try:
            answer = self._controller.perform(call)
        except Fatal:
            raise
        except VmmError as error:
            log.error(f"Received Error. Status code: {STATUS[error.status]}. Message: {error}")
            return fault(error)
        response = Response(204) if answer is None else Response(200, msgspec.json.encode(answer))
        log.info(f"The request was executed successfully. Status code: {STATUS[response.status]}.")
        _note_duration(call, start_ns)
        return response


def understand(request: Request) -> Understood:
    """Find out what a request asks for. Raises RequestError."""
    method, path, body = request
    words = path.lstrip("/").split("/")
    if words[-1] == "":
        words.pop()
    _check_presence_of_body(method, words, body)
    endpoint = _find(method, words)
    _count(method, endpoint.counter, "count")
    arguments: tuple[Any, ...] = ()
    if endpoint.id:
        arguments = (_id(words, method, endpoint),)
    if endpoint.body is None:
        return Understood(Call(endpoint.verb, arguments))
    try:
        record = _read(body, endpoint.body)
        if endpoint.id:
            _check_id(arguments[0], record, method, endpoint)
        call = endpoint.interpret(record) if endpoint.interpret else Call(endpoint.verb, (record,))
    except JsonError as error:
        _count(method, endpoint.counter, "fails")
        raise UnreadableBody(error) from error
    if endpoint.deprecation and endpoint.deprecation.applies(record):
        METRICS.deprecated_api.deprecated_http_api_calls += 1
        return Understood(call, endpoint.deprecation.notice)
    return Understood(call)


def _check_presence_of_body(method: str, words: list[str], body: bytes | None) -> None:
    """Refuse a body, or its absence, before even looking for the path."""
    if body is not None:
        if method == "GET":
            raise GetWithBody
        if method == "DELETE":
            raise DeleteWithBody
    elif method == "PUT":
        raise EmptyPut
    elif method == "PATCH" and words[:2] != ["balloon", "hinting"]:
        raise EmptyPatch


def _find(method: str, words: list[str]) -> Endpoint:
    """Walk the table along the path."""
    first = words[0] if words else ""
    place = ENDPOINTS[method].get(first)
    if place is None:
        raise InvalidPathMethod(method, first)
    depth = 1
    while isinstance(place, Fork):
        word = words[depth] if depth < len(words) else None
        depth += 1
        if word in place.ways:
            place = place.ways[word]
        elif isinstance(place.otherwise, Endpoint):
            place = place.otherwise
        else:
            _count(method, place.counter, "count")
            _count(method, place.counter, "fails")
            raise place.otherwise(method, word or "")
    return place


def _read(body: bytes | None, kind: Any) -> Any:
    if body is None:
        return kind()  # the one body that may be absent has a default for every field
    return decode_any(body) if kind is Any else decode(body, kind)


def _id(words: list[str], method: str, endpoint: Endpoint) -> str:
    """Take the id from the path."""
    if len(words) < 2:
        _count_id_failure(method, endpoint)
        raise EmptyId
    name = words[1]
    if not name:
        raise EmptyId  # an id like any other bad one, so not counted as a failure
    if not all(char == "_" or char.isalnum() for char in name):
        raise InvalidId
    return name


def _check_id(name: str, record: Any, method: str, endpoint: Endpoint) -> None:
    assert endpoint.id is not None
    repeated = getattr(record, endpoint.id.field)
    if repeated != name:
        _count_id_failure(method, endpoint)
        raise endpoint.id.mismatch(path_id=name, body_id=repeated)


def _count_id_failure(method: str, endpoint: Endpoint) -> None:
    # The reference counts a refused id of PATCH /network-interfaces as one more request.
    is_quirk = endpoint.verb == "patch_network_interface"
    _count(method, endpoint.counter, "count" if is_quirk else "fails")


def _count(method: str, counter: str, what: str) -> None:
    if counter and not (method == "GET" and what == "fails"):
        name = f"{counter}_{what}"
        group = _COUNTERS[method]
        setattr(group, name, getattr(group, name) + 1)


def _described(request: Request) -> str:
    """Write a request as the log shows it; metadata is nobody's business, and CPU templates are long."""
    method, path, body = request
    text = f"{method.capitalize()} request on {quoted(path)}"
    if body is None or path == "/mmds":
        return text
    if path == "/cpu-config" and not log.enabled(log.DEBUG):
        return text + ". To view the CPU template received by the API, configure log-level to DEBUG"
    try:
        return f"{text} with body {quoted(body.decode())}"
    except UnicodeDecodeError:
        return text + ' with body "inconvertible to UTF-8"'


def _note_duration(call: Call, start_ns: int) -> None:
    """Log and keep how long a call took that stops or starts the guest."""
    timed = _TIMED.get(call.verb)
    if call.verb == "create_snapshot":
        (params,) = call.arguments
        assert isinstance(params, CreateSnapshotParams)
        timed = _TIMED_SNAPSHOTS[params.snapshot_type]
    if timed:
        action, metric = timed
        duration_us = _microseconds_since(start_ns)
        setattr(METRICS.latencies_us, metric, duration_us)
        log.info(f"'{action}' API request took {duration_us} us.")


def _microseconds_since(start_ns: int) -> int:
    return (time.monotonic_ns() - start_ns) // 1000
