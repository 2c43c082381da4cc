"""A VMM that has fallen into a stranger's hands, after its filters have been installed: what they try.

Imported by a VMM's process before anything else (see test_process_escape.py). `GET /version` then starts the play on
the thread of the loop; `GET /mmds` on the thread of the vCPU. The stranger has all of Python, any system call, the
process's memory and descriptors; they even silence the alarm, to have more than one try. Each line they write tells
which system call was trapped, or what they got.
"""

import ctypes
import mmap
import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from hibana.cli import signals
from hibana.vmm.running import Running

VICTIM: Final = int(os.environ["HIBANA_TEST_VICTIM"])
PREY: Final = os.environ["HIBANA_TEST_PREY"]
"""A file that somebody else needs, in a folder where new ones could be made."""

_ANYTHING: Final = ctypes.create_string_buffer(4096)
_SIGINFO: Final = struct.Struct("<iii12xi100x")
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> Callable[[], object]:
    def call() -> object:
        values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
        return _libc.syscall(ctypes.c_long(number), *values)

    return call


def _executable_memory() -> object:
    return mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_EXEC)


_EXECUTABLE: Final = 5  # PROT_READ | PROT_EXEC
_PAGE: Final = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
_PAGE_AT: Final = ctypes.addressof(ctypes.c_char.from_buffer(_PAGE))

ATTACKS: Final[dict[str, tuple[Callable[[], object], int]]] = {
    # What they try                             how                                             trapped: number
    # --- other programs
    "run a shell": (lambda: os.execv("/bin/sh", ["sh"]), 59),
    "run a shell by its descriptor": (_call(322, 0, b"", None, None, 0x1000), 322),
    "fork": (_call(57), 57),
    "vfork": (_call(58), 58),
    "fork as the C library does": (os.fork, 56),
    "start a thread": (_call(435, _ANYTHING, 88), 435),
    # --- files
    "read a file of the host": (lambda: os.open("/etc/passwd", os.O_RDONLY), 257),
    "read it by another call": (_call(2, b"/etc/passwd", 0), 2),
    "read it by a newer call": (_call(437, -100, b"/etc/passwd", _ANYTHING, 24), 437),
    "read another process's memory file": (lambda: os.open(f"/proc/{VICTIM}/mem", os.O_RDWR), 257),
    "make a file": (lambda: os.open(f"{PREY}.new", os.O_CREAT | os.O_WRONLY), 257),
    "overwrite a file": (lambda: os.open(PREY, os.O_WRONLY | os.O_TRUNC), 257),
    "delete a file": (lambda: os.unlink(PREY), 87),
    "rename a file": (lambda: os.rename(PREY, f"{PREY}.new"), 82),
    "link a file": (lambda: os.link(PREY, f"{PREY}.new"), 86),
    "link to a file": (lambda: os.symlink(PREY, f"{PREY}.new"), 88),
    "make a folder": (lambda: os.mkdir(f"{PREY}.new"), 83),
    "make a device": (_call(133, f"{PREY}.new".encode(), 0o060600, 0x800), 133),
    "shorten a file": (lambda: os.truncate(PREY, 0), 76),
    "open a file to all": (lambda: os.chmod(PREY, 0o777), 90),
    "give a file away": (lambda: os.chown(PREY, 1, 1), 92),
    "look into a folder": (_call(217, 0, _ANYTHING, 4096), 217),
    "look whether a file is there": (lambda: os.access(PREY, os.R_OK), 21),
    "leave the folder": (lambda: os.chdir("/"), 80),
    "map a file": (_call(9, 0, 4096, 1, 1, 0, 0), 9),
    # --- other processes
    "kill another process": (lambda: os.kill(VICTIM, signal.SIGKILL), 62),
    "kill it as one kills a thread": (_call(200, VICTIM, signal.SIGKILL), 200),
    "kill it by the call that we need ourselves": (_call(234, VICTIM, VICTIM, 35), 234),
    "kill it with a message": (_call(129, VICTIM, signal.SIGKILL, _ANYTHING), 129),
    "take hold of it": (_call(434, VICTIM, 0), 434),
    "trace it": (_call(101, 16, VICTIM, 0, 0), 101),
    "read its memory": (_call(310, VICTIM, _ANYTHING, 1, _ANYTHING, 1, 0), 310),
    "write its memory": (_call(311, VICTIM, _ANYTHING, 1, _ANYTHING, 1, 0), 311),
    "limit it": (_call(302, VICTIM, 0, _ANYTHING, None), 302),
    # --- the network, other machines
    "open an internet socket": (lambda: socket.socket(socket.AF_INET), 41),
    "open a unix socket": (lambda: socket.socket(socket.AF_UNIX), 41),
    "open a raw socket": (lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW), 41),
    "talk to the kernel's network": (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), 41),
    "talk to the host's virtual sockets": (lambda: socket.socket(socket.AF_VSOCK), 41),
    "make a pair of sockets": (socket.socketpair, 53),
    "connect": (_call(42, 0, _ANYTHING, 16), 42),
    "listen": (_call(50, 0, 1), 50),
    "send descriptors": (_call(46, 1, _ANYTHING, 0), 46),
    "make a network interface": (_call(16, 0, 0x400454CA, _ANYTHING), 16),
    "type on the terminal": (_call(16, 0, 0x5412, b"x"), 16),
    # --- more rights
    "become root": (_call(105, 0), 105),
    "take capabilities": (_call(126, _ANYTHING, _ANYTHING), 126),
    "mount": (_call(165, b"none", b"/mnt", b"tmpfs", 0, 0), 165),
    "unmount": (_call(166, b"/", 2), 166),
    "change the root folder": (lambda: os.chroot("/"), 161),
    "leave the namespaces": (_call(272, 0x20000), 272),
    "enter other namespaces": (_call(308, 0, 0), 308),
    "make a user namespace": (_call(56, 0x10000000, 0, 0, 0, 0), 56),
    # --- the kernel's large surfaces
    "make a ring": (_call(425, 1, _ANYTHING), 425),
    "open the ring's other uses": (_call(427, 0, 1, _ANYTHING, 1), 427),
    "load a BPF program": (_call(321, 5, _ANYTHING, 120), 321),
    "watch the processor": (_call(298, _ANYTHING, 0, -1, -1, 0), 298),
    "handle page faults": (_call(323, 0), 323),
    "load a module": (_call(313, 0, b"", 0), 313),
    "load a kernel": (_call(246, 0, 0, None, 0), 246),
    "use the key ring": (_call(250, 0, 0), 250),
    "make a memory file": (lambda: os.memfd_create("x"), 319),
    "share memory": (_call(29, 0, 4096, 0o1600), 29),
    "restart the machine": (_call(169, 0xFEE1DEAD, 672274793, 0x01234567, 0), 169),
    "set the clock": (_call(227, 0, _ANYTHING), 227),
    "touch ports": (_call(172, 3), 172),
    # --- new code, other filters
    "make executable memory": (_executable_memory, 9),
    "make memory executable": (_call(10, _PAGE_AT, 4096, _EXECUTABLE), 10),
    "make memory executable by key": (_call(329, _PAGE_AT, 4096, _EXECUTABLE, -1), 329),
    "become another personality": (_call(135, 0x0400000), 135),
    "add a filter": (_call(317, 1, 0, _ANYTHING), 317),
    "change the process": (_call(157, 4, 1, 0, 0, 0), 157),
}
"""The number is what the C library and Python of the test's own host make of it on x86-64."""

OTHER_NAMES: Final = {56: {56, 57, 435}}
"""System calls that some C libraries make instead."""


def play() -> None:
    """Try everything and say how it went."""
    lines = [f"{name}: {_outcome(attack)}" for name, (attack, _) in ATTACKS.items()]
    os.write(1, ("\n".join(["", *lines, "that was all"]) + "\n").encode())


def _outcome(attack: Callable[[], object]) -> str:
    try:
        result: object = attack()
    except Exception as error:
        result = error
    trapped: list[int] = []
    while True:
        try:
            record = os.read(signals._pipes[0], _SIGINFO.size)
        except BlockingIOError:
            return f"trapped {trapped[0]}" if trapped else f"got {result!r}"
        trapped.append(_SIGINFO.unpack(record)[3])


def _on_the_loop(running: Any) -> object:
    play()
    return {}


def _on_the_vcpu(running: Any) -> object:
    running._machine.threads[0].ask(play)
    return {}


Running.get_version = _on_the_loop  # type: ignore[assignment, method-assign]
Running.get_mmds = _on_the_vcpu  # type: ignore[assignment, method-assign]
signals._arrived = lambda siginfo: None
