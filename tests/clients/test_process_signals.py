"""What signals do to a process, before its microVM runs and while it does (api.md §8.2)."""

import json
import signal

import pytest

from tests.clients.conftest import Start
from tests.clients.process import Vmm
from tests.clients.tiny_guests import HALT, SPIN, TICK, say


@pytest.fixture(params=["not started", "halted", "busy"])
def vmm(request: pytest.FixtureRequest, start: Start) -> Vmm:
    """A process in each state in which a signal may find it."""
    if request.param == "not started":
        vmm = start("--metrics-path", "metrics")
        assert vmm.state == "Not started"
        return vmm
    vmm = start("--metrics-path", "metrics", guest=say("!") + (HALT if request.param == "halted" else SPIN))
    vmm.wait_for("!")
    assert vmm.state == "Running"
    return vmm


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGUSR1])
def test_what_means_stop_kills_by_the_signal_and_without_a_word(number: signal.Signals, vmm: Vmm) -> None:
    said = vmm.out
    vmm.process.send_signal(number)
    assert vmm.wait() == -number
    assert (vmm.out, vmm.err) == (said, "")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGHUP, 156), (signal.SIGSEGV, 150), (signal.SIGILL, 157), (signal.SIGXCPU, 154)],
)
def test_what_means_trouble_is_logged_counted_and_has_a_code(number: signal.Signals, code: int, vmm: Vmm) -> None:
    vmm.process.send_signal(number)
    assert vmm.wait() == code
    assert vmm.messages[-1] == f"Shutting down VM after intercepting signal {number}, code 0."
    last = json.loads((vmm.folder / "metrics").read_text().splitlines()[-1])
    assert last["signals"][number.name.lower()] == 1
    assert vmm.err == ""


@pytest.mark.parametrize("number", [34, 35])
def test_what_kicks_vcpus_does_no_harm(number: int, vmm: Vmm) -> None:
    state = vmm.state
    for _ in range(3):
        vmm.process.send_signal(number)
        assert vmm.state == state


def test_a_broken_pipe_is_counted_and_survived(vmm: Vmm) -> None:
    state = vmm.state
    vmm.process.send_signal(signal.SIGPIPE)
    vmm.wait_for("Received signal 13, code 0.")
    assert vmm.state == state


def test_a_guest_does_not_notice_the_kicks_of_others(start: Start) -> None:
    vmm = start("--log-path", "log", guest=TICK)
    vmm.wait_for(".")
    for _ in range(20):
        said = vmm.out
        vmm.process.send_signal(35)
        vmm.wait_for(f"{said}.")


def test_a_process_that_ignores_interrupts_passes_that_on(start: Start) -> None:
    """Shells start background jobs with SIGINT ignored."""
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        vmm = start()
    finally:
        signal.signal(signal.SIGINT, former)
    assert vmm.state == "Not started"
    vmm.process.send_signal(signal.SIGINT)
    assert vmm.state == "Not started"
