"""The life of a process from its socket to its exit code; the engine is a fake one."""

import itertools
import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hibana.api.listen import listen
from hibana.bus.loop import Loop
from hibana.cli import flags, session
from hibana.cli.flags import Numbers
from hibana.cli.session import Session
from hibana.config.file import read_config
from hibana.engine.interface import SHUTDOWN, Bus
from hibana.errors import BuildFromJsonError, MetadataFileError, MetadataPanic, StoppedWithError
from hibana.observe.metrics_groups import METRICS
from hibana.sdk.machine import ApiError, Machine
from hibana.seccomp.filters import unfiltered
from hibana.testing.engine import FakeEngine, Step
from hibana.vmm import controller
from tests.unit.boot.images import ENTRY, Load, elf


class Stage:
    """Makes sessions whose guests are lists of steps."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.socket = str(folder / "socket")
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._sessions: list[Session] = []
        monkeypatch.setattr(session, "name_thread", self.names.append)

    def config(self, **parts: object) -> bytes:
        kernel = self._folder / "kernel"
        kernel.write_bytes(elf(Load(ENTRY, b"\xf4")))
        return json.dumps({"boot-source": {"kernel_image_path": str(kernel)}, "drives": []} | parts).encode()

    def session(
        self, guest: Iterable[Step] = (), api: bool = False, limit: int = 1000, numbers: Numbers | None = None
    ) -> Session:
        engine = FakeEngine(guest)
        self._monkeypatch.setattr(controller, "choose_engine", lambda name: engine)
        listener = listen(self.socket) if api else None
        self._sessions.append(
            Session(flags.parse([]), "fake", numbers or Numbers(1000, limit), unfiltered, Loop(), listener)
        )
        return self._sessions[-1]

    def close(self) -> None:
        """Close what a session that ends with an error leaves to the end of the process."""
        for each in self._sessions:
            if each._server and each._server._listener.fileno() >= 0:
                each._server.close()
            each._resources.close()
            each._loop.close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(tmp_path, monkeypatch)
    yield stage
    stage.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fc_vcpu")]


def reset(bus: Bus) -> None:
    bus.port_write(0x64, 1, 0xFE)


def messages(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [line.partition("] ")[2] for line in capfd.readouterr().out.splitlines()]


def test_a_file_makes_a_microvm_that_runs_until_its_guest_ends(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    stage.session([reset]).run(stage.config(), None)
    assert messages(capfd) == [
        "Successfully started microvm that was configured from one single json",
        "Vmm is stopping.",
        "Killing vCPU threads",
    ]


def test_the_process_is_called_what_clients_look_for(stage: Stage) -> None:
    stage.session()
    assert stage.names == ["firecracker"]


@pytest.mark.parametrize(
    ("api", "sentence"),
    [
        (True, "RunWithApiError error: MicroVM stopped with an error: GenericError"),
        (False, "RunWithoutApiError error: MicroVMStopped without an error: GenericError"),
    ],
)
def test_a_guest_that_cannot_go_on_is_the_processs_error(api: bool, sentence: str, stage: Stage) -> None:
    with pytest.raises(StoppedWithError) as stop:
        stage.session([SHUTDOWN], api=api).run(stage.config(), None)
    assert (str(stop.value), stop.value.exit_code) == (sentence, 1)


def test_requests_boot_a_microvm_and_hear_how_it_went(stage: Stage) -> None:
    heard: list[object] = []

    def client() -> None:
        machine = Machine(stage.socket)
        heard.append(machine.get_instance_info().state)
        try:
            machine.start_instance()
        except ApiError as error:
            heard.append(str(error))
        machine.put_boot_source(boot_source)
        machine.start_instance()
        heard.append("started")
        machine.close()

    boot_source = read_config(stage.config()).boot_source
    running = stage.session([reset], api=True)
    asking = threading.Thread(target=client)
    asking.start()
    running.run(None, None)
    asking.join()
    assert heard == [
        "Not started",
        "Start microvm error: Cannot start microvm without kernel configuration.",
        "started",
    ]


def test_who_connects_before_the_microvm_runs_is_answered_afterwards(stage: Stage) -> None:
    heard: list[object] = []

    def client() -> None:
        with Machine(stage.socket) as machine:
            heard.append(machine.get_instance_info().state)
            machine.send_ctrl_alt_del()

    def end_if_a_key_is_pressed(bus: Bus) -> None:
        if bus.port_read(0x64, 1) & 1:
            reset(bus)

    running = stage.session(itertools.repeat(end_if_a_key_is_pressed), api=True)
    asking = threading.Thread(target=client)
    asking.start()
    running.run(stage.config(), None)
    asking.join()
    assert heard == ["Running"]


def test_the_time_from_the_start_of_the_process_is_kept_if_there_is_an_api(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METRICS.api_server, "process_startup_time_us", 0)
    numbers = Numbers(1000, 1000, start_time_us=1)
    stage.session(numbers=numbers)
    assert METRICS.api_server.process_startup_time_us == 0
    stage.session(numbers=numbers, api=True)
    assert METRICS.api_server.process_startup_time_us > 0


# --- files that cannot be used ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api", "config", "sentence"),
    [
        (False, b"[", "RunWithoutApiError error: Failed to build MicroVM from Json: Configuration for VMM from one"),
        (True, b"[", "RunWithApiError error: Failed to build MicroVM from Json: Configuration for VMM from one"),
        (True, None, "RunWithApiError error: Failed to build MicroVM from Json: Could not Start MicroVM from one"),
    ],
)
def test_a_file_that_makes_no_microvm_ends_the_process(
    api: bool, config: bytes | None, sentence: str, stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    vsock: dict[str, Any] = {"vsock": {"guest_cid": 3, "uds_path": "v.sock"}}
    with pytest.raises(BuildFromJsonError) as failure:
        stage.session(api=api).run(config or stage.config(**vsock), None)
    assert str(failure.value).startswith(sentence)
    assert "Killing vCPU threads" not in messages(capfd)


def test_metadata_is_kept_with_a_microvm_and_without(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    stage.session([reset]).run(stage.config(), b'{"a": 1}')
    waiting = stage.session()
    waiting._loop.stop()
    waiting.run(None, b'{"a": 1}')
    assert waiting._store.get() == {"a": 1}
    assert messages(capfd)[-1] == "Successfully added metadata to mmds from file"


def test_metadata_that_cannot_be_used_ends_the_process(stage: Stage) -> None:
    with pytest.raises(MetadataPanic, match="MMDS error: metadata provided not valid json: Error"):
        stage.session().run(None, b"{")
    with pytest.raises(MetadataPanic, match="MMDS error: metadata provided not valid json: Error"):
        stage.session().run(stage.config(), b"{")
    with pytest.raises(MetadataFileError, match=r"Populating MMDS from file failed: The MMDS .* fit\.\.$"):
        stage.session(limit=3).run(None, b"[1,2,3]")
    with pytest.raises(BuildFromJsonError, match=r"MMDS error: The MMDS patch request doesn't fit\.$"):
        stage.session(limit=3).run(stage.config(), b"[1,2,3]")


# --- bugs -------------------------------------------------------------------------------------------------------------


def test_nothing_is_tidied_up_around_a_bug(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    """What has an unknown state is not to be trusted with an orderly end."""

    def broken() -> None:
        raise ZeroDivisionError

    running = stage.session()
    running._loop.call(broken)
    with pytest.raises(ZeroDivisionError):
        running.run(stage.config(), None)
    assert "Killing vCPU threads" not in messages(capfd)
    running._controller.close()
