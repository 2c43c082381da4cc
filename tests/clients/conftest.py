"""The fixtures of the process tests: `start` and `jail`, which end what they started."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import pytest

from tests.clients.jail import JAILER, Jail, Room, remove_cgroups
from tests.clients.process import SOCKET, Vmm, config, program
from tests.clients.tiny_guests import kernel
from tests.privileges import missing_for_jails


class Start(Protocol):
    """Start a VMM in the test's folder.

    With a guest or a configuration it boots at once; `api` is the path of its socket. `program` replaces the program,
    `environment` adds to the environment; the rest goes to Popen.
    """

    def __call__(
        self,
        *options: str,
        guest: bytes | None = None,
        configuration: object = None,
        api: str | None = SOCKET,
        program: Sequence[str] | None = None,
        environment: dict[str, str] | None = None,
        **popen: Any,
    ) -> Vmm: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    vmms: list[Vmm] = []

    def start_one(
        *options: str,
        guest: bytes | None = None,
        configuration: object = None,
        api: str | None = SOCKET,
        program: Sequence[str] | None = None,
        environment: dict[str, str] | None = None,
        **popen: Any,
    ) -> Vmm:
        arguments = ["--no-api"] if api is None else ["--api-sock", api]
        if guest is not None:
            (tmp_path / "kernel").write_bytes(kernel(guest))
            configuration = configuration or config()
        if configuration is not None:
            (tmp_path / "vm.json").write_text(json.dumps(configuration))
            arguments += ["--config-file", "vm.json"]
        command = [*(program or default_program), *arguments, *options]
        vmms.append(Vmm(tmp_path, str(len(vmms)), command, environment or {}, **popen))
        return vmms[-1]

    default_program = program()
    yield start_one
    for vmm in vmms:
        vmm.stop()


class MakeJail:
    """Jail a VMM, in a room that may have been furnished before.

    With a guest it boots at once, without an API. `vmm` are words for the VMM; keyword arguments replace or add options
    of the jailer that have a value. `program` replaces the jailer.
    """

    def __init__(self, folder: Path, base: Path) -> None:
        # A user of its own, whom no other test that runs now can hurt.
        self.room = Room(folder, base, f"jail-{os.getpid()}", uid=100_000 + os.getpid())
        self.parent_cgroup = f"hibana-test-{os.getpid()}"
        self.running: list[Jail] = []

    def __call__(
        self,
        *options: str,
        guest: bytes | None = None,
        vmm: Sequence[str] = (),
        program: Sequence[str] = (str(JAILER),),
        environment: dict[str, str] | None = None,
        popen: dict[str, Any] | None = None,
        **changed: str,
    ) -> Jail:
        if guest is not None:
            self.room.furnish(guest)
            vmm = ["--no-api", "--config-file", "/vm.json", *vmm]
        command = self.room.command(*options, vmm=vmm, **changed)
        self.running.append(Jail(self.room, [*program, *command], environment or {}, **(popen or {})))
        return self.running[-1]


@pytest.fixture
def jail(tmp_path: Path) -> Iterator[MakeJail]:
    if reason := missing_for_jails():
        pytest.skip(reason)
    if not JAILER.exists():
        pytest.skip("build/bin/jailer is not there: run tools/devtool build")
    # pytest's own folders have names too long for a socket.
    with TemporaryDirectory(prefix="jails-") as base:
        jails = MakeJail(tmp_path, Path(base))
        yield jails
        for one in jails.running:
            one.stop()
        remove_cgroups(jails.parent_cgroup)
