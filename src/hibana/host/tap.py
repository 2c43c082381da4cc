"""Tap interfaces: a network card of the host whose cable ends in this process (Documentation/networking/tuntap.rst).

Whoever runs the VMM makes the interface, gives it addresses and connects it with a bridge or a route; we only attach to
it by name. A name that does not exist yet makes a new interface, if the kernel lets us; it goes when we do.
"""

import fcntl
import os
from collections.abc import Callable
from functools import partial
from struct import Struct
from typing import Final

from hibana.bus.home import Home
from hibana.errors import (
    CreateTapError,
    InvalidTapName,
    TapHeaderError,
    TapHeaderSizeError,
    TapOffloadError,
    TapOpenError,
    TunUnavailable,
    VmmError,
    os_text,
)

TUN_DEVICE: Final = "/dev/net/tun"
NAME_SIZE: Final = 16
"""IFNAMSIZ, with the final NUL."""
HEADER_SIZE: Final = 12
"""Bytes of the vnet header before each frame, both ways (virtio 1.2 §5.1.6)."""

IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000

TUN_F_CSUM: Final = 0x01
TUN_F_TSO4: Final = 0x02
TUN_F_TSO6: Final = 0x04
TUN_F_UFO: Final = 0x10

_IFREQ: Final = Struct("16sH22x")  # struct ifreq: ifr_name, ifr_flags; a union of 24 bytes
_INT: Final = Struct("i")


def _iow_int(number: int) -> int:
    """Compute the request code of an ioctl of the tun driver that takes an int."""
    return 1 << 30 | _INT.size << 16 | ord("T") << 8 | number


TUNSETIFF: Final = _iow_int(202)
TUNSETOFFLOAD: Final = _iow_int(208)
TUNSETVNETHDRSZ: Final = _iow_int(216)


def open_tap(name: str) -> tuple[int, str]:
    """Attach to the tap interface `name`; give a non-blocking descriptor and the interface's name.

    The two names differ for a pattern like `tap%d`, of which the kernel makes the first free name. Raises TapOpenError,
    TapHeaderError.
    """
    try:
        fd = _open_tun()
    except VmmError as error:
        raise TapOpenError(cause=error) from error
    try:
        return fd, _attach(fd, name)
    except VmmError:
        os.close(fd)
        raise


def _open_tun() -> int:
    try:
        return os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise TunUnavailable(cause=os_text(error)) from error


def _attach(fd: int, name: str) -> str:
    wanted = name.encode()
    if len(wanted) >= NAME_SIZE:
        raise TapOpenError(cause=InvalidTapName())
    request = bytearray(_IFREQ.pack(wanted, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    try:
        fcntl.ioctl(fd, TUNSETIFF, request)
    except OSError as error:
        raise TapOpenError(cause=CreateTapError(cause=os_text(error), name=name)) from error
    try:
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, _INT.pack(HEADER_SIZE))
    except OSError as error:
        raise TapHeaderError(cause=TapHeaderSizeError(cause=os_text(error))) from error
    given: bytes = _IFREQ.unpack(request)[0]
    return given.partition(b"\0")[0].decode()


class Tap:
    """Frames of an open tap (fulfils `devices.virtio.net.Frames`)."""

    def __init__(self, fd: int, home: Home) -> None:
        """Use a descriptor of `open_tap`, which stays the caller's, on the thread where devices live."""
        self._fd = fd
        self._home = home
        # Not a method: a frame then costs one call less.
        self.send = partial(os.writev, fd)

    def receive(self, room: list[memoryview]) -> int:
        """Read one frame into `room` and give its size; 0 when there is none now. Raises OSError."""
        try:
            return os.readv(self._fd, room)
        except BlockingIOError:
            return 0

    def set_offload(self, csum: bool, tso4: bool, tso6: bool, ufo: bool) -> None:
        """Say which unfinished frames may come: without checksum, or not cut to the MTU. Raises TapOffloadError."""
        flags = csum * TUN_F_CSUM | tso4 * TUN_F_TSO4 | tso6 * TUN_F_TSO6 | ufo * TUN_F_UFO
        try:
            fcntl.ioctl(self._fd, TUNSETOFFLOAD, flags)
        except OSError as error:
            raise TapOffloadError(cause=os_text(error)) from error

    def listen(self, handler: Callable[[], None]) -> None:
        """Call `handler` whenever frames wait, until `ignore`."""
        self._home.watch(self._fd, handler)

    def ignore(self) -> None:
        """Stop calling the handler."""
        self._home.forget(self._fd)
