"""The whole-VM JSON file of `--config-file`, and the metadata file of `--metadata` (api.md §6).

The file is read at once and then applied part by part, in a fixed order; the first part that is refused ends it. The
sentences differ from the API's in their first words only.
"""

from collections.abc import Callable
from typing import Any, Protocol

from hibana.config.cpu import CustomCpuTemplate
from hibana.config.host_file import read_host_file
from hibana.config.logger import LoggerConfig
from hibana.config.metrics import MetricsConfig
from hibana.config.resources import Resources
from hibana.config.vm_config import VmmConfig
from hibana.errors import (
    BootSourceError,
    ConfigFileError,
    FileBalloonError,
    FileDriveError,
    FileEntropyError,
    FileMachineError,
    FileMmdsConfigError,
    FileNetworkError,
    FileOperationError,
    FilePmemError,
    FileVsockError,
    InvalidJson,
    InvalidMetadata,
    JsonError,
    LoggerError,
    MemoryHotplugError,
    MetricsError,
    MmdsError,
    VmmError,
)
from hibana.observe import log
from hibana.serde.records import decode, decode_any
from hibana.serde.rust import quoted


class Surroundings(Protocol):
    """What the files configure that is no part of the machine."""

    def put_logger(self, config: LoggerConfig, /) -> None: ...

    def put_metrics(self, config: MetricsConfig, /) -> None: ...

    def put_mmds(self, value: Any, /) -> None: ...


def read_config(text: bytes) -> VmmConfig:
    """Read a configuration file. Raises ConfigFileError."""
    try:
        return decode(text, VmmConfig)
    except JsonError as error:
        raise ConfigFileError(cause=InvalidJson(cause=error)) from error


def read_metadata(text: bytes) -> Any:
    """Read a metadata file. Raises InvalidMetadata."""
    try:
        return decode_any(text)
    except JsonError as error:
        debug = f"Error({quoted(error.message)}, line: {error.line}, column: {error.column})"
        raise InvalidMetadata(cause=debug) from error


def apply(wanted: VmmConfig, resources: Resources, around: Surroundings, metadata: Any = None) -> None:
    """Write everything down, in the reference's order. Raises ConfigFileError."""

    def put_cpu_template(template: str | CustomCpuTemplate) -> None:
        if isinstance(template, str):
            template = decode(read_host_file(template), CustomCpuTemplate)
        resources.put_cpu_template(template)

    try:
        _put(LoggerError, around.put_logger, wanted.logger)
        _put(MetricsError, around.put_metrics, wanted.metrics)
        _put(FileMachineError, resources.put_machine, wanted.machine_config)
        _put(FileOperationError, put_cpu_template, wanted.cpu_config)
        _put(BootSourceError, resources.put_boot_source, wanted.boot_source)
        _put(FileDriveError, resources.put_drive, *wanted.drives)
        _put(FileNetworkError, resources.put_net, *wanted.network_interfaces)
        _put(FileVsockError, resources.put_vsock, wanted.vsock)
        _put(FileBalloonError, resources.put_balloon, wanted.balloon)
        if metadata is not None:
            _put(MmdsError, around.put_mmds, metadata)
            log.info("Successfully added metadata to mmds from file")
        _put(FileMmdsConfigError, resources.put_mmds_config, wanted.mmds_config)
        _put(FileEntropyError, resources.put_entropy, wanted.entropy)
        _put(FilePmemError, resources.put_pmem, *wanted.pmem)
        _put(MemoryHotplugError, resources.put_memory_hotplug, wanted.memory_hotplug)
    except VmmError as error:
        raise ConfigFileError(cause=error) from error


def _put(wrapper: type[VmmError], put: Callable[[Any], None], *parts: object) -> None:
    """Apply those parts that the file has."""
    for part in parts:
        if part is None:
            continue
        try:
            put(part)
        except JsonError as error:
            raise InvalidJson(cause=error) from error
        except VmmError as error:
            raise wrapper(cause=error) from error
