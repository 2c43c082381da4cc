"""A pseudo terminal plays the user's, a child process the VMM; what counts is how the terminal looks afterwards."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import Any

import pytest

PRELUDE = """
import os, resource, signal, sys, threading
from hibana.bus.loop import Loop
from hibana.host.terminal import Terminal
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
signal.signal(signal.SIGINT, signal.SIG_DFL)

def ready():
    os.write(2, b"ready\\n")
    os.read(3, 1)

"""


class Screen:
    """The user's terminal: we keep the shell's descriptor, the VMM inherits it."""

    def __init__(self) -> None:
        self._keyboard, self.fd = os.openpty()
        self.before = self.look()

    def look(self) -> tuple[list[Any], int]:
        """Give the modes of the terminal and the flags of the open file that everybody on it shares."""
        return termios.tcgetattr(self.fd), fcntl.fcntl(self.fd, fcntl.F_GETFL)

    def run(self, script: str, stdin: int | None = None, stdout: int | None = None) -> "Vmm":
        return Vmm(script, self.fd if stdin is None else stdin, self.fd if stdout is None else stdout)

    def close(self) -> None:
        os.close(self._keyboard)
        os.close(self.fd)


class Vmm:
    """A child that takes the terminal, says `ready`, waits for `go_on`, and ends in some way."""

    def __init__(self, script: str, stdin: int, stdout: int) -> None:
        go_reader, self._go_writer = os.pipe()
        os.set_inheritable(go_reader, True)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import os; os.dup2({go_reader}, 3)\n" + PRELUDE + script],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            pass_fds=(go_reader,),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        os.close(go_reader)
        assert self._process.stderr is not None
        self._stderr = self._process.stderr
        said = self._stderr.readline()
        assert said == b"ready\n", said + self._stderr.read()

    def kill(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def go_on(self) -> None:
        os.write(self._go_writer, b"g")

    def wait(self) -> int:
        self._stderr.read()
        self._stderr.close()
        os.close(self._go_writer)
        return self._process.wait()


@pytest.fixture
def screen() -> Iterator[Screen]:
    screen = Screen()
    yield screen
    screen.close()


def test_while_the_guest_runs_keys_arrive_as_typed_and_output_does_not_block(screen: Screen) -> None:
    vmm = screen.run("Terminal().take(); ready()")
    modes, flags = screen.look()
    assert modes[3] & (termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN) == 0
    assert modes[0] & (termios.ICRNL | termios.IXON) == 0
    assert modes[1] & termios.OPOST, "log lines on the same terminal end in a bare newline"
    assert flags & os.O_NONBLOCK
    vmm.go_on()
    assert vmm.wait() == 0
    assert screen.look() == screen.before


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        ("sys.exit(148)", 148),
        ("raise ZeroDivisionError", 1),
        ("terminal.give_back(); os._exit(156)", 156),
        ("terminal.give_back(); terminal.give_back()", 0),
        ("terminal.give_back(); terminal.take()", 0),
    ],
    ids=["end of main", "exit code", "uncaught exception", "os._exit", "given back twice", "taken twice"],
)
def test_every_orderly_way_out_puts_the_terminal_back(screen: Screen, ending: str, code: int) -> None:
    vmm = screen.run(f"terminal = Terminal(); terminal.take(); ready()\n{ending}")
    assert screen.look() != screen.before
    vmm.go_on()
    assert vmm.wait() == code
    assert screen.look() == screen.before


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGABRT, signal.SIGUSR1]
)
def test_a_deadly_signal_puts_the_terminal_back_and_still_kills(screen: Screen, number: signal.Signals) -> None:
    vmm = screen.run("Terminal().take(); ready()")
    assert screen.look() != screen.before
    vmm.kill(number)
    assert vmm.wait() == -number
    assert screen.look() == screen.before


def test_sigterm_kills_while_the_loop_waits_and_another_thread_is_busy(screen: Screen) -> None:
    script = """
def guest():
    while True:
        pass

Terminal().take()
loop = Loop()
threading.Thread(target=guest, daemon=True).start()
loop.call(lambda: os.write(2, b"ready\\n"))
loop.run()
"""
    vmm = screen.run(script)
    vmm.kill(signal.SIGTERM)
    assert vmm.wait() == -signal.SIGTERM
    assert screen.look() == screen.before


def test_a_handler_somebody_else_installed_stays(screen: Screen) -> None:
    script = """
terminal = Terminal()
signal.signal(signal.SIGHUP, lambda number, frame: (terminal.give_back(), os._exit(156)))
terminal.take()
ready()
"""
    vmm = screen.run(script)
    vmm.kill(signal.SIGHUP)
    assert vmm.wait() == 156
    assert screen.look() == screen.before


def test_after_giving_back_signals_have_their_default_action_again(screen: Screen) -> None:
    script = """
terminal = Terminal()
terminal.take()
terminal.give_back()
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
ready()
"""
    vmm = screen.run(script)
    vmm.kill(signal.SIGTERM)
    assert vmm.wait() == -signal.SIGTERM


def test_output_to_the_terminal_is_put_back_even_if_input_comes_from_elsewhere(screen: Screen) -> None:
    vmm = screen.run("Terminal().take(); ready()", stdin=subprocess.DEVNULL)
    modes, flags = screen.look()
    assert (modes, flags & os.O_NONBLOCK) == (screen.before[0], os.O_NONBLOCK)
    vmm.kill(signal.SIGTERM)
    assert vmm.wait() == -signal.SIGTERM
    assert screen.look() == screen.before


def test_without_a_terminal_no_signal_is_handled(screen: Screen) -> None:
    reader, writer = os.pipe()
    script = """
Terminal().take()
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
ready()
"""
    vmm = screen.run(script, stdin=subprocess.DEVNULL, stdout=writer)
    assert fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK
    vmm.go_on()
    assert vmm.wait() == 0
    assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK
    os.close(reader)
    os.close(writer)


def test_a_terminal_that_was_hung_up_is_no_reason_to_fail(screen: Screen) -> None:
    script = """
keyboard, fd = os.openpty()
terminal = Terminal(fd, 1)
terminal.take()
os.close(keyboard)
ready()
terminal.give_back()
"""
    vmm = screen.run(script, stdin=subprocess.DEVNULL)
    vmm.go_on()
    assert vmm.wait() == 0


SHELL = """
import fcntl, termios
from hibana.host.terminal import in_foreground

fcntl.ioctl(0, termios.TIOCSCTTY, 0)      # we are the shell: the terminal controls our session
signal.signal(signal.SIGTTOU, signal.SIG_IGN)

def start_job(body, foreground):
    job_reader, shell_writer = os.pipe()
    shell_reader, job_writer = os.pipe()
    job = os.fork()
    if job == 0:
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.read(job_reader, 1)
        body(lambda: (os.write(job_writer, b"x"), os.read(job_reader, 1)))
        os._exit(7)
    os.setpgid(job, job)
    if foreground:
        os.tcsetpgrp(0, job)
    os.write(shell_writer, b"x")
    return job, lambda: os.read(shell_reader, 1), lambda: os.write(shell_writer, b"x")

def end_of(job):
    _, status = os.waitpid(job, os.WUNTRACED)
    assert not os.WIFSTOPPED(status), "stopped for touching the terminal"
    assert os.waitstatus_to_exitcode(status) == 7
"""

STARTED_IN_BACKGROUND = """
def body(meet):
    assert not in_foreground(0)
    Terminal().take()

job, _, _ = start_job(body, foreground=False)
end_of(job)
ready()
"""

PUT_INTO_BACKGROUND = """
modes = termios.tcgetattr(0)

def body(meet):
    terminal = Terminal()
    terminal.take()
    meet()
    terminal.give_back()

job, wait_for_job, let_job_go_on = start_job(body, foreground=True)
wait_for_job()
assert termios.tcgetattr(0) != modes
os.tcsetpgrp(0, os.getpgrp())
modes[6][termios.VINTR] = b"\\x05"         # the shell has the terminal again, and sets it as it likes
termios.tcsetattr(0, termios.TCSANOW, modes)
let_job_go_on()
end_of(job)
assert termios.tcgetattr(0) == modes, "the shell's settings were overwritten"
ready()
"""


def test_a_vmm_started_in_the_background_leaves_the_terminal_to_the_shell(screen: Screen) -> None:
    vmm = screen.run(SHELL + STARTED_IN_BACKGROUND)
    assert screen.look()[0] == screen.before[0]
    vmm.go_on()
    assert vmm.wait() == 0


def test_a_vmm_that_ends_in_the_background_does_not_undo_what_the_shell_has_set(screen: Screen) -> None:
    vmm = screen.run(SHELL + PUT_INTO_BACKGROUND)
    vmm.go_on()
    assert vmm.wait() == 0
