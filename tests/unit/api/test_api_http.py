"""The HTTP parser and writer against the reference's bytes (api.md §1.1-§1.4)."""

from itertools import pairwise
from typing import NamedTuple

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.api.http import (
    TOO_MANY_CONNECTIONS,
    BadRequest,
    Continue,
    Event,
    Parser,
    Request,
    Response,
    render,
    render_bad_request,
    render_continue,
)

LIMIT = 50
INVALID = BadRequest("Invalid request.")


def whole(stream: bytes) -> list[Event]:
    return Parser(LIMIT).feed(stream)


def in_pieces(stream: bytes, cuts: list[int]) -> list[Event]:
    parser = Parser(LIMIT)
    bounds = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [event for start, end in pairwise(bounds) for event in parser.feed(stream[start:end])]


def byte_by_byte(stream: bytes) -> list[Event]:
    return in_pieces(stream, list(range(len(stream))))


class Case(NamedTuple):
    story: str
    stream: bytes
    events: list[Event]


def header(line: bytes) -> bytes:
    """A GET of / with one header."""
    return b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n"


def refused(reason: str) -> list[Event]:
    return [BadRequest(f"Invalid header. Reason: {reason}")]


GET = Request("GET", "/")

CASES = [
    Case("a request without any header", b"GET / HTTP/1.1\r\n\r\n", [GET]),
    Case("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", [GET]),
    Case(
        "every method",
        b"".join(b"%s /x HTTP/1.1\r\n\r\n" % m for m in (b"GET", b"PUT", b"PATCH", b"DELETE")),
        [
            Request("GET", "/x"),
            Request("PUT", "/x"),
            Request("PATCH", "/x"),
            Request("DELETE", "/x"),
        ],
    ),
    Case("a body", b"PUT /actions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", [Request("PUT", "/actions", b"{}")]),
    Case(
        "a body of the greatest size",
        b"PUT / HTTP/1.1\r\nContent-Length: 50\r\n\r\n" + b"x" * 50,
        [
            Request("PUT", "/", b"x" * 50),
        ],
    ),
    Case("a body of size zero is no body", b"PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", [Request("PUT", "/")]),
    Case("a GET may have a body here", header(b"Content-Length: 1") + b"x", [Request("GET", "/", b"x")]),
    Case(
        "the last content length counts",
        header(b"Content-Length: 9\r\nContent-Length: 1") + b"x",
        [
            Request("GET", "/", b"x"),
        ],
    ),
    Case("a plus sign is a digit to the reference", header(b"Content-Length: +1") + b"x", [Request("GET", "/", b"x")]),
    Case("names in any case, with blanks around", header(b" CONTENT-length :1") + b"x", [Request("GET", "/", b"x")]),
    Case(
        "a chunked body is not decoded",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n",
        [
            Request("PUT", "/"),
            INVALID,
        ],
    ),
    Case(
        "requests one after the other",
        b"GET / HTTP/1.1\r\n\r\nPUT /a HTTP/1.1\r\nContent-Length:1\r\n\r\n1" * 2,
        [
            GET,
            Request("PUT", "/a", b"1"),
            GET,
            Request("PUT", "/a", b"1"),
        ],
    ),
    # URIs
    Case("an absolute URI", b"GET http://localhost:80/home/sub HTTP/1.1\r\n\r\n", [Request("GET", "/home/sub")]),
    Case("an absolute URI without a path", b"GET http://localhost HTTP/1.1\r\n\r\n", [Request("GET", "")]),
    Case("an absolute URI without anything", b"GET http:// HTTP/1.1\r\n\r\n", [Request("GET", "")]),
    Case("a relative URI is no path", b"GET home HTTP/1.1\r\n\r\n", [Request("GET", "")]),
    Case("nothing is decoded", b"GET /a%20b?q=1#f HTTP/1.1\r\n\r\n", [Request("GET", "/a%20b?q=1#f")]),
    Case("UTF-8", "GET /é HTTP/1.1\r\n\r\n".encode(), [Request("GET", "/é")]),
    # Expect
    Case(
        "permission to send a body",
        b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
        [
            Continue("HTTP/1.1"),
            Request("PUT", "/", b"x"),
        ],
    ),
    Case(
        "permission in the client's version",
        b"PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        [
            Continue("HTTP/1.0"),
        ],
    ),
    Case("no permission needed for no body", header(b"Expect: 100-continue"), [GET]),
    Case(
        "other expectations are ignored",
        header(b"Expect: 103-checkpoint\r\nContent-Length: 1") + b"x",
        [
            Request("GET", "/", b"x"),
        ],
    ),
    # headers that do not matter
    Case("unknown media types", header(b"Accept: image/png\r\nContent-Type: application/x-www-form-urlencoded"), [GET]),
    Case("unknown headers", header(b"Cookie: a=b\r\nHost:\r\nHost: twice\r\nConnection: close"), [GET]),
    Case("encodings", header(b"Accept-Encoding: gzip, deflate, br\r\nAccept-Encoding: *;q=0, identity"), [GET]),
    # T01
    Case("one word", b"GET\r\n", [INVALID]),
    Case("two words", b"GET /\r\n", [INVALID]),
    Case("an empty line", b"\r\n", [INVALID]),
    Case("LF alone ends no line", b"GET / HTTP/1.1\n\n" + b"x" * 1008, [INVALID]),
    Case("an empty list of encodings", header(b"Accept-Encoding: "), [INVALID]),
    # T02-T05
    Case(
        "a method of HTTP, but not of this server",
        b"POST / HTTP/1.1\r\n\r\n",
        [
            BadRequest("Invalid HTTP Method: Unsupported HTTP method."),
        ],
    ),
    Case(
        "a method in lower case",
        b"get / HTTP/1.1\r\n\r\n",
        [
            BadRequest("Invalid HTTP Method: Unsupported HTTP method."),
        ],
    ),
    Case(
        "the method is looked at first",
        b"get \xff HTTP/3\r\n\r\n",
        [
            BadRequest("Invalid HTTP Method: Unsupported HTTP method."),
        ],
    ),
    Case(
        "an unknown version",
        b"GET / HTTP/2\r\n\r\n",
        [
            BadRequest("Invalid HTTP Version: Unsupported HTTP version."),
        ],
    ),
    Case(
        "a fourth word belongs to the version",
        b"GET / HTTP/1.1 \r\n\r\n",
        [
            BadRequest("Invalid HTTP Version: Unsupported HTTP version."),
        ],
    ),
    Case("an empty URI", b"GET  HTTP/1.1\r\n\r\n", [BadRequest("Invalid URI: Empty URI not allowed.")]),
    Case(
        "a URI that is no text",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        [
            BadRequest("Invalid URI: Cannot parse URI as UTF-8."),
        ],
    ),
    # T06-T09
    Case(
        "a content length that is no number",
        header(b"content-Length: alpha"),
        refused("Invalid value. Key:content-Length; Value: alpha"),
    ),
    Case("an empty content length", header(b"Content-Length:"), refused("Invalid value. Key:Content-Length; Value:")),
    Case(
        "a negative content length",
        header(b"Content-Length: -1"),
        refused("Invalid value. Key:Content-Length; Value: -1"),
    ),
    Case(
        "foreign digits", header("Content-Length: ٣".encode()), refused("Invalid value. Key:Content-Length; Value: ٣")
    ),
    Case("an underscore", header(b"Content-Length: 1_0"), refused("Invalid value. Key:Content-Length; Value: 1_0")),
    Case(
        "33 bits",
        header(b"Content-Length: 4294967296"),
        refused("Invalid value. Key:Content-Length; Value: 4294967296"),
    ),
    Case(
        "only encodings we do not speak",
        header(b"Accept-Encoding: gzip, identity;q=0"),
        refused("Invalid value. Key:Accept-Encoding; Value: identity;q=0"),
    ),
    Case(
        "no encodings at all",
        header(b"Accept-Encoding: *;q=0"),
        refused("Invalid value. Key:Accept-Encoding; Value:*;q=0"),
    ),
    Case(
        "a header without a colon",
        header(b"Content-Length 5"),
        refused("Header is incorrectly formatted. Key: Content-Length 5"),
    ),
    Case(
        "a header that is no text",
        header(b"X: ab\xffcd"),
        refused("Header contains invalid characters. Key: invalid utf-8 sequence of 1 bytes from index 5"),
    ),
    Case(
        "a header with a broken character",
        header(b"X: \xe2\x82x"),
        refused("Header contains invalid characters. Key: invalid utf-8 sequence of 2 bytes from index 3"),
    ),
    Case(
        "a header that ends within a character",
        header(b"X: \xe2\x82"),
        refused("Header contains invalid characters. Key: incomplete utf-8 byte sequence from index 3"),
    ),
    Case(
        "a header line of 1024 bytes and no end",
        b"GET / HTTP/1.1\r\nX:" + b"y" * 1022,
        refused("Invalid content length. Header: X:" + "y" * 1022),
    ),
    # T10
    Case(
        "a body too large by one",
        b"PUT / HTTP/1.1\r\nContent-Length: 51\r\n\r\n",
        [
            BadRequest("Request payload with size 51 is larger than the limit of 50 allowed by server."),
        ],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.story.replace(" ", "-"))
def test_what_the_reference_makes_of(case: Case) -> None:
    assert whole(case.stream) == case.events
    assert byte_by_byte(case.stream) == case.events


def test_a_line_with_its_end_may_take_1024_bytes_and_not_one_more() -> None:
    fits = b"GET /" + b"p" * 1008 + b" HTTP/1.1\r\n"
    assert len(fits) == 1024
    assert whole(fits + b"\r\n") == byte_by_byte(fits + b"\r\n") == [Request("GET", "/" + "p" * 1008)]
    assert whole(b"GET /p" + fits[5:]) == [INVALID]
    assert whole(header(b"X: " + b"v" * 1019)) == byte_by_byte(header(b"X: " + b"v" * 1019)) == [GET]
    too_long = refused("Invalid content length. Header: X: " + "v" * 1020 + "\r")
    assert whole(header(b"X: " + b"v" * 1020)) == byte_by_byte(header(b"X: " + b"v" * 1020)) == too_long


REFUSED = {
    "method": b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody",
    "version": b"PUT / HTTP/3\r\ncontent-length: 4\r\n\r\nbody",
    "uri": b"PUT  HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody",
    "header": b"PUT / HTTP/1.1\r\nhuh\r\nContent-Length: 4\r\n\r\nbody",
    "two bad headers": b"PUT / HTTP/1.1\r\nhuh\r\nhuh\r\n\r\n",
    "encoding": b"PUT / HTTP/1.1\r\nContent-Length: 4\r\nAccept-Encoding: identity;q=0\r\n\r\nbody",
    "long header": b"PUT / HTTP/1.1\r\nContent-Length: 4\r\nCookie: " + b"a" * 5000 + b"\r\n\r\nbody",
    "long header ending in CR": b"PUT / HTTP/1.1\r\nContent-Length: 4\r\nCookie: " + b"a" * 5000 + b"\r\r\n\r\nbody",
    "two long headers": b"PUT / HTTP/1.1\r\nC: " + b"a" * 5000 + b"\r\nD: " + b"b" * 1023 + b"\r\n\r\n",
    "body": b"PUT / HTTP/1.1\r\nContent-Length: 51\r\n\r\n" + b"GET / HTTP/1.1\r\n\r\n" * 2 + b"x" * 15,
    "body after asking": b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 51\r\n\r\n",
}


@pytest.mark.parametrize("stream", REFUSED.values(), ids=REFUSED.keys())
def test_after_a_refused_request_the_next_one_is_found(stream: bytes) -> None:
    for events in (whole(stream + header(b"A: b")), byte_by_byte(stream + header(b"A: b"))):
        error, following = events
        assert isinstance(error, BadRequest)
        assert following == GET


def test_what_came_together_with_something_that_is_no_request_is_forgotten() -> None:
    parser = Parser()
    assert parser.feed(b"GET /\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\n\r\n") == [INVALID]
    assert parser.feed(b"GET / HTTP/1.1\r\n\r\n") == [GET]


def test_a_long_body_that_is_too_large_is_not_kept() -> None:
    parser = Parser(LIMIT)
    parser.feed(b"PUT / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
    for _ in range(100):
        assert parser.feed(b"x" * 10000) == []
    assert len(parser._held) == 0
    assert parser.feed(b"GET / HTTP/1.1\r\n\r\n") == [GET]


MESSAGES = st.sampled_from([case.stream for case in CASES] + list(REFUSED.values()))
SCRAPS = st.sampled_from([b"GET ", b"/", b" HTTP/1.1", b"\r\n", b"\r", b"\n", b"Content-Length: ", b"7"])
CUTS = st.lists(st.integers(min_value=0), max_size=8)


def until_forgotten(events: list[Event]) -> list[Event]:
    """Stop at the error that forgets what came with it: from there on it matters what that was."""
    return events[: events.index(INVALID) + 1] if INVALID in events else events


@given(st.lists(MESSAGES, max_size=4).map(b"".join), CUTS)
def test_where_the_stream_is_cut_makes_no_difference(stream: bytes, cuts: list[int]) -> None:
    assert until_forgotten(in_pieces(stream, cuts)) == until_forgotten(whole(stream))


@given(st.lists(SCRAPS | st.binary(max_size=20)).map(b"".join), CUTS)
def test_any_bytes_give_events_and_never_an_exception(stream: bytes, cuts: list[int]) -> None:
    assert until_forgotten(in_pieces(stream, cuts)) == until_forgotten(whole(stream))


TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", min_size=1, max_size=12)
VALUE = st.text("abcXYZ012 -_/;=,:", max_size=20).map(str.strip)
HEADERS = st.lists(st.tuples(TOKEN.map("X-".__add__), VALUE), max_size=4)


@given(
    st.sampled_from(["GET", "PUT", "PATCH", "DELETE"]),
    st.lists(TOKEN, max_size=3).map(lambda tokens: "/" + "/".join(tokens)),
    HEADERS,
    st.none() | st.binary(min_size=1, max_size=LIMIT),
)
def test_h11_and_the_parser_agree_on_ordinary_requests(
    method: str, path: str, headers: list[tuple[str, str]], body: bytes | None
) -> None:
    client = h11.Connection(h11.CLIENT)
    framing = [("Content-Length", str(len(body)))] if body else []
    stream = client.send(h11.Request(method=method, target=path, headers=[("Host", "localhost"), *headers, *framing]))
    assert stream is not None
    stream += (client.send(h11.Data(data=body)) or b"") if body else b""
    stream += client.send(h11.EndOfMessage()) or b""

    server = h11.Connection(h11.SERVER)
    server.receive_data(stream)
    seen = server.next_event()
    assert isinstance(seen, h11.Request)
    received = b""
    while isinstance(event := server.next_event(), h11.Data):
        received += event.data

    assert whole(stream) == [Request(seen.method.decode(), seen.target.decode(), received or None)]


@given(st.sampled_from([200, 204, 400, 413, 500]), st.binary(max_size=100), st.booleans())
def test_h11_understands_the_responses(status: int, body: bytes, deprecation: bool) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "localhost")]))
    client.send(h11.EndOfMessage())
    client.receive_data(render(Response(status, None if status == 204 else body, deprecation)))
    head = client.next_event()
    assert isinstance(head, h11.Response)
    assert head.status_code == status
    assert ((b"deprecation", b"true") in head.headers) == deprecation
    received = b""
    while isinstance(event := client.next_event(), h11.Data):
        received += event.data
    assert received == (b"" if status == 204 else body)
    assert isinstance(event, h11.EndOfMessage)


def test_a_response_with_a_body() -> None:
    assert render(Response(200, b'{"state":"Running"}')) == (
        b"HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
        b'Content-Type: application/json\r\nContent-Length: 19\r\n\r\n{"state":"Running"}'
    )


def test_a_response_without_a_body_does_not_speak_of_one() -> None:
    assert render(Response(204)) == b"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"


def test_deprecation_comes_before_the_content() -> None:
    assert render(Response(400, b"{}", deprecation=True)) == (
        b"HTTP/1.1 400 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nDeprecation: true\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )


def test_the_interim_response_speaks_the_clients_version() -> None:
    assert render_continue(Continue("HTTP/1.0")) == (
        b"HTTP/1.0 100 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"
    )


def test_a_transport_error_has_the_references_bytes_raw_line_feed_and_all() -> None:
    (error,) = Parser(250).feed(b"PUT /mmds HTTP/1.1\r\nContent-Length: 260\r\n\r\n")
    assert isinstance(error, BadRequest)
    assert render_bad_request(error) == (
        b"HTTP/1.1 400 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
        b"Content-Type: application/json\r\nContent-Length: 145\r\n\r\n"
        b'{ "error": "Request payload with size 260 is larger than the limit of 250 allowed by server.\n'
        b'All previous unanswered requests will be dropped." }'
    )


@pytest.mark.parametrize(("limit", "size", "length"), [(50, 50000, 146), (51200, 51201, 149)])
def test_the_lengths_of_the_other_reference_vectors(limit: int, size: int, length: int) -> None:
    (error,) = Parser(limit).feed(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
    assert isinstance(error, BadRequest)
    assert b"Content-Length: %d\r\n" % length in render_bad_request(error)


def test_the_eleventh_connection_gets_the_references_bytes() -> None:
    assert TOO_MANY_CONNECTIONS == (
        b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\nContent-Length: 40\r\n\r\n"
        b'{ "error": "Too many open connections" }'
    )
