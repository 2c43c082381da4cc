"""The verbs once there is a microVM: they act on it, or say which device it does not have.

The counterpart of `preboot.py`. Methods raise the inner sentence; `verbs.perform` wraps it.
"""

import time
from collections.abc import Callable
from typing import Any

from msgspec import Raw

from hibana.config.drive import BlockDeviceUpdateConfig
from hibana.config.instance import InstanceInfo, VmmVersion
from hibana.config.machine import MachineConfig
from hibana.config.net import NetworkInterfaceUpdateConfig
from hibana.config.pmem import PmemDeviceUpdateConfig
from hibana.config.resources import Resources
from hibana.config.snapshot import CreateSnapshotParams
from hibana.config.vm_config import VmmConfig
from hibana.devices.mmds.store import Store
from hibana.errors import (
    BlockDeviceError,
    DeviceNotFound,
    DeviceNotFoundToPatchPmem,
    FlushMetricsError,
    I8042BufferFull,
    I8042Error,
    MmdsNotInitialized,
    NoSnapshots,
    PatchDriveError,
    PatchNetError,
    PciNotEnabled,
    SaveStateWhileRunning,
    VmmError,
)
from hibana.observe import log, metrics
from hibana.observe.metrics_groups import METRICS
from hibana.vmm.machine import Machine


class Running:
    """A process whose microVM has been started; the guest may be paused."""

    def __init__(self, machine: Machine, resources: Resources, store: Store) -> None:
        """Take over the microVM, and the notebook from which it was made."""
        self._machine = machine
        self._resources = resources
        self._store = store

    # --- the guest as a whole ---------------------------------------------------------------------------------------

    def pause_vm(self) -> None:
        """Stop the vCPUs. Raises VcpusDoNotAnswer."""
        METRICS.latencies_us.vmm_pause_vm = _timed("pause vm", self._machine.pause)

    def resume_vm(self) -> None:
        """Let the vCPUs run. Raises VcpusDoNotAnswer."""
        METRICS.latencies_us.vmm_resume_vm = _timed("resume vm", self._machine.resume)

    def send_ctrl_alt_del(self) -> None:
        """Press Ctrl, Alt and Del. Raises I8042Error, VcpusDoNotAnswer."""
        try:
            self._machine.send_ctrl_alt_del()
        except I8042BufferFull as error:
            raise I8042Error(cause=error) from error

    def create_snapshot(self, params: CreateSnapshotParams) -> None:
        """Say why there is no snapshot. Raises SaveStateWhileRunning, NoSnapshots."""
        if not self._machine.paused:
            raise SaveStateWhileRunning
        raise NoSnapshots

    def flush_metrics(self) -> None:
        """Write a metrics line now. Raises FlushMetricsError."""
        try:
            metrics.flush()
        except VmmError as error:
            raise FlushMetricsError(cause=error) from error

    # --- questions --------------------------------------------------------------------------------------------------

    def get_instance_info(self) -> InstanceInfo:
        return InstanceInfo(log.instance(), "Paused" if self._machine.paused else "Running")

    def get_version(self) -> VmmVersion:
        return VmmVersion()

    def get_machine_config(self) -> MachineConfig:
        return self._resources.machine

    def get_vm_config(self) -> VmmConfig:
        return self._resources.render()

    # --- metadata ---------------------------------------------------------------------------------------------------

    def get_mmds(self) -> Raw:
        return Raw(self._metadata().render())

    def put_mmds(self, value: Any) -> None:
        self._metadata().put(value)

    def patch_mmds(self, patch: Any) -> None:
        self._metadata().patch(patch)

    def _metadata(self) -> Store:
        """Give the store, if any interface offers it to the guest. Raises MmdsNotInitialized."""
        if self._resources.mmds is None:
            raise MmdsNotInitialized
        return self._store

    # --- devices ----------------------------------------------------------------------------------------------------

    def patch_drive(self, change: BlockDeviceUpdateConfig) -> None:
        """Exchange a drive's file or rate limiter. Raises PatchDriveError."""
        drive = self._machine.drives.get(change.drive_id)
        if drive is None:
            raise PatchDriveError(cause=DeviceNotFound())
        try:
            drive.patch(change, self._machine.ask_devices)
        except VmmError as error:
            raise PatchDriveError(cause=BlockDeviceError(cause=error)) from error

    def patch_network_interface(self, change: NetworkInterfaceUpdateConfig) -> None:
        """Exchange an interface's rate limiters. Raises PatchNetError."""
        interface = self._machine.interfaces.get(change.iface_id)
        if interface is None:
            raise PatchNetError(cause=DeviceNotFound())
        interface.patch(change, self._machine.ask_devices)

    # --- devices that a microVM of this build does not have -----------------------------------------------------------

    def put_drive(self, *_: object) -> None:
        raise PciNotEnabled

    put_network_interface = put_pmem = delete_drive = delete_network_interface = delete_pmem = put_drive

    def patch_pmem(self, change: PmemDeviceUpdateConfig) -> None:
        """Change nothing, successfully, if nothing is asked for; as the reference, without a look at the device."""
        if change.rate_limiter is not None:
            raise DeviceNotFoundToPatchPmem

    def get_balloon(self, *_: object) -> None:
        raise DeviceNotFound

    patch_balloon = get_balloon_statistics = patch_balloon_statistics = get_balloon
    start_balloon_hinting = get_balloon_hinting = stop_balloon_hinting = get_balloon
    get_memory_hotplug = patch_memory_hotplug = get_balloon


def _timed(what: str, action: Callable[[], None]) -> int:
    """Log how long an action took, and give the microseconds."""
    started = time.monotonic_ns()
    action()
    took_us = (time.monotonic_ns() - started) // 1000
    log.info(f"'{what}' VMM action took {took_us} us.")
    return took_us
