"""HTTP as Firecracker's server speaks it: bytes in, events out; no socket, no clock.

The rules are narrower and laxer than HTTP's (one fixed set of methods, CRLF only, no `Host` needed, lines of at most
1024 bytes), and clients match the bytes of the answers, so this parser follows the reference server and not RFC 9112.

An error does not end the conversation. A bad request line or header refuses one request: the parser still reads its
headers and skips its body, so the next request is found. Something that is no request line at all has no end to look
for: everything received together with it is forgotten, and whatever comes next starts afresh.
"""

from typing import Final, NamedTuple

LINE_LIMIT: Final = 1024
"""A request line or header line, with its CRLF, must fit in this many bytes."""
DEFAULT_MAX_PAYLOAD: Final = 51200

_METHODS: Final = frozenset((b"GET", b"PUT", b"PATCH", b"DELETE"))
_VERSIONS: Final = frozenset((b"HTTP/1.0", b"HTTP/1.1"))
_CONTENT_LENGTH_LIMIT: Final = 1 << 32


class Request(NamedTuple):
    """One complete request; `body` is None when there is none (absent and of length zero are the same thing)."""

    method: str
    path: str
    body: bytes | None = None


class Continue(NamedTuple):
    """The client waits for permission to send its body (`Expect: 100-continue`)."""

    version: str


class BadRequest(NamedTuple):
    """The bytes are not a request; the connection stays open, its unanswered requests are dropped."""

    text: str


Event = Request | Continue | BadRequest


class Response(NamedTuple):
    """The answer to one request; `deprecation` announces that the client used a field on its way out."""

    status: int
    body: bytes | None = None
    deprecation: bool = False


class Parser:
    """Turns the bytes of one connection, cut anywhere, into events."""

    def __init__(self, max_payload: int = DEFAULT_MAX_PAYLOAD) -> None:
        self._max_payload = max_payload
        self._held = bytearray()
        self._events: list[Event] = []
        self._await_request_line()

    def feed(self, received: bytes) -> list[Event]:
        """Take the next bytes from the client and give the events they complete, in order."""
        self._held += received
        while self._step():
            pass
        events, self._events = self._events, []
        return events

    # Each step consumes something and returns True, or needs more bytes and returns False.

    def _await_request_line(self) -> None:
        self._step = self._request_line
        self._method = self._path = self._version = ""
        self._content_length = 0
        self._expects_continue = False
        self._refused = False

    def _request_line(self) -> bool:
        line = self._take_line()
        if line is None and len(self._held) < LINE_LIMIT:
            return False
        words = line.split(b" ", 2) if line is not None else []
        if len(words) < 3:
            self._events.append(BadRequest("Invalid request."))
            self._held.clear()
            return False
        method, uri, version = words
        self._method = method.decode("ascii", "replace")
        self._version = version.decode("ascii", "replace")
        self._path, problem = _path(uri)
        if method not in _METHODS:
            problem = "Invalid HTTP Method: Unsupported HTTP method."
        elif not problem and version not in _VERSIONS:
            problem = "Invalid HTTP Version: Unsupported HTTP version."
        if problem:
            self._refuse(problem)
        self._step = self._header
        return True

    def _header(self) -> bool:
        line = self._take_line()
        if line is None:
            if len(self._held) < LINE_LIMIT:
                return False
            text = self._held[:LINE_LIMIT].decode("utf-8", "replace")
            self._refuse(f"Invalid header. Reason: Invalid content length. Header: {text}")
            self._step = self._rest_of_line
        elif line:
            problem = self._take_header(line)
            if problem:
                self._refuse(problem)
        else:
            self._end_of_headers()
        return True

    def _rest_of_line(self) -> bool:
        end = self._held.find(b"\r\n")
        if end >= 0:
            del self._held[: end + 2]
            self._step = self._header
            return True
        del self._held[:-1]  # the last byte may be half a CRLF
        return False

    def _body(self) -> bool:
        if len(self._held) < self._content_length:
            return False
        body = bytes(self._held[: self._content_length])
        del self._held[: self._content_length]
        self._finish(body)
        return True

    def _refused_body(self) -> bool:
        skipped = min(len(self._held), self._content_length)
        del self._held[:skipped]
        self._content_length -= skipped
        if self._content_length:
            return False
        self._await_request_line()
        return True

    # What the steps share.

    def _take_line(self) -> bytes | None:
        end = self._held.find(b"\r\n", 0, LINE_LIMIT)
        if end < 0:
            return None
        line = bytes(self._held[:end])
        del self._held[: end + 2]
        return line

    def _refuse(self, text: str) -> None:
        """Report the first thing wrong with a request; whatever else is wrong with it is a consequence."""
        if not self._refused:
            self._events.append(BadRequest(text))
        self._refused = True

    def _take_header(self, line: bytes) -> str:
        """Note what a header line says; return what is wrong with it, or nothing."""
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            return f"Invalid header. Reason: Header contains invalid characters. Key: {_utf8_error(error)}"
        name, colon, value = text.partition(":")
        if not colon:
            return f"Invalid header. Reason: Header is incorrectly formatted. Key: {text}"
        match name.strip().lower():
            case "content-length":
                length = _content_length(value.strip())
                if length is None:
                    return f"Invalid header. Reason: Invalid value. Key:{name}; Value:{value}"
                self._content_length = length
            case "expect" if value.strip() == "100-continue":
                self._expects_continue = True
            case "accept-encoding":
                return _accept_encoding(value.strip())
        return ""

    def _end_of_headers(self) -> None:
        size, limit = self._content_length, self._max_payload
        if size > limit:
            self._refuse(f"Request payload with size {size} is larger than the limit of {limit} allowed by server.")
        if self._refused:
            if self._expects_continue:
                self._content_length = 0  # who asked for permission and was refused sends no body
            self._step = self._refused_body
        elif size:
            if self._expects_continue:
                self._events.append(Continue(self._version))
            self._step = self._body
        else:
            self._finish(None)

    def _finish(self, body: bytes | None) -> None:
        self._events.append(Request(self._method, self._path, body))
        self._await_request_line()


def _path(uri: bytes) -> tuple[str, str]:
    """Give the path a URI names, and what is wrong with the URI, if anything."""
    if not uri:
        return "", "Invalid URI: Empty URI not allowed."
    try:
        text = uri.decode()
    except UnicodeDecodeError:
        return "", "Invalid URI: Cannot parse URI as UTF-8."
    if text.startswith("http://"):
        _host, slash, path = text[7:].partition("/")
        return slash + path, ""
    return text if text.startswith("/") else "", ""


def _content_length(digits: str) -> int | None:
    """Read a 32-bit decimal; int() alone would also take underscores, minus signs and foreign digits."""
    plain = digits.removeprefix("+")
    if not (plain.isascii() and plain.isdigit()):
        return None
    length = int(plain)
    return length if length < _CONTENT_LENGTH_LIMIT else None


def _accept_encoding(value: str) -> str:
    """Say why the server cannot answer such a client: it only ever sends the identity encoding."""
    if not value:
        return "Invalid request."
    for item in value.split(","):
        coding = item.strip()
        if coding == "identity;q=0" or (coding == "*;q=0" and "identity" not in value):
            return f"Invalid header. Reason: Invalid value. Key:Accept-Encoding; Value:{item}"
    return ""


def _utf8_error(error: UnicodeDecodeError) -> str:
    if error.reason == "unexpected end of data":
        return f"incomplete utf-8 byte sequence from index {error.start}"
    return f"invalid utf-8 sequence of {error.end - error.start} bytes from index {error.start}"


# --- what the server says ---------------------------------------------------------------------------------------------

_SERVER: Final = b"Server: Firecracker API\r\n"
_HEAD: Final = _SERVER + b"Connection: keep-alive\r\n"

TOO_MANY_CONNECTIONS: Final = (
    b"HTTP/1.1 503\r\n"
    + _SERVER
    + b"Connection: close\r\nContent-Length: 40\r\n\r\n"
    + b'{ "error": "Too many open connections" }'
)
"""All that a client beyond the tenth gets."""


def render(response: Response) -> bytes:
    """Write a response: always HTTP/1.1, no reason phrase, headers in the reference's order."""
    head = b"HTTP/1.1 %d \r\n" % response.status + _HEAD
    if response.deprecation:
        head += b"Deprecation: true\r\n"
    if response.body is None:
        return head + b"\r\n"
    return head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(response.body) + response.body


def render_continue(event: Continue) -> bytes:
    """Write the interim response that lets the client send its body; it speaks the client's version."""
    return event.version.encode() + b" 100 \r\n" + _HEAD + b"\r\n"


def render_bad_request(event: BadRequest) -> bytes:
    """Write the answer to bytes that are no request; its body is no JSON, because the reference's is not."""
    text = f'{{ "error": "{event.text}\nAll previous unanswered requests will be dropped." }}'
    return render(Response(400, text.encode("utf-8", "replace")))
