"""The life of a VMM process from its API socket to its exit code."""

import gc
from _socket import socket as RawSocket  # noqa: N812  what listen() gives
from typing import Final

from hibana.api.routes import Dispatcher
from hibana.api.server import Server
from hibana.bus.loop import Loop
from hibana.cli.flags import Numbers, Options
from hibana.config import file
from hibana.config.resources import Resources
from hibana.devices.mmds.store import Store
from hibana.errors import (
    BuildFromJsonError,
    ConfigFileStartError,
    Fatal,
    InvalidMetadata,
    MetadataFileError,
    MetadataPanic,
    StoppedWithError,
    VmmError,
    VmmFilterError,
    VmmFilterRunError,
)
from hibana.host.tap import open_tap
from hibana.observe import log, metrics
from hibana.seccomp.filters import Choice
from hibana.vmm.controller import Circumstances, Controller
from hibana.vmm.vcpu_thread import name_thread

# What a launcher in build/bin is called by itself, but `python -m` and `python -c` are not.
_PROCESS_NAME: Final = "firecracker"


def _try_async(fd: int) -> None:
    from hibana.host.disk_uring import try_ring  # nobody else needs it before the start

    try_ring(fd)


class Session:
    """One process: a loop, perhaps an API server, and a microVM that comes through the one or from a file."""

    def __init__(
        self, options: Options, engine: str, numbers: Numbers, filters: Choice, loop: Loop, listener: RawSocket | None
    ) -> None:
        """Put the parts together and begin to listen; nothing is answered before `run`."""
        name_thread(_PROCESS_NAME)
        circumstances = Circumstances(engine, options.boot_timer, filters)
        self._resources = Resources(open_tap, _try_async)
        self._store = Store(numbers.mmds_size_limit)
        self._loop = loop
        self._controller = Controller(circumstances, self._resources, self._store, self._loop)
        self._mode = "RunWithApi" if listener else "RunWithoutApi"
        self._server: Server | None = None
        if listener:
            self._server = Server(listener, self._loop, Dispatcher(self._controller).handle, numbers.max_payload)
            self._server.start()
            metrics.record_startup(numbers.start_time_us, numbers.start_time_cpu_us, numbers.parent_cpu_time_us)

    def run(self, config: bytes | None, metadata: bytes | None) -> None:
        """Apply the files, then serve until the microVM ends. Raises VmmError if it does not end well.

        What an error leaves open the process takes with it: nothing is tidied up around a bug.
        """
        try:
            self._apply(config, metadata)
            gc.freeze()  # what is there now stays to the end, and need not be looked at again
            gc.enable()
            self._loop.run()
        except VmmFilterError as error:
            raise VmmFilterRunError(mode=self._mode, cause=error) from error
        self._controller.close()
        if self._server:
            self._server.close()
        if self._controller.exit_code:
            words = "MicroVM stopped with" if self._server else "MicroVMStopped without"
            raise StoppedWithError(mode=self._mode, words=words)

    def _apply(self, config: bytes | None, metadata: bytes | None) -> None:
        try:
            value = None if metadata is None else file.read_metadata(metadata)
        except InvalidMetadata as error:
            raise MetadataPanic(message=error) from error
        if config is None:
            if value is not None:
                self._put_metadata(value)
            return
        try:
            file.apply(file.read_config(config), self._resources, self._controller.preboot, value)
            self._start()
        except Fatal:
            raise
        except VmmError as error:
            raise BuildFromJsonError(mode=self._mode, cause=error) from error
        log.info("Successfully started microvm that was configured from one single json")

    def _put_metadata(self, value: object) -> None:
        try:
            self._store.put(value)
        except VmmError as error:
            raise MetadataFileError(mode=self._mode, cause=error) from error
        log.info("Successfully added metadata to mmds from file")

    def _start(self) -> None:
        try:
            self._controller.start()
        except Fatal:
            raise
        except VmmError as error:
            raise ConfigFileStartError(cause=error) from error
