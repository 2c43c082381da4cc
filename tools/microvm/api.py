"""The VMM's HTTP API over its unix socket, with the standard library's client."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any


class ApiError(Exception):
    """The VMM refused; `status` and the sentence it gave."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(f"{status}: {sentence}")
        self.status = status
        self.sentence = sentence


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Api:
    """One keep-alive connection to a VMM."""

    def __init__(self, path: Path, timeout: float = 40) -> None:
        self._connection = _UnixConnection(path, timeout)

    def get(self, path: str) -> Any:
        """Ask for a resource."""
        return self._request("GET", path)

    def put(self, path: str, **body: object) -> Any:
        """Create or act."""
        return self._request("PUT", path, body)

    def patch(self, path: str, **body: object) -> Any:
        """Change a resource."""
        return self._request("PATCH", path, body)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _request(self, method: str, path: str, body: object = None) -> Any:
        text = None if body is None else json.dumps(body)
        self._connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
        response = self._connection.getresponse()
        answer = json.loads(response.read() or b"null")
        if response.status >= 400:
            raise ApiError(response.status, answer["fault_message"])
        return answer
