"""Standard streams, terminals and FIFOs: nobody who does not listen or type can stop a microVM."""

import fcntl
import json
import os
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.clients.conftest import Start
from tests.clients.process import PATIENCE_S, Vmm, interpreted, program
from tests.clients.tiny_guests import ECHO, HALT, RESET, TICK, kernel, say

DETACHED = "Detached the serial input due to peer close/error."


def keyboard(vmm: Vmm) -> IO[bytes]:
    assert vmm.process.stdin
    return vmm.process.stdin


def type_in(vmm: Vmm, text: str) -> None:
    keyboard(vmm).write(text.encode())
    keyboard(vmm).flush()


# --- standard input ---------------------------------------------------------------------------------------------------


def test_what_is_typed_into_a_pipe_reaches_the_guest(start: Start) -> None:
    vmm = start("--log-path", "log", guest=ECHO, stdin=subprocess.PIPE)
    type_in(vmm, "early ")
    vmm.wait_for("early ")
    long = "0123456789" * 500  # many times the chip's FIFO
    type_in(vmm, long)
    vmm.wait_for(long)
    type_in(vmm, "q")
    assert vmm.wait() == 0
    assert vmm.out == "early " + long


def test_the_end_of_standard_input_is_not_the_end_of_the_microvm(start: Start) -> None:
    vmm = start("--log-path", "log", guest=ECHO, stdin=subprocess.PIPE)
    type_in(vmm, "last words")
    keyboard(vmm).close()
    vmm.wait_for(DETACHED, "log")
    vmm.wait_for("last words")  # the guest may still be busy with them
    assert vmm.out == "last words"
    assert vmm.state == "Running"


@pytest.mark.parametrize("path", [os.devnull, "/dev/zero", __file__, "fifo"])
def test_a_guest_that_nobody_types_for_runs_and_does_not_keep_us_busy(path: str, start: Start, tmp_path: Path) -> None:
    if path == "fifo":
        path = str(tmp_path / "fifo")
        os.mkfifo(path)
    with open(path, "rb+" if "fifo" in path else "rb", buffering=0) as stdin:
        vmm = start("--log-path", "log", guest=say("!") + HALT, stdin=stdin)
    vmm.wait_for("!")
    assert vmm.state == "Running"
    before = cpu_time(vmm)
    time.sleep(0.2)
    assert cpu_time(vmm) - before < 0.1
    assert DETACHED not in (vmm.folder / "log").read_text()


def cpu_time(vmm: Vmm) -> float:
    """Seconds of CPU time so far."""
    fields = Path(f"/proc/{vmm.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- closed streams ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_do_no_harm(closed: tuple[int, ...], start: Start) -> None:
    """A file opened later must not be taken for one of them."""
    vmm = start("--log-path", "log", "--metrics-path", "metrics", guest=say("ok\n") + RESET, program=without(closed))
    assert vmm.wait() == 0
    log = (vmm.folder / "log").read_text()
    assert log.endswith("Firecracker exiting successfully. exit_code=0\n")
    assert "ok" not in log
    assert vmm.err == ""
    assert vmm.out == ("" if 1 in closed else "ok\n")


def without(fds: tuple[int, ...]) -> list[str]:
    """Name the program, started by a shell that closes some of its standard streams."""
    return ["sh", "-c", f'exec "$@" {" ".join(f"{fd}>&-" for fd in fds)}', "sh", *program()]


@pytest.mark.parametrize(
    ("options", "code"), [(["--version"], 0), (["--help"], 0), (["--foo"], 153), (["--id", "_"], -signal.SIGABRT)]
)
@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_the_exit_code_does_not_depend_on_who_listens(
    closed: tuple[int, ...], options: list[str], code: int, start: Start
) -> None:
    assert start(*options, program=without(closed)).wait() == code
    reader, writer = os.pipe()
    os.close(reader)
    broken: dict[str, Any] = {{1: "stdout", 2: "stderr"}[fd]: writer for fd in closed if fd}
    assert start(*options, **broken).wait() == code
    os.close(writer)


def test_an_error_is_not_said_on_standard_output_for_want_of_standard_error(start: Start) -> None:
    vmm = start("--foo", program=without((2,)))
    assert vmm.wait() == 153
    assert "Error: " not in vmm.out


# --- readers that are slow or gone ------------------------------------------------------------------------------------


def test_a_console_that_nobody_reads_loses_bytes_and_nothing_else(start: Start) -> None:
    vmm = start("--log-path", "log", guest=say("x" * 20_000) + ECHO, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert vmm.process.stdout
    fcntl.fcntl(vmm.process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    type_in(vmm, "q")
    assert vmm.wait() == 0
    assert set(vmm.process.stdout.read()) == {ord("x")}


def test_a_console_whose_reader_has_gone_is_written_to_in_vain(start: Start) -> None:
    vmm = start("--log-path", "log", guest=ECHO, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert vmm.process.stdout
    vmm.process.stdout.close()
    vmm.process.stdout = None
    type_in(vmm, "helloq")
    assert vmm.wait() == 0
    assert "Received signal 13" in (vmm.folder / "log").read_text()


def test_a_log_whose_reader_has_gone_is_not_told_of_its_own_broken_pipe_for_ever(start: Start) -> None:
    vmm = start("--level", "Error", "--metrics-path", "metrics", guest=HALT, stdout=subprocess.PIPE)
    assert vmm.state == "Running"
    assert vmm.process.stdout
    vmm.process.stdout.close()
    vmm.process.stdout = None
    vmm.process.send_signal(signal.SIGPIPE)
    give_up = time.monotonic() + PATIENCE_S
    seen = broken_pipes(vmm)
    while seen == 0 or broken_pipes(vmm):
        assert time.monotonic() < give_up
        seen += broken_pipes(vmm)


def broken_pipes(vmm: Vmm) -> int:
    """How many there were since the last time."""
    vmm.put("/actions", {"action_type": "FlushMetrics"})
    line = json.loads((vmm.folder / "metrics").read_text().splitlines()[-1])
    return int(line["signals"]["sigpipe"])


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    os.mkfifo(tmp_path / "fifo")
    return "fifo"


def read_fifo(vmm: Vmm, fifo: str) -> bytes:
    """Read what is in a FIFO, as its client does: without waiting for a writer."""
    fd = os.open(vmm.folder / fifo, os.O_RDONLY | os.O_NONBLOCK)
    content = b""
    try:
        while piece := os.read(fd, 1 << 16):
            content += piece
    except BlockingIOError:
        pass
    os.close(fd)
    return content


def test_log_and_metrics_go_into_fifos_that_nobody_has_opened_yet(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    os.mkfifo(tmp_path / "metrics")
    vmm = start("--log-path", "log", "--metrics-path", "metrics", guest=say("!") + HALT)
    vmm.wait_for("!")
    assert vmm.state == "Running"
    assert b"Running Firecracker v1.17.0-dev" in read_fifo(vmm, "log")
    assert read_fifo(vmm, "metrics").count(b"\n") == 1


def test_a_full_fifo_loses_lines_and_counts_them(start: Start, fifo: str) -> None:
    vmm = start("--log-path", fifo, "--metrics-path", "metrics", guest=say("!") + HALT)
    for _ in range(700):  # two lines of 100 bytes each; a FIFO holds 64 KiB
        vmm.get("/version")
    vmm.put("/actions", {"action_type": "FlushMetrics"})
    lost = (vmm.folder / "metrics").read_text().splitlines()[-1].partition('"missed_log_count":')[2]
    assert int(lost.partition(",")[0].rstrip("}")) > 0
    assert len(read_fifo(vmm, fifo)) <= 1 << 16


def test_full_metrics_fifos_do_not_stop_the_microvm(start: Start, fifo: str) -> None:
    vmm = start("--metrics-path", fifo, guest=TICK)
    outcomes = {vmm.ask("PUT", "/actions", {"action_type": "FlushMetrics"}).status for _ in range(30)}
    assert outcomes == {204, 400}
    assert vmm.state == "Running"


def test_the_log_is_neither_truncated_nor_appended_to(start: Start, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x" * 10_000)
    vmm = start("--log-path", "log")
    assert vmm.state == "Not started"
    content = (tmp_path / "log").read_text()
    assert "Running Firecracker" in content.splitlines()[0]
    assert len(content) == 10_000
    assert content.endswith("x" * 1000)


# --- terminals --------------------------------------------------------------------------------------------------------


class Terminal:
    """A pseudo terminal; the VMM gets the far end for all its streams, as from a shell."""

    def __init__(self) -> None:
        self.keyboard, self.fd = os.openpty()
        self.before = self.look()
        self.seen = b""

    def look(self) -> tuple[Any, int]:
        return termios.tcgetattr(self.fd), fcntl.fcntl(self.fd, fcntl.F_GETFL)

    def streams(self) -> dict[str, Any]:
        return {"stdin": self.fd, "stdout": self.fd, "stderr": self.fd, "start_new_session": True}

    def wait_for(self, text: bytes) -> None:
        os.set_blocking(self.keyboard, False)
        give_up = time.monotonic() + PATIENCE_S
        while text not in self.seen:
            assert time.monotonic() < give_up, self.seen
            try:
                self.seen += os.read(self.keyboard, 4096)
            except BlockingIOError:
                time.sleep(0.005)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    os.close(terminal.keyboard)
    os.close(terminal.fd)


def test_a_terminal_is_the_guests_until_the_microvm_ends(start: Start, terminal: Terminal) -> None:
    vmm = start("--log-path", "log", guest=say("!") + ECHO, **terminal.streams())
    terminal.wait_for(b"!")
    assert terminal.look() != terminal.before
    os.write(terminal.keyboard, b"\x03hello\r")  # Ctrl-C, too, is the guest's
    terminal.wait_for(b"\x03hello\r")
    os.write(terminal.keyboard, b"q")
    assert vmm.wait() == 0
    assert terminal.look() == terminal.before


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, -15), (signal.SIGINT, -2), (signal.SIGHUP, 156), (signal.SIGSEGV, 150), (signal.SIGABRT, -6)],
)
def test_a_signal_ends_the_microvm_as_ever_and_puts_the_terminal_back(
    number: signal.Signals, code: int, start: Start, terminal: Terminal
) -> None:
    vmm = start("--log-path", "log", guest=say("!") + HALT, **terminal.streams())
    terminal.wait_for(b"!")
    assert terminal.look() != terminal.before
    vmm.process.send_signal(number)
    assert vmm.wait() == code
    assert terminal.look() == terminal.before


def test_a_bug_of_ours_puts_the_terminal_back(start: Start, terminal: Terminal) -> None:
    prelude = "from hibana.vmm.running import Running\nRunning.get_version = lambda self: 1 // 0"
    vmm = start("--log-path", "log", guest=say("!") + HALT, program=interpreted(prelude), **terminal.streams())
    terminal.wait_for(b"!")
    with pytest.raises(ConnectionError):
        vmm.ask("GET", "/version")
    assert vmm.wait() == -signal.SIGABRT
    assert terminal.look() == terminal.before


def test_a_start_that_failed_leaves_the_terminal_alone(start: Start, terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "nonsense").write_bytes(b"nonsense")
    vmm = start("--log-path", "log", **terminal.streams())
    vmm.put("/boot-source", {"kernel_image_path": "nonsense"})
    vmm.fault("PUT", "/actions", {"action_type": "InstanceStart"})
    assert terminal.look() == terminal.before


def test_the_terminal_is_left_alone_if_the_console_goes_elsewhere(
    start: Start, terminal: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "kernel").write_bytes(kernel(say("!") + HALT))
    vmm = start("--log-path", "log", **terminal.streams())
    vmm.put("/serial", {"serial_out_path": "serial"})
    vmm.boot()
    vmm.wait_for("!", "serial")
    assert terminal.look() == terminal.before
