"""The composition root: the only file that knows engine, memory, devices and host ends together.

`assemble` tells the life of a microVM up to its first instruction, in the reference's order (machine.md §2.6), because
that order decides addresses, interrupt lines and which error a user sees first.
"""

import os
from functools import partial

from hibana.boot.cmdline import Cmdline
from hibana.boot.system import Images, describe_machine, load_images
from hibana.boot.x86.registers import configure
from hibana.bus.guest_bus import GuestBus
from hibana.bus.home import Home
from hibana.bus.irq import IrqLine
from hibana.bus.loop import Loop
from hibana.config.drive import BlockDeviceConfig, Drive
from hibana.config.rate_limit import TokenBucketConfig
from hibana.config.serial import SerialConfig
from hibana.devices import boot_timer, i8042, uart16550
from hibana.devices.boot_timer import BootTimer, Moment
from hibana.devices.i8042 import I8042
from hibana.devices.rate_limiter import TokenBucket
from hibana.devices.uart16550 import Uart16550
from hibana.engine.interface import Engine, Vm
from hibana.errors import (
    CreateDriveError,
    DeviceManagerError,
    GuestConfigError,
    MemoryConfigError,
    StartCmdlineError,
    SystemConfigError,
    VmmError,
)
from hibana.host.serial_input import SerialInput
from hibana.host.serial_output import RateLimitedOutput, SerialOutput, open_serial_file
from hibana.host.terminal import Terminal
from hibana.memory import layout
from hibana.memory.allocator import Pools
from hibana.memory.guest import GuestMemory, HugePages
from hibana.observe import log
from hibana.seccomp.install import install
from hibana.units import MIB
from hibana.vmm.attached import AttachedDrive, AttachedInterface, entropy_device, limit
from hibana.vmm.blueprint import Blueprint
from hibana.vmm.cpu_model import cpu_model
from hibana.vmm.device_loop import DeviceLoop
from hibana.vmm.machine import EXIT_OK, EndHandler, Machine
from hibana.vmm.slots import MmioSlots

_STDIN = 0
_STDOUT = 1


def assemble(plan: Blueprint, engine: Engine, loop: Loop, started: Moment, on_end: EndHandler) -> Machine:
    """Build a microVM, paused at its kernel's first instruction. Raises VmmError, and then leaves nothing behind."""
    memory = _allocate(plan.mem_size_mib, plan.huge_pages)
    bus = GuestBus()
    try:
        cmdline = _cmdline(plan.boot_args)
        vm = _create_vm(engine, memory, plan, bus)
    except VmmError:
        memory.close()
        raise
    devices = DeviceLoop(loop, vm.bus_lock) if vm.bus_lock else None
    machine = Machine(vm, memory, on_end, partial(install, plan.vcpu_filters), devices)
    home = Home(loop, machine.post_to_devices, machine.visit_devices if devices else None)
    try:
        images = load_images(memory, plan.kernel_fd, plan.initrd_fd)
        log.debug(f"Kernel loaded using {images.kernel.entry.protocol.value}")
        _append(cmdline, "pci=off")
        _attach_serial(machine, bus, vm, loop, plan.serial)
        _attach_keyboard(machine, bus, vm)
        if plan.boot_timer:
            bus.mmio.insert(layout.BOOT_TIMER, boot_timer.SIZE, BootTimer(started))
        pools = Pools()
        slots = MmioSlots(bus, vm, memory, pools, cmdline)
        _attach_virtio_devices(machine, plan, slots, home, cmdline)
        describe_machine(memory, pools.system, images, cmdline, plan.vcpu_count, slots.acpi_objects)
        machine.on_start(lambda: _listen(home, slots))
        _configure_vcpus(vm, images)
    except VmmError:
        machine.close()
        raise
    return machine


def _allocate(mem_size_mib: int, huge_pages: HugePages) -> GuestMemory:
    try:
        return GuestMemory(mem_size_mib * MIB, huge_pages)
    except VmmError as error:
        raise MemoryConfigError(cause=error) from error


def _cmdline(boot_args: str) -> Cmdline:
    try:
        return Cmdline(boot_args)
    except VmmError as error:
        raise StartCmdlineError(cause=error) from error


def _create_vm(engine: Engine, memory: GuestMemory, plan: Blueprint, bus: GuestBus) -> Vm:
    model = cpu_model(engine, plan.cpu_template, plan.smt)
    try:
        return engine.create_vm(memory, plan.vcpu_count, bus, model)
    except GuestConfigError as error:
        raise SystemConfigError(cause=error) from error


def _append(cmdline: Cmdline, item: str) -> None:
    try:
        cmdline.append(item)
    except VmmError as error:
        raise StartCmdlineError(cause=error) from error


def _attach_serial(machine: Machine, bus: GuestBus, vm: Vm, loop: Loop, config: SerialConfig) -> None:
    irq = IrqLine(vm.line(layout.GSI_SERIAL))
    if config.serial_out_path is None:
        terminal = Terminal(_STDIN, _STDOUT)
        uart = Uart16550(_limited(SerialOutput(_STDOUT), config), irq)
        keys = SerialInput(_STDIN, uart, loop, machine.post_to_devices)
        machine.on_start(terminal.take)
        machine.on_start(keys.start)
        machine.on_close(terminal.give_back)
    else:
        fd = _open_serial_file(config.serial_out_path)
        uart = Uart16550(_limited(SerialOutput(fd), config), irq)
        machine.on_close(lambda: os.close(fd))
    bus.ports.insert(layout.PORT_SERIAL, uart16550.SIZE, uart)
    if _limit_of(config) is None:  # whose bytes count at the moment when they are printed
        vm.coalesce(layout.PORT_SERIAL + uart16550.DATA, layout.PORT_SERIAL + uart16550.LSR, uart)


def _limited(output: SerialOutput, config: SerialConfig) -> SerialOutput | RateLimitedOutput:
    bucket = _limit_of(config)
    return RateLimitedOutput(output, TokenBucket(limit(bucket))) if bucket else output


def _limit_of(config: SerialConfig) -> TokenBucketConfig | None:
    bucket = config.rate_limiter
    return bucket if bucket and bucket.limits() else None


def _open_serial_file(path: str) -> int:
    try:
        return open_serial_file(path)
    except VmmError as error:
        raise DeviceManagerError(cause=error) from error


def _attach_keyboard(machine: Machine, bus: GuestBus, vm: Vm) -> None:
    irq = IrqLine(vm.line(layout.GSI_KEYBOARD))
    machine.keyboard = I8042(irq, on_reset=lambda: machine.end(EXIT_OK))
    bus.ports.insert(layout.PORT_KEYBOARD, i8042.SIZE, machine.keyboard)


def _attach_virtio_devices(machine: Machine, plan: Blueprint, slots: MmioSlots, home: Home, cmdline: Cmdline) -> None:
    """Plug in all virtio devices; their order decides addresses and interrupt lines (machine.md §2.5)."""
    for drive in plan.drives:
        for item in _root_arguments(drive.config):
            _append(cmdline, item)
        attached = _attached_drive(drive, home)
        machine.on_close(attached.close)
        slots.plug(attached.device)
        machine.drives[drive.config.drive_id] = attached
    for interface in plan.interfaces:
        connected = AttachedInterface(interface, home)
        slots.plug(connected.device)
        machine.interfaces[interface.config.iface_id] = connected
    if plan.entropy is not None:
        slots.plug(entropy_device(plan.entropy, home))


def _root_arguments(config: BlockDeviceConfig) -> list[str]:
    """Say where the root file system is, if it is on this drive."""
    if not config.is_root_device:
        return []
    where = "/dev/vda" if config.partuuid is None else f"PARTUUID={config.partuuid}"
    return [f"root={where}", "ro" if config.is_read_only else "rw"]


def _attached_drive(drive: Drive, home: Home) -> AttachedDrive:
    try:
        return AttachedDrive(drive, home)
    except VmmError as error:
        raise CreateDriveError(cause=error) from error


def _listen(home: Home, slots: MmioSlots) -> None:
    """Watch the doorbells; not before everything has gone well, because nobody would forget them."""
    for fd, answer in slots.doorbells.items():
        home.watch(fd, answer)


def _configure_vcpus(vm: Vm, images: Images) -> None:
    for vcpu in vm.vcpus:
        vcpu.load(configure(vcpu.save(), images.kernel.entry))
