"""The vocabulary of the process tests: a real `firecracker` in a folder of its own, and what a client sees of it.

A test says, with the fixture `start`:

    vmm = start(guest=say("ok") + RESET)
    assert vmm.wait() == 0
    assert vmm.console == "ok"
"""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
LAUNCHER: Final = ROOT / "build/bin/firecracker"
SOCKET: Final = "api.socket"
PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.005
_LOG_LINE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9} \[[^\n]*\n")

START: Final = {"action_type": "InstanceStart"}
SEND_CTRL_ALT_DEL: Final = {"action_type": "SendCtrlAltDel"}
FLUSH_METRICS: Final = {"action_type": "FlushMetrics"}


def program() -> list[str]:
    """Name the program as users start it, or the nearest thing if it has not been built."""
    return [str(LAUNCHER)] if LAUNCHER.exists() else interpreted()


def interpreted(prelude: str = "") -> list[str]:
    """Name the program as a script, after some lines that change it."""
    return [sys.executable, "-c", f"{prelude}\nfrom hibana.cli.firecracker import entry\nentry()"]


class Answer(NamedTuple):
    """What the API says: a status, and what the JSON of the body means."""

    status: int
    body: Any


class _UnixConnection(http.client.HTTPConnection):
    """HTTP to a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.close()
            raise


class Vmm:
    """One process. Unless it is told otherwise its standard output and error are files in its folder."""

    def __init__(
        self, folder: Path, name: str, command: Sequence[str], environment: Mapping[str, str], **popen: Any
    ) -> None:
        self.folder = folder
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        inherited = {key: value for key, value in os.environ.items() if key != "HIBANA_ENGINE"}
        inherited["PYTHONPATH"] = str(ROOT / "src")
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err}
            self.process = subprocess.Popen(
                command, cwd=folder, env={**inherited, **environment}, **{**streams, **popen}
            )
        self.speak_to(folder / SOCKET)

    def speak_to(self, path: Path) -> None:
        """Say where its API socket will be."""
        self._connection = _UnixConnection(str(path))

    # --- what it says -------------------------------------------------------------------------------------------------

    @property
    def out(self) -> str:
        """Everything on standard output so far."""
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        """Everything on standard error so far."""
        return self._err.read_text(errors="replace")

    @property
    def console(self) -> str:
        """What the guest printed: standard output without the log, whose lines may come between any two bytes of it."""
        return _LOG_LINE.sub("", self.out)

    @property
    def messages(self) -> list[str]:
        """The lines of standard output, log lines without time and place."""
        return [line.partition("] ")[2] or line for line in self.out.splitlines()]

    def wait_for(self, text: str, file: str = "") -> None:
        """Wait until a text stands in standard output, or in a file."""
        path = self.folder / file if file else self._out
        give_up = time.monotonic() + PATIENCE_S
        while not path.exists() or text not in path.read_text(errors="replace"):
            if self.is_over or time.monotonic() > give_up:
                if path.exists() and text in path.read_text(errors="replace"):
                    return
                raise AssertionError(f"no {text!r}; exit code {self.process.returncode}\n{self.out}{self.err}")
            time.sleep(_POLL_S)

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def wait(self) -> int:
        """Wait for the end; negative for a signal."""
        return self.process.wait(PATIENCE_S)

    # --- what the API says --------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        """Send a request, as soon as there is somebody to hear it."""
        give_up = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._connection.request(method, path, None if body is None else json.dumps(body))
                response = self._connection.getresponse()
                content = response.read()
                return Answer(response.status, json.loads(content) if content else None)
            except (FileNotFoundError, ConnectionRefusedError):
                if self.is_over or time.monotonic() > give_up:
                    raise AssertionError(f"nobody listens\n{self.out}{self.err}") from None
                time.sleep(_POLL_S)

    def get(self, path: str) -> Any:
        """Ask for something that is there."""
        answer = self.ask("GET", path)
        assert answer.status == 200, answer
        return answer.body

    def put(self, path: str, body: object) -> None:
        """Ask for something that is done."""
        assert self.ask("PUT", path, body) == Answer(204, None)

    def patch(self, path: str, body: object) -> None:
        """Ask for a change that is made."""
        assert self.ask("PATCH", path, body) == Answer(204, None)

    def fault(self, method: str, path: str, body: object = None) -> str:
        """Ask for something that is refused; give the sentence."""
        answer = self.ask(method, path, body)
        assert answer.status == 400, answer
        return str(answer.body["fault_message"])

    @property
    def state(self) -> str:
        """What `GET /` says about the microVM."""
        return str(self.get("/")["state"])

    def boot(self, kernel: str = "kernel") -> None:
        """Make the calls that start a microVM."""
        self.put("/boot-source", {"kernel_image_path": kernel})
        self.put("/actions", START)

    # --- what the kernel says -----------------------------------------------------------------------------------------

    def comm(self) -> str:
        """The name of the process."""
        return Path(f"/proc/{self.process.pid}/comm").read_text().strip()

    def thread_names(self) -> list[str]:
        """The names of its threads, the first thread's first; a worker that KVM starts in the process is not one."""
        tasks = sorted(Path(f"/proc/{self.process.pid}/task").iterdir(), key=lambda task: int(task.name))
        names = [(task / "comm").read_text().strip() for task in tasks]
        return [name for name in names if not name.startswith("kvm-")]

    def stop(self) -> None:
        """End it, however it is."""
        self._connection.close()
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


def config(kernel: str = "kernel", **parts: object) -> dict[str, object]:
    """Write a configuration file's content; `machine_config=…` becomes the part `machine-config`."""
    whole: dict[str, object] = {"boot-source": {"kernel_image_path": kernel}, "drives": []}
    return whole | {name.replace("_", "-"): part for name, part in parts.items()}
