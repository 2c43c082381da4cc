"""The composition root: the only file that knows engine, memory, devices and host ends together.

`assemble` tells the life of a microVM up to its first instruction, in the reference's order (machine.md §2.6), because
that order decides addresses, interrupt lines and which error a user sees first.
"""

import os
from typing import NamedTuple

from hibana.boot.cmdline import Cmdline
from hibana.boot.system import Images, describe_machine, load_images
from hibana.boot.x86.registers import configure
from hibana.bus.guest_bus import GuestBus
from hibana.bus.irq import IrqLine
from hibana.bus.loop import Loop
from hibana.devices import boot_timer, i8042, uart16550
from hibana.devices.boot_timer import BootTimer, Moment
from hibana.devices.i8042 import I8042
from hibana.devices.uart16550 import Uart16550
from hibana.engine.interface import Engine, Vm
from hibana.errors import (
    CpuIsFixed,
    CpuTemplateError,
    DeviceManagerError,
    MemoryConfigError,
    StartCmdlineError,
    VmmError,
)
from hibana.host.serial_input import SerialInput
from hibana.host.serial_output import SerialOutput, open_serial_file
from hibana.host.terminal import Terminal
from hibana.memory import layout
from hibana.memory.allocator import Pools
from hibana.memory.guest import GuestMemory, HugePages
from hibana.observe import log
from hibana.units import MIB
from hibana.vmm.machine import EXIT_OK, EndHandler, Machine

_STDIN = 0
_STDOUT = 1


class Blueprint(NamedTuple):
    """What a microVM is made from: everything checked, every file open."""

    vcpu_count: int
    mem_size_mib: int
    huge_pages: HugePages
    has_cpu_template: bool
    kernel_fd: int
    initrd_fd: int | None
    boot_args: str
    serial_out_path: str | None
    boot_timer: bool


def assemble(plan: Blueprint, engine: Engine, loop: Loop, started: Moment, on_end: EndHandler) -> Machine:
    """Build a microVM, paused at its kernel's first instruction. Raises VmmError, and then leaves nothing behind."""
    if plan.has_cpu_template and not engine.takes_cpu_templates:
        raise CpuTemplateError(cause=CpuIsFixed())
    memory = _allocate(plan.mem_size_mib, plan.huge_pages)
    bus = GuestBus()
    try:
        cmdline = _cmdline(plan.boot_args)
        vm = engine.create_vm(memory, plan.vcpu_count, bus)
    except VmmError:
        memory.close()
        raise
    machine = Machine(vm, memory, on_end)
    try:
        images = load_images(memory, plan.kernel_fd, plan.initrd_fd)
        log.debug(f"Kernel loaded using {images.kernel.entry.protocol.value}")
        _append(cmdline, "pci=off")
        _attach_serial(machine, bus, vm, loop, plan.serial_out_path)
        _attach_keyboard(machine, bus, vm)
        if plan.boot_timer:
            bus.mmio.insert(layout.BOOT_TIMER, boot_timer.SIZE, BootTimer(started))
        describe_machine(memory, Pools().system, images, cmdline, plan.vcpu_count)
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


def _append(cmdline: Cmdline, item: str) -> None:
    try:
        cmdline.append(item)
    except VmmError as error:
        raise StartCmdlineError(cause=error) from error


def _attach_serial(machine: Machine, bus: GuestBus, vm: Vm, loop: Loop, path: str | None) -> None:
    irq = IrqLine(lambda: vm.pulse(layout.GSI_SERIAL))
    if path is None:
        terminal = Terminal(_STDIN, _STDOUT)
        uart = Uart16550(SerialOutput(_STDOUT), irq)
        keys = SerialInput(_STDIN, uart, loop, machine.post_to_devices)
        machine.on_start(terminal.take)
        machine.on_start(keys.start)
        machine.on_close(terminal.give_back)
    else:
        fd = _open_serial_file(path)
        uart = Uart16550(SerialOutput(fd), irq)
        machine.on_close(lambda: os.close(fd))
    bus.ports.insert(layout.PORT_SERIAL, uart16550.SIZE, uart)


def _open_serial_file(path: str) -> int:
    try:
        return open_serial_file(path)
    except VmmError as error:
        raise DeviceManagerError(cause=error) from error


def _attach_keyboard(machine: Machine, bus: GuestBus, vm: Vm) -> None:
    irq = IrqLine(lambda: vm.pulse(layout.GSI_KEYBOARD))
    machine.keyboard = I8042(irq, on_reset=lambda: machine.end(EXIT_OK))
    bus.ports.insert(layout.PORT_KEYBOARD, i8042.SIZE, machine.keyboard)


def _configure_vcpus(vm: Vm, images: Images) -> None:
    for vcpu in vm.vcpus:
        vcpu.load(configure(vcpu.save(), images.kernel.entry))
