"""Known clients and unkind ones against the server in a process of its own (ecosystem.md §1.4)."""

import http.client
import os
import random
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

HERE = os.path.dirname(__file__)
SOURCE = os.path.join(HERE, "..", "..", "src")
HEAD = b"Server: Firecracker API\r\nConnection: keep-alive\r\n"
NO_CONTENT = b"HTTP/1.1 204 \r\n" + HEAD + b"\r\n"
CONTINUE = b"HTTP/1.1 100 \r\n" + HEAD + b"\r\n"
STILL_THERE = b"GET / HTTP/1.1\r\n\r\n"
DISMISSAL = b'{ "error": "Too many open connections" }'
PATIENCE_S = 60


def answer(status: int, body: bytes) -> bytes:
    content = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return b"HTTP/1.1 %d \r\n" % status + HEAD + content + body


INSTANCE = answer(
    200, b'{"id":"anonymous-instance","state":"Not started","vmm_version":"1.17.0-dev","app_name":"Firecracker"}'
)
MACHINE_CONFIG = answer(
    200, b'{"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false,"huge_pages":"None"}'
)


class ApiProcess(NamedTuple):
    """The server under test."""

    path: str
    process: "subprocess.Popen[bytes]"

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE_S)
        try:
            client.connect(self.path)
        except OSError:
            client.close()
            raise
        return client

    def memory_kib(self, field: str) -> int:
        """Read VmRSS, the memory now, or VmHWM, the most there ever was."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(field))


@pytest.fixture
def api(tmp_path: os.PathLike[str]) -> Iterator[ApiProcess]:
    path = os.path.join(tmp_path, "api.sock")
    command = [sys.executable, os.path.join(HERE, "fake_vmm.py"), path]
    with open(os.path.join(tmp_path, "log"), "wb") as log:
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": SOURCE}, stdout=log)
    yield ApiProcess(path, process)
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def listening(api: ApiProcess) -> None:
    """Wait as clients do: until a connection is accepted."""
    while True:
        assert api.process.poll() is None, "the server did not start"
        try:
            api.connect().close()
            return
        except OSError:
            time.sleep(0.01)


def receive(client: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (more := client.recv(size - len(received))):
        received += more
    return received


# --- recorded clients -------------------------------------------------------------------------------------------------


class Recording(NamedTuple):
    """What a client writes, each item one write, and what it then waits for; and so on."""

    client: str
    conversation: list[tuple[list[bytes], bytes]]


def head(lines: str) -> bytes:
    """A request's head, with `|` where its lines end."""
    return lines.replace("|", "\r\n").encode() + b"\r\n\r\n"


GO = "Host: localhost|User-Agent: Go-http-client/1.1|"
GO_JSON = "|Accept: application/json|Content-Type: application/json|Accept-Encoding: gzip"
REQUESTS = (
    "Host: localhost|User-Agent: python-requests/2.32.3|Accept-Encoding: gzip, deflate|Accept: application/json|"
    "Connection: keep-alive"
)
CURL = "Host: localhost|User-Agent: curl/7.88.1|Accept: */*|"
MMDS = b'{"latest":{"meta-data":{"blob":"' + b"A" * 45000 + b'"}}}'
TOO_LARGE = (
    b'{ "error": "Request payload with size 51201 is larger than the limit of 51200 allowed by server.\n'
    b'All previous unanswered requests will be dropped." }'
)

GO_MACHINE_CONFIG = b'{"mem_size_mib":512,"smt":false,"vcpu_count":2}'
GO_DRIVE = b'{"drive_id":"1","is_read_only":false,"is_root_device":true,"path_on_host":"/var/lib/rootfs.ext4"}\n'
REQUESTS_BOOT = b'{"kernel_image_path": "/srv/vmlinux"}'
REQUESTS_PAUSE = b'{"state": "Paused"}'
START = b'{"action_type":"InstanceStart"}'

RECORDINGS = [
    Recording("firecracker-go-sdk", [
        ([head(f"GET /machine-config HTTP/1.1|{GO}Accept: application/json|Accept-Encoding: gzip")], MACHINE_CONFIG),
        ([head(f"PUT /machine-config HTTP/1.1|{GO}Content-Length: 47{GO_JSON}") + GO_MACHINE_CONFIG], NO_CONTENT),
        ([head(f"PUT /drives/1 HTTP/1.1|{GO}Content-Length: 98{GO_JSON}") + GO_DRIVE], NO_CONTENT),
    ]),
    Recording("python-requests", [
        ([head(f"PUT /boot-source HTTP/1.1|{REQUESTS}|Content-Length: 37|Content-Type: application/json"),
          REQUESTS_BOOT], NO_CONTENT),
        ([head(f"GET / HTTP/1.1|{REQUESTS}")], INSTANCE),
        ([head(f"PATCH /vm HTTP/1.1|{REQUESTS}|Content-Length: 19|Content-Type: application/json"),
          REQUESTS_PAUSE], NO_CONTENT),
    ]),
    Recording("curl", [
        ([head(f"PUT /actions HTTP/1.1|{CURL}Content-Type: application/json|Content-Length: 31") + START], NO_CONTENT),
        ([head(f"GET / HTTP/1.1|{CURL}".removesuffix("|"))], INSTANCE),
    ]),
    Recording("curl-asking-permission", [
        ([head(f"PUT /mmds HTTP/1.1|{CURL}Content-Length: {len(MMDS)}|Expect: 100-continue")], CONTINUE),
        ([MMDS[:16384], MMDS[16384:32768], MMDS[32768:]], NO_CONTENT),
    ]),
    Recording("curl-refused-permission", [
        ([head(f"PUT /mmds HTTP/1.1|{CURL}Content-Length: 51201|Expect: 100-continue")], answer(400, TOO_LARGE)),
        ([head(f"GET / HTTP/1.1|{CURL}".removesuffix("|"))], INSTANCE),
    ]),
    Recording("http.client", [
        ([head("GET / HTTP/1.1|Host: localhost|Accept-Encoding: identity")], INSTANCE),
        ([head("PUT /actions HTTP/1.1|Host: localhost|Accept-Encoding: identity|Content-Length: 31"),
          START], NO_CONTENT),
    ]),
    Recording("raw-socket-without-host", [
        ([head("PUT /actions HTTP/1.1|Content-Type: application/json|Content-Length: 31") + START], NO_CONTENT),
        ([head("GET / HTTP/1.0")], INSTANCE),
    ]),
    Recording("absolute-uri", [
        ([head("GET http://localhost/machine-config HTTP/1.1|host: localhost|accept: */*")], MACHINE_CONFIG),
    ]),
]  # fmt: skip


@pytest.mark.parametrize("piece", [1 << 20, 7], ids=["as-written", "in-small-pieces"])
@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.client)
def test_a_recorded_client_gets_what_it_waits_for(api: ApiProcess, recording: Recording, piece: int) -> None:
    client = api.connect()
    for writes, expected in recording.conversation:
        for write in writes:
            for start in range(0, len(write), piece):
                client.sendall(write[start : start + piece])
        assert receive(client, len(expected)) == expected
    client.close()


class UnixHttpConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def test_pythons_own_client_keeps_one_connection(api: ApiProcess) -> None:
    client = UnixHttpConnection(api.path)
    for _ in range(20):
        client.request("GET", "/machine-config")
        response = client.getresponse()
        assert (response.status, response.reason) == (200, "")
        assert response.read().startswith(b'{"vcpu_count":1')
        client.request("PUT", "/machine-config", b'{"vcpu_count": 2, "mem_size_mib": 256}')
        response = client.getresponse()
        assert (response.status, response.read()) == (204, b"")
    client.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_sends_a_body_it_has_to_ask_permission_for(api: ApiProcess) -> None:
    command = ["curl", "-sS", "-w", "%{http_code}", "--unix-socket", api.path, "-X", "PUT", "-T", "-"]
    command += ["-H", "Expect: 100-continue", "-H", f"Content-Length: {len(MMDS)}", "-H", "Transfer-Encoding:"]
    command += ["http://localhost/mmds"]
    run = subprocess.run(command, input=MMDS, capture_output=True, timeout=PATIENCE_S, check=True)
    assert run.stdout == b"204"


# --- unkind clients ---------------------------------------------------------------------------------------------------


def receive_until(client: socket.socket, end: bytes) -> bytes:
    """Take what the server has to say up to `end`, or until it hangs up."""
    received = b""
    while not received.endswith(end):
        try:
            more = client.recv(1 << 16)
        except ConnectionResetError:
            break
        if not more:
            break
        received += more
    return received


def send_noise(api: ApiProcess, dice: random.Random) -> None:
    """A million random bytes in random pieces."""
    client = api.connect()
    noise = dice.randbytes(1_000_000)
    start = 0
    while start < len(noise):
        end = start + dice.choice([1, 2, 100, 1023, 1024, 5000, 100_000])
        client.sendall(noise[start:end])
        start = end
        while select.select([client], [], [], 0)[0]:
            assert client.recv(1 << 16)
    client.close()


def connect_two_hundred_times(api: ApiProcess) -> None:
    """Two hundred clients at once: ten are served, the others are told so and dismissed."""
    clients = [api.connect() for _ in range(200)]
    for client in clients:
        try:
            client.sendall(STILL_THERE)
        except BrokenPipeError:
            pass
    answers = [receive(client, len(INSTANCE)) for client in clients[:10]]
    assert answers == [INSTANCE] * 10
    for client in clients[10:]:
        assert receive_until(client, DISMISSAL).startswith(b"HTTP/1.1 503\r\n")
    for client in clients:
        client.close()


def send_a_hundred_mebibytes(api: ApiProcess) -> None:
    """A body of 100 MiB: refused once, skipped, and the connection works again afterwards."""
    client = api.connect()
    client.sendall(b"PUT /mmds HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (100 << 20))
    mebibyte = bytes(1 << 20)
    for _ in range(100):
        client.sendall(mebibyte)
    client.sendall(STILL_THERE)
    received = receive_until(client, INSTANCE)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.endswith(INSTANCE)
    client.close()


def never_read(api: ApiProcess) -> list[socket.socket]:
    """Nine clients that ask for large answers until nobody listens any more, and take none."""
    clients = []
    for _ in range(9):
        client = api.connect()
        client.settimeout(0.05)
        try:
            while True:
                client.sendall(b"GET /mmds HTTP/1.1\r\n\r\n" * 1000)
        except TimeoutError:
            clients.append(client)
    return clients


def test_no_abuse_costs_memory_or_keeps_the_next_client_from_being_served(api: ApiProcess) -> None:
    dice = random.Random(1017)
    first = api.connect()
    first.sendall(b"GET /mmds HTTP/1.1\r\n\r\n")
    receive(first, 51000)
    first.close()
    before_kib = api.memory_kib("VmRSS")

    send_noise(api, dice)
    connect_two_hundred_times(api)
    send_a_hundred_mebibytes(api)
    silent = never_read(api)

    last = api.connect()
    last.sendall(STILL_THERE)
    assert receive(last, len(INSTANCE)) == INSTANCE
    last.close()
    assert api.memory_kib("VmHWM") - before_kib <= 8 * 1024
    for client in silent:
        client.close()
