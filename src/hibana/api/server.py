"""The API server: ten connections on a unix socket, fed through `http.py` to one function that answers requests.

It runs on the event loop, so it never waits: a client that stalls holds up nobody but itself. Nor does it hoard. It
reads little at a time, and not at all from a client that leaves its answers lying: while more than `_ENOUGH` bytes
wait for a client, that client's further requests stay in its socket.
"""

import socket
from _socket import socket as RawSocket  # noqa: N812  what listen() gives, without the weight of the friendly class
from collections import deque
from collections.abc import Callable
from select import EPOLLIN, EPOLLOUT
from typing import Final, Protocol

from hibana.api.http import (
    DEFAULT_MAX_PAYLOAD,
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
from hibana.errors import os_text
from hibana.observe import log

_MAX_CONNECTIONS: Final = 10
_READ_SIZE: Final = 16 << 10
_ENOUGH: Final = 64 << 10
_ACCEPT_AGAIN_S: Final = 0.1
_SPEAKER: Final = "fc_api"  # in the reference the server is a thread of its own, and its lines in the log say so

Handle = Callable[[Request], Response]


class EventLoop(Protocol):
    """What the server needs of the loop it runs on."""

    def watch(self, fd: int, handler: Callable[[], None], events: int = EPOLLIN) -> None: ...

    def modify(self, fd: int, events: int) -> None: ...

    def forget(self, fd: int) -> None: ...

    def after(self, seconds: float, handler: Callable[[], None], /) -> object: ...


class Server:
    """Accepts connections, and gives every request to `handle`, one at a time."""

    def __init__(
        self, listener: RawSocket, loop: EventLoop, handle: Handle, max_payload: int = DEFAULT_MAX_PAYLOAD
    ) -> None:
        self._listener = socket.socket(fileno=listener.detach())
        self._loop = loop
        self._handle = handle
        self._max_payload = max_payload
        self._connections: set[_Connection] = set()
        self._accepting = False

    def start(self) -> None:
        """Begin to answer; what clients sent since the socket exists is answered first."""
        self._accept_again()
        former = log.set_thread_name(_SPEAKER)
        log.info("API server started.")
        log.set_thread_name(former)

    def close(self) -> None:
        """Write out what clients will take at once, and hang up. The socket file stays, as the reference leaves it."""
        if self._accepting:
            self._loop.forget(self._listener.fileno())
        self._listener.close()
        for connection in list(self._connections):
            connection.flush()
            connection.close()

    def _accept_again(self) -> None:
        self._accepting = True
        self._loop.watch(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            # Out of descriptors: the client stays in the backlog, and would wake the loop again and again.
            log.error_limited(f"Cannot accept an API connection: {os_text(error)}")
            self._accepting = False
            self._loop.forget(self._listener.fileno())
            self._loop.after(_ACCEPT_AGAIN_S, self._accept_again)
            return
        client.setblocking(False)
        if len(self._connections) == _MAX_CONNECTIONS:
            _send(client, TOO_MANY_CONNECTIONS)
            client.close()
            return
        self._connections.add(_Connection(client, self._loop, self._handle, self._max_payload, self._connections))


class _Connection:
    """One client: a parser, the events it gave that are not answered yet, the bytes the client has not taken yet."""

    def __init__(
        self, client: socket.socket, loop: EventLoop, handle: Handle, max_payload: int, among: "set[_Connection]"
    ) -> None:
        self._socket = client
        self._loop = loop
        self._handle = handle
        self._parser = Parser(max_payload)
        self._among = among
        self._events: deque[Event] = deque()
        self._outgoing = bytearray()
        self._waits_for = EPOLLIN
        loop.watch(client.fileno(), self._ready, EPOLLIN)

    def close(self) -> None:
        """Hang up, whatever is still to be said."""
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._among.discard(self)

    def flush(self) -> bool:
        """Send what the client takes now; False if it hung up."""
        while self._outgoing:
            sent = _send(self._socket, self._outgoing)
            if sent is None:
                return False
            if not sent:
                break
            del self._outgoing[:sent]
        return True

    def _ready(self) -> None:
        """Go on wherever this client's conversation can go on."""
        if not (self._read() and self._answer()):
            self.close()
            return
        wanted = (EPOLLOUT if self._outgoing else 0) | (EPOLLIN if self._wants_more() else 0)
        if wanted != self._waits_for:
            self._waits_for = wanted
            self._loop.modify(self._socket.fileno(), wanted)

    def _wants_more(self) -> bool:
        return not self._events and len(self._outgoing) < _ENOUGH

    def _read(self) -> bool:
        """Take what the client sent; False if it hung up, if only with one half of the connection."""
        if not self._wants_more():
            return True
        try:
            received = self._socket.recv(_READ_SIZE)
        except BlockingIOError:
            return True
        except OSError as error:
            self._outgoing += render(Response(500, os_text(error).encode()))
            return True
        self._events.extend(_without_dropped(self._parser.feed(received)))
        return received != b""

    def _answer(self) -> bool:
        """Answer in order, as far as the client keeps taking the answers; False if it hung up."""
        there = self.flush()
        while there and self._events and len(self._outgoing) < _ENOUGH:
            self._outgoing += self._reply(self._events.popleft())
            there = self.flush()
        return there

    def _reply(self, event: Event) -> bytes:
        if isinstance(event, BadRequest):
            return render_bad_request(event)
        if isinstance(event, Continue):
            return render_continue(event)
        former = log.set_thread_name(_SPEAKER)
        response = self._handle(event)
        log.set_thread_name(former)
        return render(response)


def _without_dropped(events: list[Event]) -> list[Event]:
    """Leave out the requests before an error, whose answer says that they are dropped."""
    kept: list[Event] = []
    dropping = False
    for event in reversed(events):
        dropping = dropping or isinstance(event, BadRequest)
        if not (dropping and isinstance(event, Request)):
            kept.append(event)
    kept.reverse()
    return kept


def _send(client: socket.socket, content: bytes | bytearray) -> int | None:
    """Send without waiting and without SIGPIPE; None if the client is gone."""
    try:
        return client.send(content, socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return 0
    except OSError:
        return None
