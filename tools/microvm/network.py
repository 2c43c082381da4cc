"""A network for one microVM on this host: a tap with an address, a way out if there can be one, and afterwards nothing.

Needs root. The guest's side of the link is told on its kernel command line, as `ip=` (our /init understands it, and so
does any kernel with IP_PNP).
"""

import ipaddress
import os
import re
import shutil
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

GUEST_DEVICE: Final = "eth0"
_PREFIX: Final = "hib"
_TAP: Final = re.compile(_PREFIX + "[0-9]+")
_LINKS: Final = ipaddress.IPv4Network("172.29.0.0/20")
"""Divided into links of four addresses, one for each microVM at a time."""
_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
_MARKS: Final = Path("/run")
_RESOLVERS: Final = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


class NetworkError(Exception):
    """The host does not let us make a network; the text says why."""


class Network:
    """A tap interface, made on entry and removed on exit, however that comes about."""

    def __init__(self) -> None:
        self.tap = ""
        self.notes: list[str] = []
        """What the guest will not be able to do, and why."""
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        if os.geteuid():
            raise NetworkError("making a tap interface needs root")
        try:
            self._make_tap()
            try:
                self._open_way_out()
            except (NetworkError, OSError) as error:
                self.notes.append(f"the guest reaches this host, and nothing behind it: {error}")
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    @property
    def guest_mac(self) -> str:
        """An address that no other microVM of this host has."""
        return "06:00:" + self._guest.packed.hex(":")

    @property
    def cmdline(self) -> str:
        """The guest's address, gateway, netmask, device and resolver for its kernel command line."""
        return f"ip={self._guest}::{self._host}:{self._link.netmask}::{GUEST_DEVICE}:off:{_resolver()}"

    def _make_tap(self) -> None:
        for number, link in enumerate(_LINKS.subnets(new_prefix=30)):
            name = f"{_PREFIX}{number}"
            if name in _interfaces():
                continue
            try:
                _run("ip", "tuntap", "add", "dev", name, "mode", "tap")
            except NetworkError:
                if name in _interfaces():  # somebody else was faster
                    continue
                raise
            self.tap = name
            self._link = link
            self._host, self._guest = link.hosts()
            self._undo.callback(_stop_forwarding)  # when the tap is gone
            self._undo.callback(_try, "ip", "link", "delete", name)
            _run("ip", "address", "add", f"{self._host}/{link.prefixlen}", "dev", name)
            _run("ip", "link", "set", name, "up")
            return
        raise NetworkError(f"all links in {_LINKS} are taken")

    def _open_way_out(self) -> None:
        """Let the guest reach what the host reaches, behind the host's address. Raises NetworkError, OSError."""
        if shutil.which("nft"):
            table = ("ip", f"hibana_{self.tap}")
            chain = "{ type nat hook postrouting priority 100; }"
            self._undo.callback(_try, "nft", "delete", "table", *table)
            _run("nft", "add", "table", *table)
            _run("nft", "add", "chain", *table, "postrouting", chain)
            _run("nft", "add", "rule", *table, "postrouting", "ip", "saddr", str(self._link), "masquerade")
        elif shutil.which("iptables"):
            rule = ("POSTROUTING", "-s", str(self._link), "!", "-o", self.tap, "-j", "MASQUERADE")
            self._undo.callback(_try, "iptables", "-w", "-t", "nat", "-D", *rule)
            _run("iptables", "-w", "-t", "nat", "-A", *rule)
        else:
            raise NetworkError("neither nft nor iptables is installed")
        if _FORWARDING.read_text().strip() != "1":
            _forwarding_is_ours().touch()
            _FORWARDING.write_text("1")


def _interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def _resolver() -> str:
    """Find a name server that a guest can reach, too; empty if the host has none but itself."""
    for path in _RESOLVERS:
        if path.exists():
            for line in path.read_text().splitlines():
                with suppress(ValueError, IndexError):
                    keyword, address, *_ = line.split()
                    if keyword == "nameserver" and not ipaddress.IPv4Address(address).is_loopback:
                        return address
    return ""


def _forwarding_is_ours() -> Path:
    """Name the file that exists while this network namespace forwards only because of us."""
    return _MARKS / f"hibana-ip-forward-{os.stat('/proc/thread-self/ns/net').st_ino}"


def _stop_forwarding() -> None:
    """Stop it if it was us who started it, and nobody of us is left."""
    mark = _forwarding_is_ours()
    if mark.exists() and not any(_TAP.fullmatch(name) for name in _interfaces()):
        _FORWARDING.write_text("0")
        mark.unlink()


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise NetworkError(f"{command[0]} is not installed") from None
    if done.returncode:
        raise NetworkError(f"`{' '.join(command)}`: {done.stderr.strip()}")


def _try(*command: str) -> None:
    """Remove what may be gone already, or never was."""
    with suppress(NetworkError):
        _run(*command)
