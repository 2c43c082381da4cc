"""The vocabulary of the jail tests: real jails, with a real VMM inside, and everything they leave on the host.

A test says, with the fixture `jail`:

    vmm = jail(guest=say("ok") + RESET)
    assert vmm.wait() == 0
    assert "ok" in vmm.out
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hibana.errors import NoCgroupController, NoCgroupHierarchy
from hibana.jail import cgroup
from tests.clients.process import LAUNCHER, PATIENCE_S, ROOT, Vmm, config
from tests.clients.tiny_guests import kernel

JAILER: Final = ROOT / "build/bin/jailer"
SOCKET_IN_JAIL: Final = "run/firecracker.socket"
_POLL_S: Final = 0.005


class Jail(Vmm):
    """A jailed VMM. `folder` is the root of its jail; the jailer's own words are beside the jails' folder."""

    def __init__(self, room: "Room", command: Sequence[str], environment: dict[str, str], **popen: Any) -> None:
        super().__init__(room.beside, "jailer", command, environment, **popen)
        self.beside = room.beside
        self.folder = room.root
        self.speak_to(room.root / SOCKET_IN_JAIL)

    @property
    def is_over(self) -> bool:
        """Whether the VMM cannot be there; a jailer that ends well may have left it behind."""
        return self.process.poll() not in (None, 0)

    @property
    def pid(self) -> int:
        """The jailed process's number, from the file that clients read."""
        path = self.folder / "firecracker.pid"
        give_up = time.monotonic() + PATIENCE_S
        while not (path.exists() and path.read_text()):
            assert time.monotonic() < give_up, f"no pid file\n{self.out}{self.err}"
            time.sleep(_POLL_S)
        return int(path.read_text())

    def status(self, field: str) -> list[str]:
        """Look a field of /proc/PID/status up."""
        rows = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(row.split()[1:] for row in rows if row.startswith(f"{field}:"))

    def stop(self) -> None:
        """End the jailer, and the VMM if it has become another process."""
        super().stop()
        path = self.folder / "firecracker.pid"
        if path.exists() and (pid := path.read_text()) and _is_jailed(int(pid), self.folder):
            os.kill(int(pid), signal.SIGKILL)
            while _is_jailed(int(pid), self.folder):
                time.sleep(_POLL_S)


def _is_jailed(pid: int, root: Path) -> bool:
    """Tell whether a process is the one in a jail, and not a stranger who got its number."""
    try:
        return os.path.samefile(f"/proc/{pid}/root", root)
    except OSError:
        return False


class Room:
    """A jail before it is one: a folder that clients put files into."""

    def __init__(self, beside: Path, base: Path, name: str, uid: int) -> None:
        self.beside, self.base, self.name, self.uid = beside, base, name, uid
        self.root = self.base / "firecracker" / name / "root"
        self.root.mkdir(parents=True)

    def command(self, *options: str, vmm: Sequence[str] = (), **changed: str) -> list[str]:
        """Write the jailer's command line; `changed` replaces or adds options with values."""
        values = {
            "id": self.name, "exec-file": str(LAUNCHER), "uid": str(self.uid), "gid": str(self.uid),
            "chroot-base-dir": str(self.base),
        } | {name.replace("_", "-"): value for name, value in changed.items()}  # fmt: skip
        words = [word for name, value in values.items() for word in (f"--{name}", value)]
        return [*words, *options, "--", *vmm]

    def furnish(self, guest: bytes, **parts: object) -> None:
        """Put a kernel and a configuration file into the room."""
        self.put("kernel", kernel(guest))
        self.put("vm.json", json.dumps(config("/kernel", **parts)).encode())

    def put(self, name: str, content: bytes = b"") -> Path:
        """Put a file into the room that the VMM may write."""
        path = self.root / name
        path.write_bytes(content)
        os.chown(path, self.uid, self.uid)
        return path


@contextmanager
def network_namespace() -> Iterator[str]:
    """Make a network namespace that reaches nobody; give the file that stands for it."""
    with subprocess.Popen(["unshare", "--net", "sleep", "1000"]) as holder:
        try:
            path = f"/proc/{holder.pid}/ns/net"
            while os.stat(path).st_ino == os.stat("/proc/self/ns/net").st_ino:
                assert holder.poll() is None, "unshare --net does not work"
                time.sleep(_POLL_S)
            yield path
        finally:
            holder.kill()


def mount_of(version: int, controller: str) -> Path | None:
    """Find where a controller's cgroups of a version are on this machine, if they can be written."""
    try:
        values = cgroup.parse([f"{controller}.x=1"])
        path = Path(cgroup.plan(version, values, "", "").mount_of[controller])
    except (NoCgroupHierarchy, NoCgroupController):
        return None
    return path if os.access(path, os.W_OK) else None


def remove_cgroups(parent: str) -> None:
    """Remove the cgroups that the jailer has left, as operators do."""
    for version in (1, 2):
        try:
            mounts = cgroup.hierarchies(version)
        except NoCgroupHierarchy:
            continue
        for mount in mounts:
            top = Path(mount.folder) / parent
            for folder in sorted([*top.glob("*/"), top], reverse=True):
                _remove_cgroup(folder)


def _remove_cgroup(folder: Path) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:  # a process that has ended leaves its cgroup a moment later
            assert time.monotonic() < give_up, f"{folder} cannot be removed"
            time.sleep(_POLL_S)
