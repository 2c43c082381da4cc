"""The fixture of the process tests: `start`, which ends what it started."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.clients.process import SOCKET, Vmm, config, program
from tests.clients.tiny_guests import kernel


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
