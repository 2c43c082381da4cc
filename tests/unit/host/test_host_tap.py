"""Tap interfaces: attaching, frames both ways, and what goes wrong; with real taps in a network of their own."""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from hibana.bus.home import Home
from hibana.bus.loop import Loop
from hibana.errors import TapHeaderError, TapOffloadError, TapOpenError
from hibana.host import tap as tap_module
from hibana.host.tap import TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ, Tap, open_tap

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
RTM_DELLINK = 17
IFF_UP = 1
ETH_P_ALL = 3
NOBODY = 65534
HEADER = bytes(12)
# To and from nobody, in a protocol for local experiments (0x88B5): the host's own stack leaves such frames alone.
FRAME = bytes.fromhex("020000000002 020000000001 88b5") + b"a spark " * 10


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    """Enter a network namespace that no other test and no person sees, and leave it afterwards."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not os.path.exists(tap_module.TUN_DEVICE):
        pytest.skip("there is no /dev/net/tun")
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET):
        os.close(home)
        pytest.skip(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())} (run as root)")
    yield
    assert libc.setns(home, CLONE_NEWNET) == 0
    os.close(home)


@pytest.fixture
def opened() -> Iterator[Callable[[str], int]]:
    fds: list[int] = []

    def open_one(name: str) -> int:
        fds.append(open_tap(name)[0])
        return fds[-1]

    yield open_one
    for fd in fds:
        os.close(fd)


@pytest.fixture
def fd(opened: Callable[[str], int]) -> int:
    fd = opened("hib0")
    with socket.socket() as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", b"hib0", IFF_UP))
    return fd


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def tap(fd: int, loop: Loop) -> Tap:
    return Tap(fd, Home(loop, post=lambda task: task()))


@pytest.fixture
def host_end(fd: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as host_end:
        host_end.bind(("hib0", ETH_P_ALL))
        host_end.settimeout(10)
        yield host_end


def delete_interface(name: str) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        message = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(name), 0, 0)
        flags_request_and_acknowledge = 5
        head = struct.pack("=IHHII", 16 + len(message), RTM_DELLINK, flags_request_and_acknowledge, 1, 0)
        netlink.send(head + message)
        assert struct.unpack_from("=i", netlink.recv(4096), 16) == (0,)


def arrived(tap: Tap) -> list[bytes]:
    """Read all frames of our protocol; the host announces itself on a new interface too."""
    buffer = bytearray(2048)
    frames = []
    while size := tap.receive([memoryview(buffer)]):
        frames.append(bytes(buffer[:size]))
    return [frame for frame in frames if frame[24:26] == FRAME[12:14]]


# --- attaching --------------------------------------------------------------------------------------------------------


def test_the_descriptor_never_blocks_and_is_not_inherited(fd: int) -> None:
    assert not os.get_blocking(fd)
    assert not os.get_inheritable(fd)


def test_the_kernel_completes_a_pattern(opened: Callable[[str], int]) -> None:
    opened("hib7")
    fd, name = open_tap("hib%d")
    os.close(fd)
    assert name == "hib0"


def test_a_name_of_sixteen_bytes_is_too_long(opened: Callable[[str], int]) -> None:
    opened("x" * 15)
    with pytest.raises(TapOpenError) as refused:
        open_tap("x" * 16)
    assert str(refused.value) == "Open tap device failed: Invalid interface name"


def refusal(name: str) -> str:
    with pytest.raises(TapOpenError) as refused:
        open_tap(name)
    return str(refused.value)


def sentence(name: str, cause: str) -> str:
    return (
        f"Open tap device failed: Error while creating ifreq structure: {cause}. Invalid TUN/TAP Backend provided by"
        f" {name}. Check our documentation on setting up the network devices."
    )


def test_a_tap_has_one_owner_at_a_time(opened: Callable[[str], int]) -> None:
    opened("hib0")
    assert refusal("hib0") == sentence("hib0", "Resource busy (os error 16)")


def test_another_kind_of_interface_is_refused() -> None:
    assert refusal("lo") == sentence("lo", "Invalid argument (os error 22)")


def test_without_privilege_no_interface_is_made() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setuid(NOBODY)
            open_tap("hib0")
        except TapOpenError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as said:
        answer = said.read()
    # Where the device node itself is closed to strangers, it ends there.
    assert answer in (
        sentence("hib0", "Operation not permitted (os error 1)"),
        "Open tap device failed: Couldn't open /dev/net/tun: Permission denied (os error 13)",
    )


def test_a_host_without_tun_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap_module, "TUN_DEVICE", "/dev/net/nothing")
    assert refusal("hib0") == (
        "Open tap device failed: Couldn't open /dev/net/tun: No such file or directory (os error 2)"
    )


def test_nothing_stays_open_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.ioctl

    def old_kernel(fd: int, request: int, argument: bytearray) -> object:
        if request == TUNSETVNETHDRSZ:
            raise OSError(errno.ENOTTY, "")
        return real(fd, request, argument)

    monkeypatch.setattr(fcntl, "ioctl", old_kernel)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(TapHeaderError) as refused:
        open_tap("hib0")
    assert str(refused.value) == (
        "Setting vnet header size failed: Error while setting size of the vnet header: Not a tty (os error 25)"
    )
    refusal("lo")
    assert os.listdir("/proc/self/fd") == before


def test_request_codes_are_the_kernels() -> None:
    # Printed by a C program that includes <linux/if_tun.h>.
    assert (TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ) == (0x400454CA, 0x400454D0, 0x400454D8)


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_frame_of_the_guest_reaches_the_host(tap: Tap, host_end: socket.socket) -> None:
    tap.send([memoryview(HEADER), memoryview(FRAME[:14]), memoryview(FRAME[14:])])
    while (frame := host_end.recv(2048))[12:14] != FRAME[12:14]:
        pass
    assert frame == FRAME


def test_a_frame_of_the_host_reaches_the_guest_behind_its_header(tap: Tap, host_end: socket.socket) -> None:
    host_end.send(FRAME)
    assert arrived(tap) == [HEADER + FRAME]


def test_a_frame_fills_the_room_in_order(tap: Tap, host_end: socket.socket) -> None:
    arrived(tap)
    host_end.send(FRAME)
    room = [bytearray(12), bytearray(6), bytearray(0), bytearray(100), bytearray(b"untouched")]
    while tap.receive([memoryview(part) for part in room]) != len(HEADER + FRAME):
        pass
    assert b"".join(room[:4]) == HEADER + FRAME + bytes(118 - len(HEADER + FRAME))
    assert room[4] == b"untouched"


def test_no_frame_is_zero_bytes(tap: Tap) -> None:
    arrived(tap)
    assert tap.receive([memoryview(bytearray(2048))]) == 0


def test_who_listens_is_called_while_frames_wait(tap: Tap, host_end: socket.socket, loop: Loop) -> None:
    frames: list[bytes] = []

    def take_one() -> None:
        buffer = bytearray(2048)
        size = tap.receive([memoryview(buffer)])
        frames.append(bytes(buffer[:size]))
        if frames.count(HEADER + FRAME) == 3:
            tap.ignore()
            loop.call(loop.stop)

    for _ in range(3):
        host_end.send(FRAME)
    tap.listen(take_one)
    loop.run()
    host_end.send(FRAME)
    loop.after(0.01, loop.stop)
    loop.run()
    assert frames.count(HEADER + FRAME) == 3


def test_who_has_ignored_the_tap_may_listen_again(tap: Tap, host_end: socket.socket, loop: Loop) -> None:
    tap.listen(lambda: None)
    tap.ignore()
    tap.listen(loop.stop)
    host_end.send(FRAME)
    loop.run()
    assert arrived(tap) == [HEADER + FRAME]


def test_a_frame_into_an_interface_that_is_down_is_an_error(opened: Callable[[str], int], loop: Loop) -> None:
    down = Tap(opened("hib0"), Home(loop, post=lambda task: task()))
    with pytest.raises(OSError, match="Input/output error"):
        down.send([memoryview(HEADER + FRAME)])


def test_a_deleted_interface_is_an_error_in_both_directions_and_is_reported(fd: int, tap: Tap, loop: Loop) -> None:
    delete_interface("hib0")
    with pytest.raises(OSError, match="File descriptor in bad state"):
        tap.receive([memoryview(bytearray(2048))])
    with pytest.raises(OSError, match="File descriptor in bad state"):
        tap.send([memoryview(HEADER + FRAME)])
    tap.listen(loop.stop)
    loop.run()


# --- offloads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "flags"),
    [
        ((False, False, False, False), 0),
        ((True, False, False, False), 0x01),
        ((True, True, False, False), 0x03),
        ((True, False, True, False), 0x05),
        ((True, True, True, True), 0x17),
    ],
)
def test_every_offload_has_its_flag(
    fd: int, tap: Tap, features: tuple[bool, bool, bool, bool], flags: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []
    real = fcntl.ioctl

    def ioctl(fd: int, request: int, argument: int) -> object:
        asked.append((fd, request, argument))
        return real(fd, request, argument)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    tap.set_offload(*features)
    assert asked == [(fd, TUNSETOFFLOAD, flags)]


def test_segments_without_checksums_are_refused_by_the_kernel(tap: Tap) -> None:
    with pytest.raises(TapOffloadError) as refused:
        tap.set_offload(csum=False, tso4=True, tso6=False, ufo=False)
    assert str(refused.value) == "Error while setting the offload flags: Invalid argument (os error 22)"
