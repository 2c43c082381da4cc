"""The two steps of a boot, before and after the devices are there.

First the images are loaded, because a kernel that cannot be loaded must not leave devices behind. Then the devices
are attached, elsewhere; they add to the command line and take addresses. Last, everything is described to the kernel:
command line, tables, and the page its entry registers point to.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hibana.boot.acpi.tables import write_acpi_tables
from hibana.boot.cmdline import Cmdline
from hibana.boot.entry import BootProtocol, Kernel
from hibana.boot.initrd import Initrd, load_initrd
from hibana.boot.kernel import load_kernel
from hibana.boot.x86.gdt import write_descriptor_tables
from hibana.boot.x86.memory_map import memory_map
from hibana.boot.x86.mptable import write_mptable
from hibana.boot.x86.page_tables import write_page_tables
from hibana.boot.x86.pvh import write_start_info
from hibana.boot.x86.zero_page import write_zero_page
from hibana.errors import AcpiError, CmdlineLoadError, MpTableError, ResourceNotAvailable, SystemConfigError, VmmError
from hibana.memory import layout
from hibana.memory.allocator import RangeAllocator
from hibana.memory.guest import GuestMemory


class Images(NamedTuple):
    """What was loaded, and where."""

    kernel: Kernel
    initrd: Initrd | None


def load_images(memory: GuestMemory, kernel_fd: int, initrd_fd: int | None) -> Images:
    """Load kernel and initrd (machine.md §2.6 step 9)."""
    try:
        kernel = load_kernel(memory, kernel_fd)
    except VmmError as error:
        raise SystemConfigError(cause=error) from error
    return Images(kernel, None if initrd_fd is None else load_initrd(memory, initrd_fd))


def describe_machine(
    memory: GuestMemory,
    system: RangeAllocator,
    images: Images,
    cmdline: Cmdline,
    vcpu_count: int,
    acpi_devices: Sequence[bytes] = (),
) -> None:
    """Write all that the kernel will read about its machine (machine.md §2.6 step 15).

    `acpi_devices` are the AML objects of the attached devices, in attach order.
    """
    try:
        cmdline_size = _write_cmdline(memory, cmdline)
        _write_mptable(memory, system, vcpu_count)
        _write_boot_parameters(memory, images, cmdline_size)
        _write_acpi_tables(memory, system, vcpu_count, acpi_devices)
    except VmmError as error:
        raise SystemConfigError(cause=error) from error


def _write_cmdline(memory: GuestMemory, cmdline: Cmdline) -> int:
    try:
        line = cmdline.encode()
    except VmmError as error:
        raise CmdlineLoadError(cause=error) from error
    memory.write(layout.CMDLINE, line)
    return len(line)


def _write_mptable(memory: GuestMemory, system: RangeAllocator, vcpu_count: int) -> None:
    try:
        write_mptable(memory, system, vcpu_count)
    except ResourceNotAvailable as error:
        raise MpTableError(cause=error) from error


def _write_boot_parameters(memory: GuestMemory, images: Images, cmdline_size: int) -> None:
    kernel, initrd = images
    ranges = memory_map(memory.regions)
    write_descriptor_tables(memory, kernel.entry.protocol)
    if kernel.entry.protocol is BootProtocol.PVH:
        write_start_info(memory, ranges, initrd)
    else:
        write_page_tables(memory)
        write_zero_page(memory, ranges, kernel.setup_header, cmdline_size, initrd)


def _write_acpi_tables(
    memory: GuestMemory, system: RangeAllocator, vcpu_count: int, acpi_devices: Sequence[bytes]
) -> None:
    try:
        write_acpi_tables(memory, system, vcpu_count, acpi_devices)
    except ResourceNotAvailable as error:
        raise AcpiError(cause=error) from error
