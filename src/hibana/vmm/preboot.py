"""The verbs while there is no microVM: they write into the notebook, until one of them makes a microVM of it.

Methods raise the inner sentence of what is wrong; `verbs.perform` wraps it. A verb that is illegal now has no method.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Raw

from hibana.config.balloon import BalloonDeviceConfig
from hibana.config.boot_source import BootSourceConfig
from hibana.config.cpu import CustomCpuTemplate
from hibana.config.drive import BlockDeviceConfig
from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.instance import InstanceInfo, VmmVersion
from hibana.config.logger import LoggerConfig
from hibana.config.machine import MachineConfig, MachineConfigUpdate
from hibana.config.memory_hotplug import MemoryHotplugConfig
from hibana.config.metrics import MetricsConfig
from hibana.config.mmds import MmdsConfig
from hibana.config.net import NetworkInterfaceConfig
from hibana.config.pmem import PmemConfig
from hibana.config.resources import Resources
from hibana.config.serial import SerialConfig
from hibana.config.snapshot import LoadSnapshotConfig
from hibana.config.vm_config import VmmConfig
from hibana.config.vsock import VsockDeviceConfig
from hibana.devices.mmds.store import Store
from hibana.errors import LoadAfterConfiguration
from hibana.observe import log, metrics
from hibana.vmm.verbs import RULES, Call, perform


class PreBoot:
    """A process in the state `Not started`."""

    def __init__(
        self,
        resources: Resources,
        store: Store,
        start: Callable[[], None],
        restore: Callable[[LoadSnapshotConfig], None],
    ) -> None:
        """Begin with a notebook and a metadata store, empty or filled from files.

        `start` makes a running microVM of the notebook, `restore` one of a snapshot; both raise the inner sentence.
        """
        self._resources = resources
        self._store = store
        self._start = start
        self._restore = restore
        self._boots = False

    def perform(self, call: Call) -> object:
        """Carry out a call. Raises ActionError."""
        if RULES[call.verb].boots:
            self._boots = True
        return perform(self, call, started=False)

    # --- becoming a microVM -----------------------------------------------------------------------------------------

    def start_instance(self) -> None:
        """Boot what the notebook says."""
        self._start()

    def load_snapshot(self, config: LoadSnapshotConfig) -> None:
        """Resume what a snapshot says. Raises LoadAfterConfiguration."""
        if self._boots:
            raise LoadAfterConfiguration
        self._restore(config)

    # --- questions --------------------------------------------------------------------------------------------------

    def get_instance_info(self) -> InstanceInfo:
        return InstanceInfo(log.instance(), "Not started")

    def get_version(self) -> VmmVersion:
        return VmmVersion()

    def get_machine_config(self) -> MachineConfig:
        return self._resources.machine

    def get_balloon(self) -> BalloonDeviceConfig:
        return self._resources.get_balloon()

    def get_mmds(self) -> Raw:
        return Raw(self._store.render())

    def get_vm_config(self) -> VmmConfig:
        log.warn(
            "If the VM was restored from snapshot, boot-source, machine-config.smt, and machine-config.cpu_template"
            " will all be empty."
        )
        return self._resources.render()

    # --- the machine ------------------------------------------------------------------------------------------------

    def put_machine_config(self, config: MachineConfig) -> None:
        self._resources.put_machine(config)

    def patch_machine_config(self, change: MachineConfigUpdate) -> None:
        self._resources.patch_machine(change)

    def put_cpu_config(self, template: CustomCpuTemplate) -> None:
        self._resources.put_cpu_template(template)

    def put_boot_source(self, config: BootSourceConfig) -> None:
        self._resources.put_boot_source(config)

    # --- devices ----------------------------------------------------------------------------------------------------

    def put_drive(self, config: BlockDeviceConfig) -> None:
        self._resources.put_drive(config)

    def put_network_interface(self, config: NetworkInterfaceConfig) -> None:
        self._resources.put_net(config)

    def put_pmem(self, config: PmemConfig) -> None:
        self._resources.put_pmem(config)

    def put_vsock(self, config: VsockDeviceConfig) -> None:
        self._resources.put_vsock(config)

    def put_balloon(self, config: BalloonDeviceConfig) -> None:
        self._resources.put_balloon(config)

    def put_entropy(self, config: EntropyDeviceConfig) -> None:
        self._resources.put_entropy(config)

    def put_memory_hotplug(self, config: MemoryHotplugConfig) -> None:
        self._resources.put_memory_hotplug(config)

    def put_serial(self, config: SerialConfig) -> None:
        self._resources.put_serial(config)

    # --- metadata ---------------------------------------------------------------------------------------------------

    def put_mmds_config(self, config: MmdsConfig) -> None:
        self._resources.put_mmds_config(config)

    def put_mmds(self, value: Any) -> None:
        self._store.put(value)

    def patch_mmds(self, patch: Any) -> None:
        self._store.patch(patch)

    # --- what the operator sees -------------------------------------------------------------------------------------

    def put_logger(self, config: LoggerConfig) -> None:
        level = None if config.level is None else log.level_named(config.level)
        log.configure(config.log_path, level, config.show_level, config.show_log_origin, config.module)

    def put_metrics(self, config: MetricsConfig) -> None:
        metrics.configure(config.metrics_path, config.emit_id, config.properties)
