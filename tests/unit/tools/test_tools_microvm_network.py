"""A microVM's network on this host: made, and gone without a trace; in a network namespace of its own."""

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.microvm import network
from tools.microvm.network import Network, NetworkError

CLONE_NEWNET = 0x40000000


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    """Enter a network namespace that no other test and no person sees, and leave it afterwards."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not shutil.which("ip"):
        pytest.skip("iproute2 is not installed")
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET):
        os.close(home)
        pytest.skip(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())} (run as root)")
    yield
    assert libc.setns(home, CLONE_NEWNET) == 0
    os.close(home)


@pytest.fixture(autouse=True)
def marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "marks"
    path.mkdir()
    monkeypatch.setattr(network, "_MARKS", path)
    return path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put an `nft` on the path that writes down how it was called."""
    path = tmp_path / "calls"
    program = tmp_path / "bin/nft"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >>{path}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return path


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def test_a_network_is_a_tap_with_an_address(calls: Path) -> None:
    before = interfaces()
    with Network() as made:
        assert interfaces() - before == {made.tap}
        shown = subprocess.run(["ip", "-br", "address", "show", made.tap], capture_output=True, text=True, check=True)
        assert "172.29.0.1/30" in shown.stdout
        assert made.cmdline.startswith("ip=172.29.0.2::172.29.0.1:255.255.255.252::eth0:off:")
        assert made.guest_mac == "06:00:ac:1d:00:02"
    assert interfaces() == before


def test_two_networks_share_nothing(calls: Path) -> None:
    with Network() as one, Network() as other:
        assert one.tap != other.tap
        assert one.guest_mac != other.guest_mac
        assert one.cmdline != other.cmdline


def test_a_network_goes_when_its_microvm_is_interrupted(calls: Path) -> None:
    before = interfaces()
    with pytest.raises(KeyboardInterrupt), Network():
        raise KeyboardInterrupt
    assert interfaces() == before
    assert calls.read_text().splitlines()[-1] == "delete table ip hibana_hib0"


def test_a_network_that_cannot_be_made_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    real = network._run

    def run(*command: str) -> None:
        if command[:2] == ("ip", "address"):
            raise NetworkError("no address today")
        real(*command)

    monkeypatch.setattr(network, "_run", run)
    before = interfaces()
    with pytest.raises(NetworkError, match="no address today"), Network():
        raise AssertionError("unreachable")
    assert interfaces() == before


def test_a_host_that_translates_no_addresses_still_gives_a_link(calls: Path) -> None:
    calls.parent.joinpath("bin/nft").write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    before = interfaces()
    with Network() as made:
        assert made.tap in interfaces()
        assert made.notes == ["the guest reaches this host, and nothing behind it: `nft add table ip hibana_hib0`: no"]
    assert interfaces() == before


def test_the_last_microvm_stops_the_forwarding_that_the_first_one_started(calls: Path) -> None:
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    forwarding.write_text("0")
    first = Network().__enter__()
    with Network():
        assert forwarding.read_text() == "1\n"
        first.__exit__(None, None, None)
        assert forwarding.read_text() == "1\n", "one is still there"
    assert forwarding.read_text() == "0\n"


def test_what_happens_in_another_namespace_is_of_no_concern(calls: Path) -> None:
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    forwarding.write_text("0")

    def elsewhere() -> None:
        assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
        with Network():
            pass

    with Network():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert forwarding.read_text() == "1\n"
    assert forwarding.read_text() == "0\n"


def test_forwarding_that_was_there_before_stays(calls: Path) -> None:
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    forwarding.write_text("1")
    with Network():
        pass
    assert forwarding.read_text() == "1\n"


def test_without_a_tool_for_it_there_is_no_way_out_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("nft", "iptables") else real(name))
    with Network() as made:
        assert made.notes == [
            "the guest reaches this host, and nothing behind it: neither nft nor iptables is installed"
        ]


def test_the_hosts_own_resolver_is_none_of_the_guests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(network, "_RESOLVERS", (first, second))
    first.write_text("# made by somebody\nnameserver 127.0.0.53\nnameserver ::1\nnameserver\n")
    assert network._resolver() == ""
    second.write_text("search example\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n")
    assert network._resolver() == "192.0.2.1"
