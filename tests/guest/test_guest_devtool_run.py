"""`tools/devtool run`, as a person or a script uses it."""

import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest

from tests.guest.microvm import PATIENCE
from tools.dev import places

DEVTOOL = str(places.ROOT / "tools/devtool")


def run(engine: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [DEVTOOL, "run", "--engine", engine, *arguments]
    return subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)


def test_without_a_terminal_it_prints_what_was_booted_and_powers_off(engine: str) -> None:
    done = run(engine, "--vcpus", "2", "--mem", "256")
    assert done.returncode == 0
    report = done.stdout.decode()
    assert report.startswith("Linux hibana 6.1.")
    assert "CPU: 2 x " in report
    assert re.search(rf"^{engine} engine; from start to power-off: \d+\.\d\d s$", report, re.MULTILINE)


def test_the_exit_code_and_the_output_of_a_command_are_its_own(engine: str) -> None:
    done = run(engine, "--", "sh", "-c", "printf 'a\\tb\\r\\n'; echo 'c d'; exit 7")
    assert (done.returncode, done.stdout) == (7, b"a\tb\r\nc d\n")


def test_a_debian_computes(engine: str) -> None:
    done = run(engine, "--rootfs", "--", "python3", "-c", "print(6*7)")
    assert (done.returncode, done.stdout) == (0, b"42\n")


def test_a_network_is_there_for_the_guest_and_gone_afterwards(engine: str) -> None:
    if subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode:
        pytest.skip("cannot make a network namespace (run as root)")
    ping = f"{DEVTOOL} run --engine {engine} --net -- sh -c 'ping -c 1 172.29.0.1 | grep received'"
    mark = "hibana-ip-forward-$(stat -Lc %i /proc/self/ns/net)"
    left = f"ls /sys/class/net; cat /proc/sys/net/ipv4/ip_forward; ls /run | grep -c {mark}"
    script = f"mount -t sysfs sys /sys && {ping}; {left}"
    done = subprocess.run(["unshare", "--net", "--mount", "sh", "-c", script], check=False, capture_output=True)
    pinged, *afterwards = done.stdout.decode().splitlines()
    assert "1 packets received" in pinged, done.stderr
    assert afterwards == ["lo", "0", "0"]


def test_a_guest_that_dies_is_a_failure(engine: str) -> None:
    done = run(engine, "--", "sh", "-c", "echo c >/proc/sysrq-trigger")
    assert done.returncode == 1
    assert b"the guest ended without an exit code" in done.stderr


class Person:
    """Somebody at a terminal."""

    def __init__(self, *command: str) -> None:
        self.terminal, there = pty.openpty()
        self.before = termios.tcgetattr(there)
        self.there = there
        self.process = subprocess.Popen(command, stdin=there, stdout=there, stderr=there)
        self._seen = ""

    def read_until(self, text: str) -> str:
        give_up = time.monotonic() + PATIENCE
        while text not in self._seen:
            ready, _, _ = select.select([self.terminal], [], [], max(0, give_up - time.monotonic()))
            assert ready, f"no {text!r} in {self._seen!r}"
            self._seen += os.read(self.terminal, 4096).decode(errors="replace")
        read, _, self._seen = self._seen.partition(text)
        return read

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())


@pytest.fixture
def person(engine: str) -> Iterator[Person]:
    person = Person(DEVTOOL, "run", "--engine", engine)
    yield person
    person.process.kill()
    person.process.wait()
    os.close(person.terminal)
    os.close(person.there)


def test_a_person_gets_a_shell_and_leaves_with_ctrl_a_x(person: Person) -> None:
    person.read_until("hibana:/# ")
    person.type("echo $((6 * 7)) on $(tty)\r")
    person.read_until("\r\n42 on /dev/ttyS0\r\n")
    person.type("\x01x")
    assert person.process.wait(PATIENCE) == 0
    assert termios.tcgetattr(person.there) == person.before


def test_the_shells_exit_code_is_ours(person: Person) -> None:
    person.read_until("hibana:/# ")
    person.type("exit 3\r")
    assert person.process.wait(PATIENCE) == 3
    assert termios.tcgetattr(person.there) == person.before
