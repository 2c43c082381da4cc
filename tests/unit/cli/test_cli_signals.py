"""What signals do to a process with a loop, sent and real (api.md §8.2). Every test has a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from hibana.cli.signal_handler import CODE, EXIT_CODES_AT, PIPE_AT, SOURCE, handle

SRC = os.path.join(os.path.dirname(__file__), "..", "..", "..", "src")

PROLOGUE = """
import ctypes, os, signal, sys, threading
from hibana.bus.loop import Loop
from hibana.cli import signals
from hibana.observe import metrics

loop = Loop()
signals.install(loop)
metrics.configure("metrics")
libc = ctypes.CDLL(None)  # its functions run without the interpreter lock

def elsewhere(function, *arguments):
    threading.Thread(target=function, args=arguments, daemon=True).start()

"""
TRAP = """
from hibana.seccomp import bpf
from hibana.seccomp.bpf import Label, Step
from hibana.seccomp.install import install

def trapping(number):
    fine = Label()
    return bpf.pack(bpf.assemble([
        Step(bpf.LOAD, bpf.NUMBER), Step(bpf.JUMP_EQUAL, number, otherwise=fine), Step(bpf.RETURN, bpf.TRAP),
        fine, Step(bpf.RETURN, bpf.ALLOW)]))
"""
EPILOGUE = """
loop.after(10, loop.stop)
loop.run()
"""


class Outcome(NamedTuple):
    """How a process ended, what it logged, and its last metrics."""

    code: int
    messages: list[str]
    metrics: dict[str, Any]


def run(story: str, directory: "os.PathLike[str]") -> Outcome:
    """Play a story in a process whose loop then runs for ten seconds, unless something happens."""
    command = [sys.executable, "-c", PROLOGUE + story + EPILOGUE]
    environment = {**os.environ, "PYTHONPATH": os.path.abspath(SRC)}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    messages = [line.partition("] ")[2] or line for line in (done.stdout + done.stderr).splitlines()]
    with open(os.path.join(directory, "metrics")) as file:
        lines = file.read().splitlines()
    return Outcome(done.returncode, messages, json.loads(lines[-1]) if lines else {})


@pytest.mark.parametrize(
    ("name", "code"),
    [("SIGBUS", 149), ("SIGSEGV", 150), ("SIGXFSZ", 151), ("SIGXCPU", 154), ("SIGHUP", 156), ("SIGILL", 157)],
)
def test_a_fatal_signal_is_logged_counted_and_has_an_exit_code(
    name: str, code: int, tmp_path: "os.PathLike[str]"
) -> None:
    outcome = run(f"os.kill(os.getpid(), signal.{name})", tmp_path)
    assert outcome.code == code
    number = getattr(signal, name)
    assert outcome.messages == [f"Shutting down VM after intercepting signal {number}, code 0."]
    assert outcome.metrics["signals"][name.lower()] == 1
    assert sum(outcome.metrics["signals"].values()) == 1


def test_a_fault_in_native_code_has_the_kernels_code_and_the_same_end(tmp_path: "os.PathLike[str]") -> None:
    outcome = run("elsewhere(libc.strlen, 1)", tmp_path)
    assert outcome.code == 150
    assert outcome.messages == ["Shutting down VM after intercepting signal 11, code 1."]  # SEGV_MAPERR
    assert outcome.metrics["signals"]["sigsegv"] == 1


def test_a_file_that_shrinks_under_its_mapping_is_a_bus_error(tmp_path: "os.PathLike[str]") -> None:
    story = """
import mmap
with open("file", "wb+") as file:
    file.truncate(4096)
    mapping = mmap.mmap(file.fileno(), 4096)
    file.truncate(0)
elsewhere(libc.strlen, ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(mapping))))
"""
    outcome = run(story, tmp_path)
    assert outcome.code == 149
    assert outcome.messages == ["Shutting down VM after intercepting signal 7, code 2."]  # BUS_ADRERR


def test_a_fault_under_the_interpreter_lock_has_the_right_code_if_nothing_more(tmp_path: "os.PathLike[str]") -> None:
    outcome = run("elsewhere(ctypes.string_at, 1)", tmp_path)
    assert outcome.code == 150
    assert outcome.messages == []


def test_a_fault_on_the_loops_own_thread_has_the_right_code_if_nothing_more(tmp_path: "os.PathLike[str]") -> None:
    outcome = run("loop.call(lambda: libc.strlen(1))", tmp_path)
    assert outcome.code == 150


def test_a_sent_sigsys_is_unexpected(tmp_path: "os.PathLike[str]") -> None:
    outcome = run("os.kill(os.getpid(), signal.SIGSYS)", tmp_path)
    assert outcome.code == 2
    assert outcome.messages == ["Shutting down VM after intercepting signal 31, code 0."]
    assert outcome.metrics["seccomp"]["num_faults"] == 1


def test_a_system_call_that_seccomp_traps_is_named(tmp_path: "os.PathLike[str]") -> None:
    story = f"""
{TRAP}
def trapped():
    install([trapping(110)])
    libc.getppid()
elsewhere(trapped)
"""
    outcome = run(story, tmp_path)
    assert outcome.code == 148
    assert outcome.messages == [
        "Shutting down VM after intercepting signal 31, code 1.",
        "Shutting down VM after intercepting a bad syscall (110).",
    ]
    assert outcome.metrics["seccomp"]["num_faults"] == 1


def test_a_system_call_that_seccomp_traps_fails_and_the_process_ends_wherever_it_was_made(
    tmp_path: "os.PathLike[str]",
) -> None:
    story = f"""
{TRAP}
def trapped():
    install([trapping(110)])
    print(libc.getppid(), flush=True)
loop.call(trapped)
"""
    outcome = run(story, tmp_path)
    assert outcome.code == 148
    assert outcome.messages == [
        "-1",
        "Shutting down VM after intercepting signal 31, code 1.",
        "Shutting down VM after intercepting a bad syscall (110).",
    ]


def test_a_process_that_nobody_hears_any_more_ends_when_the_pipe_is_full(tmp_path: "os.PathLike[str]") -> None:
    story = f"""
{TRAP}
def trapped():
    install([trapping(110)])
    while True:
        libc.getppid()
loop.call(trapped)
"""
    outcome = run(story, tmp_path)
    assert outcome.code == 148
    assert outcome.messages == []


def test_what_fails_because_of_a_filter_is_told_as_a_trap(tmp_path: "os.PathLike[str]") -> None:
    story = f"""
{TRAP}
install([trapping(83)])
try:
    os.mkdir("folder")
finally:
    signals.answer()
"""
    outcome = run(story, tmp_path)
    assert outcome.code == 148
    assert outcome.messages[-1] == "Shutting down VM after intercepting a bad syscall (83)."


def test_a_broken_pipe_is_counted_and_survived(tmp_path: "os.PathLike[str]") -> None:
    story = """
read_end, write_end = os.pipe()
os.close(read_end)
try:
    os.write(write_end, b"anybody?")
except BrokenPipeError:
    print("nobody", flush=True)
loop.after(0.1, lambda: (metrics.flush(), loop.stop()))
"""
    outcome = run(story, tmp_path)
    assert outcome.code == 0
    assert outcome.messages == ["nobody", "Received signal 13, code 0."]
    assert outcome.metrics["signals"]["sigpipe"] == 1


@pytest.mark.parametrize("number", [34, 35])
def test_a_kick_does_no_harm(number: int, tmp_path: "os.PathLike[str]") -> None:
    outcome = run(f"os.kill(os.getpid(), {number}); loop.after(0.05, loop.stop)", tmp_path)
    assert outcome == (0, [], {})


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_signals_that_mean_stop_kill_without_a_word(name: str, tmp_path: "os.PathLike[str]") -> None:
    outcome = run(f"os.kill(os.getpid(), signal.{name})", tmp_path)
    assert outcome == (-getattr(signal, name), [], {})


def test_an_ignored_interrupt_stays_ignored(tmp_path: "os.PathLike[str]") -> None:
    story = """
if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.execv(sys.executable, sys.orig_argv)
os.kill(os.getpid(), signal.SIGINT)
loop.after(0.05, loop.stop)
"""
    assert run(story, tmp_path).code == 0


@pytest.mark.skipif(shutil.which("as") is None, reason="the assembler is not installed")
def test_the_machine_code_is_what_its_source_says(tmp_path: "os.PathLike[str]") -> None:
    file = os.path.join(tmp_path, "handler")
    subprocess.run(["as", "--64", "-o", f"{file}.o"], input=SOURCE, text=True, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", f"{file}.o", file], check=True)
    with open(file, "rb") as assembled:
        assert assembled.read() == CODE.ljust(PIPE_AT, b"\0")
    assert len(CODE) <= EXIT_CODES_AT == PIPE_AT - 32


def test_on_another_cpu_the_machine_code_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6.1", "", "aarch64")))
    with pytest.raises(OSError, match="Errno 8"):
        handle([signal.SIGUSR2], 1, {})
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
