"""The whole configuration: what GET /vm/config shows and what the configuration file says (api.md §3.20, §6.1)."""

from typing import Annotated

from msgspec import field

from hibana.config.balloon import BalloonDeviceConfig
from hibana.config.boot_source import BootSourceConfig
from hibana.config.cpu import CustomCpuTemplate
from hibana.config.drive import BlockDeviceConfig
from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.logger import LoggerConfig
from hibana.config.machine import MachineConfig
from hibana.config.memory_hotplug import MemoryHotplugConfig
from hibana.config.metrics import MetricsConfig
from hibana.config.mmds import MmdsConfig
from hibana.config.net import NetworkInterfaceConfig
from hibana.config.pmem import PmemConfig
from hibana.config.vsock import VsockDeviceConfig
from hibana.serde.shapes import Loose, Untagged


class VmmConfig(Loose, kw_only=True, rename="kebab"):
    """All resources; the CPU template is a path or the template itself, and like logger and metrics is never shown."""

    balloon: BalloonDeviceConfig | None = None
    drives: list[BlockDeviceConfig]
    boot_source: BootSourceConfig
    cpu_config: Annotated[str | CustomCpuTemplate, Untagged("CustomCpuTemplateOrPath")] | None = None
    logger: LoggerConfig | None = None
    machine_config: MachineConfig | None = None
    metrics: MetricsConfig | None = None
    mmds_config: MmdsConfig | None = None
    network_interfaces: list[NetworkInterfaceConfig] = field(default_factory=list)
    vsock: VsockDeviceConfig | None = None
    entropy: EntropyDeviceConfig | None = None
    pmem: list[PmemConfig] = field(default_factory=list)
    memory_hotplug: MemoryHotplugConfig | None = None
