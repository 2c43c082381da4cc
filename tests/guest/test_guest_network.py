"""A guest on a network: its card, its address, and every byte both ways."""

import ctypes
import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from hibana.config.net import NetworkInterfaceConfig, NetworkInterfaceUpdateConfig
from hibana.config.rate_limit import RateLimiterConfig, TokenBucketConfig
from hibana.units import MIB
from tests.guest.conftest import Boot
from tests.guest.microvm import PATIENCE, MicroVm
from tools.microvm.network import Network

CLONE_NEWNET = 0x40000000
HOST = "172.29.0.1"
CONTENT = os.urandom(MIB) * 8
DIGEST = hashlib.sha256(CONTENT).hexdigest()
RATE = 10_000_000 // 8
TEN_MBIT = RateLimiterConfig(bandwidth=TokenBucketConfig(size=RATE, refill_time=1000))


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    """Enter a network namespace that no other test and no person sees, and leave it afterwards."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not shutil.which("ip") or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs iproute2 and /dev/net/tun")
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET):
        os.close(home)
        pytest.skip(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())} (run as root)")
    yield
    assert libc.setns(home, CLONE_NEWNET) == 0
    os.close(home)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def vm(boot: Boot, network: Network) -> MicroVm:
    interface = NetworkInterfaceConfig("eth0", network.tap, network.guest_mac, mtu=1400)
    return boot(cmdline=network.cmdline, prepare=lambda api: api.put_network_interface(interface))


class Peer:
    """A server on the host for one connection, which sends all it has and keeps all it gets."""

    def __init__(self, content: bytes = b"") -> None:
        self._listener = socket.create_server((HOST, 0))
        self._listener.settimeout(PATIENCE)
        self._content = content
        self.received = bytearray()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Host and port, as busybox takes them."""
        return f"{HOST} {self._listener.getsockname()[1]}"

    def join(self) -> None:
        """Wait until the connection has ended."""
        self._thread.join(PATIENCE)

    def _serve(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            sender = threading.Thread(target=connection.sendall, args=(self._content,))
            sender.start()
            while piece := connection.recv(1 << 16):
                self.received += piece
            sender.join()


def test_the_card_has_the_address_and_the_mtu_it_was_given(vm: MicroVm, network: Network) -> None:
    assert vm.run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu").split() == [network.guest_mac, "1400"]
    assert vm.run("basename $(readlink /sys/class/net/eth0/device/driver)") == "virtio_net"


def test_a_ping_comes_back(vm: MicroVm) -> None:
    assert "3 packets received" in vm.run(f"ping -c 3 -i 0.2 {HOST}")


def test_every_byte_arrives_both_ways(vm: MicroVm) -> None:
    content = CONTENT * 8
    assert len(content) == 64 * MIB
    digest = hashlib.sha256(content).hexdigest()
    assert vm.run(f"nc {Peer(content).address} </dev/null | tee /tmp/got | sha256sum") == f"{digest}  -"
    back = Peer()
    vm.run(f"nc {back.address} </tmp/got")
    back.join()
    assert hashlib.sha256(back.received).hexdigest() == digest


@pytest.mark.parametrize("direction", ["into the guest", "out of the guest"])
def test_ten_megabits_per_second_are_ten(vm: MicroVm, direction: str) -> None:
    """A bucket holds a second; what goes beyond it takes its time. Only a busy host can make it take longer."""
    vm.api.patch_network_interface(NetworkInterfaceUpdateConfig("eth0", TEN_MBIT, TEN_MBIT))
    if direction == "out of the guest":
        vm.run(f"head -c {4 * RATE} /dev/urandom >/tmp/made")
    for _ in range(5):
        peer = Peer(CONTENT[: 4 * RATE] if direction == "into the guest" else b"")
        source = "/dev/null" if direction == "into the guest" else "/tmp/made"
        began = time.monotonic()
        vm.run(f"nc {peer.address} <{source} >/tmp/got")
        took = time.monotonic() - began
        assert took >= 3 * 0.9, "the limit is not obeyed"
        if took <= 3 * 1.1:
            return
        vm.run("sleep 1")  # until the bucket is full again
    pytest.fail(f"the limit is never reached: {took:.2f} s instead of 3")


def test_bytes_go_both_ways_at_once_and_survive_a_pause(vm: MicroVm) -> None:
    peer = Peer(CONTENT)
    vm.send(f"nc {peer.address} </bin/busybox >/tmp/got; sha256sum </tmp/got; sha256sum </bin/busybox; echo done\n")
    for _ in range(5):
        vm.api.pause_vm()
        vm.api.resume_vm()
    answer = vm.wait_for("done\n").split()
    peer.join()
    assert answer[0] == DIGEST
    assert answer[2] == hashlib.sha256(peer.received).hexdigest()


def test_a_limit_can_be_set_and_lifted_while_bytes_flow(vm: MicroVm) -> None:
    peer = Peer(CONTENT)
    vm.send(f"nc {peer.address} </dev/null | sha256sum; echo done\n")
    slow = RateLimiterConfig(ops=TokenBucketConfig(size=10, refill_time=100))
    free = RateLimiterConfig(ops=TokenBucketConfig(size=0, refill_time=0))
    for limiter in (slow, free):
        vm.api.patch_network_interface(NetworkInterfaceUpdateConfig("eth0", limiter, limiter))
    assert vm.wait_for("done\n").split()[0] == DIGEST


def test_a_card_whose_tap_was_deleted_leaves_the_guest_alone(vm: MicroVm, network: Network) -> None:
    subprocess.run(["ip", "link", "delete", network.tap], check=True)
    vm.run(f"ping -c 1 -W 1 {HOST}", exit_code=1)
    assert vm.is_running
