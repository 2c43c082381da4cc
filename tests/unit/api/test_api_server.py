"""The API server on a real socket and a real loop, turned by hand: the test is the clients."""

import errno
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from hibana.api.http import Request, Response
from hibana.api.listen import listen
from hibana.api.server import Server
from hibana.bus.loop import Loop
from hibana.errors import ApiServerError, ApiSocketInUse
from hibana.observe import log

HEAD = b"Server: Firecracker API\r\nConnection: keep-alive\r\n"
NO_CONTENT = b"HTTP/1.1 204 \r\n" + HEAD + b"\r\n"
DROPPED = b'{ "error": "%s\nAll previous unanswered requests will be dropped." }'


def get(path: str) -> bytes:
    return b"GET %s HTTP/1.1\r\n\r\n" % path.encode()


def turn(loop: Loop, times: int = 30) -> None:
    """Let a loop do what there is to do."""
    for _ in range(times):
        loop.after(0, loop.stop)
        loop.run()


class Stage:
    """A server whose answers are the paths it was asked for, and the requests it has seen."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.now_s = 0.0
        self.loop = Loop(clock=lambda: self.now_s)
        self.seen: list[Request] = []
        self.body_size = 0
        self.server = Server(listen(path), self.loop, self.handle)
        self.server.start()

    def handle(self, request: Request) -> Response:
        self.seen.append(request)
        if request.method != "GET":
            return Response(204)
        return Response(200, request.path.encode().ljust(self.body_size, b"."))

    def turn(self, times: int = 30) -> None:
        turn(self.loop, times)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        client.connect(self.path)
        self.turn()
        return client

    def ask(self, client: socket.socket, stream: bytes) -> bytes:
        client.sendall(stream)
        self.turn()
        return client.recv(1 << 20)


@pytest.fixture
def stage(tmp_path: os.PathLike[str]) -> Iterator[Stage]:
    stage = Stage(os.path.join(tmp_path, "api.sock"))
    yield stage
    stage.server.close()
    stage.loop.close()


def test_a_request_is_answered_and_the_connection_kept(stage: Stage) -> None:
    client = stage.connect()
    expected = b"HTTP/1.1 200 \r\n" + HEAD + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n/a"
    assert stage.ask(client, get("/a")) == expected
    assert stage.ask(client, b"PUT /b HTTP/1.1\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1") == NO_CONTENT
    assert stage.seen == [Request("GET", "/a"), Request("PUT", "/b", b"1")]
    client.close()


def test_what_a_client_sent_before_the_server_started_is_answered(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "early.sock")
    listener = listen(path)
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.sendall(b"PUT / HTTP/1.1\r\n\r\n")
    loop = Loop()
    server = Server(listener, loop, lambda request: Response(204))
    server.start()
    turn(loop)
    assert client.recv(1000) == NO_CONTENT
    client.close()
    server.close()
    loop.close()


def test_requests_sent_at_once_are_answered_in_order(stage: Stage) -> None:
    client = stage.connect()
    answers = stage.ask(client, b"".join(get(f"/{i}") for i in range(20)))
    assert [answer[: answer.find(b"HTTP")] for answer in answers.split(b"\r\n\r\n/")[1:-1]] == [
        b"%d" % i for i in range(19)
    ]
    assert answers.endswith(b"/19")
    client.close()


def test_an_error_drops_the_unanswered_requests_before_it_and_nothing_else(stage: Stage) -> None:
    client = stage.connect()
    bad = b"POST / HTTP/1.1\r\n\r\n"
    answers = stage.ask(client, bad + get("/dropped") + get("/dropped") + bad + get("/kept"))
    error = DROPPED % b"Invalid HTTP Method: Unsupported HTTP method."
    assert answers.count(error) == 2
    assert answers.endswith(b"/kept")
    assert stage.seen == [Request("GET", "/kept")]
    client.close()


def test_permission_to_send_a_body_is_given_before_the_body_came(stage: Stage) -> None:
    client = stage.connect()
    interim = stage.ask(client, b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    assert interim == b"HTTP/1.1 100 \r\n" + HEAD + b"\r\n"
    assert stage.ask(client, b"x") == NO_CONTENT
    client.close()


def test_the_eleventh_connection_is_told_so_and_closed(stage: Stage) -> None:
    clients = [stage.connect() for _ in range(10)]
    eleventh = stage.connect()
    assert eleventh.recv(1000).endswith(b'{ "error": "Too many open connections" }')
    assert eleventh.recv(1000) == b""
    assert all(stage.ask(client, b"PUT / HTTP/1.1\r\n\r\n") == NO_CONTENT for client in clients)
    clients.pop().close()
    stage.turn()
    clients.append(stage.connect())
    assert stage.ask(clients[-1], b"PUT / HTTP/1.1\r\n\r\n") == NO_CONTENT
    for client in [*clients, eleventh]:
        client.close()


def test_hanging_up_with_one_half_is_hanging_up(stage: Stage) -> None:
    client = stage.connect()
    client.sendall(b"GET / HTT")
    client.shutdown(socket.SHUT_WR)
    stage.turn()
    assert client.recv(1000) == b""
    client.close()


def test_a_client_that_stalls_within_a_request_holds_up_nobody(stage: Stage) -> None:
    slow, quick = stage.connect(), stage.connect()
    slow.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\n12")
    assert stage.ask(quick, b"PUT / HTTP/1.1\r\n\r\n") == NO_CONTENT
    assert stage.ask(slow, b"345") == NO_CONTENT
    assert stage.seen[-1].body == b"12345"
    slow.close()
    quick.close()


def test_a_client_that_leaves_its_answers_lying_is_not_read_from_until_it_takes_them(stage: Stage) -> None:
    stage.body_size = 40_000
    client = stage.connect()
    client.setblocking(False)
    requests = b"".join(b"GET /%05d HTTP/1.1\r\nCookie: %s\r\n\r\n" % (i, b"c" * 900) for i in range(1000))
    sent = 0

    def send() -> bool:
        nonlocal sent
        try:
            sent += client.send(requests[sent : sent + 4096])
        except BlockingIOError:
            return False
        return True

    while send():
        stage.turn(3)
    seen = len(stage.seen)
    stage.turn()
    assert not send()
    assert len(stage.seen) == seen < 30  # what fits into the socket buffers, and a little more
    (connection,) = stage.server._connections
    assert len(connection._outgoing) < 64 * 1024 + 41_000
    assert len(connection._events) < 20

    received = bytearray()
    while not received.endswith(b"/00999".ljust(40_000, b".")):
        if sent < len(requests):
            send()
        stage.turn(1)
        try:
            received += client.recv(1 << 20)
        except BlockingIOError:
            pass
    assert [request.path for request in stage.seen] == [f"/{i:05}" for i in range(1000)]
    assert received.count(b"HTTP/1.1 200 ") == 1000
    client.close()


def test_a_client_that_dies_with_answers_lying_is_forgotten(stage: Stage) -> None:
    stage.body_size = 1 << 20
    client = stage.connect()
    client.sendall(get("/"))
    stage.turn()
    client.close()
    stage.turn()
    assert not stage.server._connections


def test_a_client_that_dies_with_an_answer_unread_and_a_request_unsent_is_forgotten(stage: Stage) -> None:
    client = stage.connect()
    client.sendall(get("/"))
    stage.turn()
    client.close()  # with the answer in its socket: the server's next read fails with "connection reset"
    stage.turn()
    assert not stage.server._connections


def test_passed_descriptors_are_ignored(stage: Stage) -> None:
    client = stage.connect()
    before = os.listdir("/proc/self/fd")
    socket.send_fds(client, [b"PUT / HTTP/1.1\r\n\r\n"], [0, 1, 2])
    stage.turn()
    assert client.recv(1000) == NO_CONTENT
    assert os.listdir("/proc/self/fd") == before
    client.close()


def test_the_server_survives_running_out_of_descriptors(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, limits[1]))
    try:
        client.connect(stage.path)
        client.sendall(b"PUT / HTTP/1.1\r\n\r\n")
        stage.turn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert capfd.readouterr().out.count("No file descriptors available (os error 24)") == 1
    assert not stage.seen
    stage.now_s += 0.1
    stage.turn()
    assert client.recv(1000) == NO_CONTENT
    client.close()


def test_a_server_without_descriptors_can_be_closed(tmp_path: os.PathLike[str]) -> None:
    stage = Stage(os.path.join(tmp_path, "poor.sock"))
    with socket.socket(socket.AF_UNIX) as client:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, limits[1]))
        try:
            client.connect(stage.path)
            stage.turn()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        stage.server.close()
    stage.loop.close()


def test_closing_hands_over_what_is_written_and_leaves_the_socket_file(tmp_path: os.PathLike[str]) -> None:
    stage = Stage(os.path.join(tmp_path, "close.sock"))
    client = stage.connect()
    stage.body_size = 300_000
    client.sendall(get("/"))
    stage.turn()
    first = client.recv(250_000)
    stage.server.close()
    rest = b""
    while received := client.recv(1 << 20):
        rest += received
    assert len(first + rest) > len(first) > 0
    assert os.path.exists(stage.path)
    client.close()
    stage.loop.close()


def test_requests_are_handled_under_the_name_of_the_api_thread(tmp_path: os.PathLike[str]) -> None:
    names: list[str] = []

    def handle(request: Request) -> Response:
        names.append(log.set_thread_name("main"))
        log.set_thread_name("fc_api")
        return Response(204)

    before = log.set_thread_name("main")
    loop = Loop()
    server = Server(listen(os.path.join(tmp_path, "named.sock")), loop, handle)
    server.start()
    client = socket.socket(socket.AF_UNIX)
    client.connect(os.path.join(tmp_path, "named.sock"))
    client.sendall(get("/"))
    turn(loop)
    assert names == ["fc_api"]
    assert log.set_thread_name(before) == "main"
    client.close()
    server.close()
    loop.close()


def test_the_socket_is_announced_with_its_path(tmp_path: os.PathLike[str], capfd: pytest.CaptureFixture[str]) -> None:
    before = log.set_thread_name("main")
    stage = Stage(os.path.join(tmp_path, 'a"b\\c.sock'))
    assert log.set_thread_name(before) == "main"
    lines = capfd.readouterr().out.splitlines()
    directory = os.fspath(tmp_path)
    assert lines[0].endswith(f':main] Listening on API socket ("{directory}/a\\"b\\\\c.sock").'), "as Rust quotes it"
    assert lines[1].endswith(":fc_api] API server started."), "the server's own line"
    stage.server.close()
    stage.loop.close()


def test_the_socket_file_appears_when_it_can_be_connected_to_and_not_before(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.path.join(tmp_path, "api.sock")
    link = os.link
    appeared: list[str] = []

    def watched_link(source: str, target: str) -> None:
        assert not os.path.exists(target)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(source)
        link(source, target)
        appeared.append(target)

    monkeypatch.setattr(os, "link", watched_link)
    listen(path).close()
    assert appeared == [path]
    assert os.listdir(tmp_path) == ["api.sock"]


@pytest.mark.parametrize("length", [100, 107])
def test_every_path_that_the_kernel_takes_is_taken(length: int) -> None:
    path = os.path.join("/tmp", str(os.getpid()).ljust(length - len("/tmp/"), "x"))
    listener = listen(path)
    assert os.path.exists(path)
    os.unlink(path)
    listener.close()


def test_a_socket_file_that_exists_is_reported_and_left_alone(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "api.sock")
    with open(path, "w") as file:
        file.write("precious")
    with pytest.raises(ApiSocketInUse) as caught:
        listen(path)
    assert str(caught.value) == (
        f"RunWithApiError error: Failed to open the API socket at: {path}. Check that it is not already used."
    )
    with open(path) as file:
        assert file.read() == "precious"


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/nonexistent/api.sock", f"No such file or directory (os error {errno.ENOENT})"),
        ("/tmp/" + "x" * 200, "path must be shorter than SUN_LEN"),
    ],
)
def test_a_socket_that_cannot_be_made_is_reported(path: str, cause: str) -> None:
    with pytest.raises(ApiServerError) as caught:
        listen(path)
    assert str(caught.value) == f"RunWithApiError error: Failed to bind and run the HTTP server: IO error: {cause}"
