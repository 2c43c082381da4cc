"""The notebook before the start: what the microVM shall be so far, and the rules between its parts (api.md §4.4).

A method either writes its part down or raises the sentence of what is wrong, and then leaves the notebook as it was
(the one exception is the reference's: an interface that is replaced is gone even if its successor is refused). Where
the sentence appears differs between API and file, so the wrapping is theirs.
"""

from collections.abc import Iterator

from hibana.config import machine as machine_rules
from hibana.config import memory_hotplug as memory_hotplug_rules
from hibana.config import mmds as mmds_rules
from hibana.config.balloon import BalloonDeviceConfig
from hibana.config.boot_source import BootSource, BootSourceConfig
from hibana.config.cpu import CustomCpuTemplate
from hibana.config.drive import BlockDeviceConfig, Drive, TryAsync
from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.machine import MachineConfig, MachineConfigUpdate
from hibana.config.memory_hotplug import MemoryHotplugConfig
from hibana.config.mmds import MmdsConfig
from hibana.config.net import Interface, NetworkInterfaceConfig, OpenTap
from hibana.config.pmem import PmemConfig
from hibana.config.rate_limit import effective
from hibana.config.serial import SerialConfig
from hibana.config.vm_config import VmmConfig
from hibana.config.vsock import VsockDeviceConfig
from hibana.errors import (
    BalloonTooLarge,
    MacInUse,
    MissingDevice,
    NoBalloon,
    RootDriveExists,
    RootIsDrive,
    RootIsPmem,
    RootPmemExists,
    SmallerThanBalloon,
)
from hibana.observe import log


class Resources:
    """Everything that is wanted of a microVM that does not exist yet."""

    def __init__(self, open_tap: OpenTap, try_async: TryAsync) -> None:
        """Begin with nothing but defaults; the host ends of interfaces and drives come from these two."""
        self._open_tap = open_tap
        self._try_async = try_async
        self.machine: MachineConfig = machine_rules.DEFAULT
        self.cpu_template: CustomCpuTemplate | None = None
        self.boot_source: BootSource | None = None
        self.drives: list[Drive] = []
        self.nets: list[Interface] = []
        self.pmems: list[PmemConfig] = []
        self.vsock: VsockDeviceConfig | None = None
        self.balloon: BalloonDeviceConfig | None = None
        self.entropy: EntropyDeviceConfig | None = None
        self.memory_hotplug: MemoryHotplugConfig | None = None
        self.serial = SerialConfig()
        self._mmds: MmdsConfig | None = None

    # --- the machine ------------------------------------------------------------------------------------------------

    def put_machine(self, config: MachineConfig) -> None:
        """Replace the machine; an absent CPU template stays. Raises as `patch_machine` does."""
        self.patch_machine(machine_rules.as_update(config))

    def patch_machine(self, change: MachineConfigUpdate) -> None:
        """Change the machine. Raises InvalidVcpuCount, InvalidMemorySize, SmallerThanBalloon."""
        machine = machine_rules.updated(self.machine, change)
        if self.balloon and machine.mem_size_mib < self.balloon.amount_mib:
            raise SmallerThanBalloon
        self.machine = machine
        if change.cpu_template is not None:
            self.cpu_template = None

    def put_cpu_template(self, template: CustomCpuTemplate) -> None:
        """Use a custom CPU template instead of a static one."""
        self.cpu_template = template
        self.machine = machine_rules.updated(self.machine, MachineConfigUpdate(cpu_template="None"))

    @property
    def chosen_cpu_template(self) -> str | CustomCpuTemplate | None:
        """The name of a static CPU template, or a custom one; one that changes nothing is as good as none."""
        custom = None if self.cpu_template == CustomCpuTemplate() else self.cpu_template
        return self.machine.cpu_template or custom

    def put_boot_source(self, config: BootSourceConfig) -> None:
        """Open kernel and initrd. Raises KernelFileError, InitrdFileError, InvalidCmdline."""
        boot_source = BootSource(config)
        if self.boot_source:
            self.boot_source.close()
        self.boot_source = boot_source

    def put_serial(self, config: SerialConfig) -> None:
        """Direct the serial console."""
        self.serial = config

    # --- devices of which there may be several ----------------------------------------------------------------------

    def put_drive(self, config: BlockDeviceConfig) -> None:
        """Add a drive, or replace the one with its id; the root drive comes first.

        Raises RootIsPmem, RootDriveExists, CreateDriveError.
        """
        index = next((at for at, drive in enumerate(self.drives) if drive.config.drive_id == config.drive_id), None)
        if config.is_root_device:
            if any(pmem.root_device for pmem in self.pmems):
                raise RootIsPmem
            if self._has_root_drive() and index != 0:
                raise RootDriveExists
        drive = Drive(config, self._try_async)
        if index is None:
            self.drives.insert(0 if config.is_root_device else len(self.drives), drive)
            return
        self.drives[index].close()
        self.drives[index] = drive
        if config.is_root_device:
            self.drives[0], self.drives[index] = self.drives[index], self.drives[0]

    def put_net(self, config: NetworkInterfaceConfig) -> None:
        """Add an interface at the end, instead of the one with its id. Raises MacInUse, CreateNetworkError."""
        shown = [net.config for net in self.nets]
        for other in shown:
            if other.iface_id != config.iface_id and config.guest_mac and other.guest_mac == config.guest_mac:
                raise MacInUse(mac=config.guest_mac)
        for index, other in enumerate(shown):
            if other.iface_id == config.iface_id:
                log.warn(
                    f"Replacing existing network device '{other.iface_id}'. The previous device configuration will be"
                    " destroyed."
                )
                self._remove_net(index)
                break
        self.nets.append(Interface(config, self._open_tap))

    def _remove_net(self, index: int) -> None:
        """Forget an interface: the last one takes its place, and the metadata service no longer answers there."""
        gone = self.nets[index].config.iface_id
        self.nets[index].close()
        self.nets[index] = self.nets[-1]
        del self.nets[-1]
        if self._mmds:
            self._mmds.network_interfaces = [each for each in self._mmds.network_interfaces if each != gone]

    def put_pmem(self, config: PmemConfig) -> None:
        """Add a persistent memory device, or replace the one with its id. Raises RootIsDrive, RootPmemExists."""
        if config.root_device:
            if self._has_root_drive():
                raise RootIsDrive
            if any(pmem.root_device and pmem.id != config.id for pmem in self.pmems):
                raise RootPmemExists
        for index, pmem in enumerate(self.pmems):
            if pmem.id == config.id:
                self.pmems[index] = config
                return
        self.pmems.append(config)

    def _has_root_drive(self) -> bool:
        return bool(self.drives) and self.drives[0].config.is_root_device

    # --- devices of which there is one ------------------------------------------------------------------------------

    def put_vsock(self, config: VsockDeviceConfig) -> None:
        """Want a vsock device; its socket is bound by the device."""
        self.vsock = VsockDeviceConfig(guest_cid=config.guest_cid, uds_path=config.uds_path)

    def put_balloon(self, config: BalloonDeviceConfig) -> None:
        """Want a balloon. Raises BalloonTooLarge."""
        if config.amount_mib > self.machine.mem_size_mib:
            raise BalloonTooLarge
        self.balloon = config

    def get_balloon(self) -> BalloonDeviceConfig:
        """Give the wanted balloon. Raises NoBalloon."""
        if self.balloon is None:
            raise NoBalloon
        return self.balloon

    def put_entropy(self, config: EntropyDeviceConfig) -> None:
        """Want an entropy device."""
        self.entropy = EntropyDeviceConfig(effective(config.rate_limiter))

    def put_memory_hotplug(self, config: MemoryHotplugConfig) -> None:
        """Want memory that can be plugged later. Raises what `memory_hotplug.check` raises."""
        memory_hotplug_rules.check(config)
        self.memory_hotplug = config

    def put_mmds_config(self, config: MmdsConfig) -> None:
        """Let the metadata service answer on these interfaces and no others. Raises what `mmds.check` raises."""
        mmds_rules.check(config, [net.config.iface_id for net in self.nets])
        self._mmds = MmdsConfig(
            version=config.version,
            network_interfaces=config.network_interfaces,
            ipv4_address=config.ipv4_address or mmds_rules.DEFAULT_IPV4_ADDRESS,
            imds_compat=config.imds_compat,
        )

    @property
    def mmds(self) -> MmdsConfig | None:
        """The metadata service's configuration, interfaces in the order of the devices; None if it answers nowhere."""
        if self._mmds is None:
            return None
        ids = [net.config.iface_id for net in self.nets]
        attached = [iface_id for iface_id in ids if iface_id in self._mmds.network_interfaces]
        if not attached:
            return None
        return MmdsConfig(
            version=self._mmds.version,
            network_interfaces=attached,
            ipv4_address=self._mmds.ipv4_address,
            imds_compat=self._mmds.imds_compat,
        )

    # --- all of it --------------------------------------------------------------------------------------------------

    def render(self) -> VmmConfig:
        """Show the whole configuration (api.md §3.20)."""
        return VmmConfig(
            balloon=self.balloon,
            drives=[drive.config for drive in self.drives],
            boot_source=self.boot_source.config if self.boot_source else BootSourceConfig(kernel_image_path=""),
            machine_config=self.machine,
            mmds_config=self.mmds,
            network_interfaces=[net.config for net in self.nets],
            vsock=self.vsock,
            entropy=self.entropy,
            pmem=self.pmems,
            memory_hotplug=self.memory_hotplug,
        )

    def refuse_missing_devices(self) -> None:
        """Make sure that this build has every device that is wanted. Raises MissingDevice."""
        for device, wanted in self._missing_devices():
            if wanted:
                raise MissingDevice(device=device)

    def _missing_devices(self) -> Iterator[tuple[str, bool]]:
        """Name what this build lacks, in the order of attachment; a line goes when its device comes."""
        yield "balloon", self.balloon is not None
        yield "vhost-user drive", any(drive.fd is None for drive in self.drives)
        yield "pmem", bool(self.pmems)
        yield "vsock", self.vsock is not None
        yield "memory-hotplug", self.memory_hotplug is not None

    def close(self) -> None:
        """Close every file that has been opened."""
        if self.boot_source:
            self.boot_source.close()
            self.boot_source = None
        for drive in self.drives:
            drive.close()
        self.drives.clear()
        for net in self.nets:
            net.close()
        self.nets.clear()
