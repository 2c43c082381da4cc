"""Every failure a user can see: one class, one sentence.

Errors are sorted by guilt. `VmmError`: the user's request or configuration; the client gets the sentence. `GuestFault`:
the guest broke a specification; a device counts it, nobody dies. `OSError`: the host; wrapped once, where it happened.
Anything else is ours, and one place in `cli` prints the traceback.

The sentences are Firecracker's, because programs match them; errors nest by interpolating `{cause}`.
"""

import errno
import os
from typing import ClassVar, Final


class VmmError(Exception):
    """Root of everything a user can cause; `str(error)` is the sentence the client sees."""

    text: ClassVar[str] = "unexpected error"
    status: ClassVar[int] = 400
    exit_code: ClassVar[int] = 1

    def __init__(self, **facts: object) -> None:
        self.facts = facts
        super().__init__(self.text.format_map(facts))


class GuestFault(Exception):
    """The guest broke the specification; never leaves the device that noticed."""


# How musl words the errors of the operating system; clients of the reference's static binaries match these texts.
_MUSL: Final = {
    errno.EIO: "I/O error",
    errno.EBUSY: "Resource busy",
    errno.ENOMEM: "Out of memory",
    errno.EMFILE: "No file descriptors available",
    errno.ENOTTY: "Not a tty",
    errno.EADDRINUSE: "Address in use",
}


def os_text(error: OSError) -> str:
    """Render an operating system error as the reference does: `No such file or directory (os error 2)`."""
    number = error.errno or 0
    return f"{_MUSL.get(number) or os.strerror(number)} (os error {number})"


# --- which verb is legal when -----------------------------------------------------------------------------------------


class NotBeforeStart(VmmError):
    text = "The requested operation is not supported before starting the microVM."


class NotAfterStart(VmmError):
    text = "The requested operation is not supported after starting the microVM."


class InternalVmmError(VmmError):
    text = "Internal VMM error: {cause}"


class VcpusDoNotAnswer(VmmError):
    text = "Failed to message the vCPUs."


# --- machine configuration --------------------------------------------------------------------------------------------


class MachineConfigError(VmmError):
    text = "Machine config error: {cause}"


class InvalidMemorySize(VmmError):
    text = "The memory size (MiB) is either 0, or not a multiple of the configured page size."


class InvalidVcpuCount(VmmError):
    text = (
        "The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is enabled."
    )


# --- boot source ------------------------------------------------------------------------------------------------------


class BootSourceError(VmmError):
    text = "Boot source error: {cause}"


class KernelFileError(VmmError):
    text = "The kernel file cannot be opened: {cause}"


class InitrdFileError(VmmError):
    text = "The initrd file cannot be opened due to invalid path or invalid permissions. {cause}"


class InvalidCmdline(VmmError):
    text = "The kernel command line is invalid: {cause}"


class CmdlineCapacity(VmmError):
    text = "Invalid cmdline capacity provided."


class CmdlineTooLong(VmmError):
    text = "Inserting string would make command line too long."


class CmdlineNotPrintable(VmmError):
    text = "String contains a non-printable ASCII character."


class CmdlineOnlyInitArgs(VmmError):
    text = "Cmdline cannot contain only init args."


# --- starting the microVM ---------------------------------------------------------------------------------------------


class StartError(VmmError):
    text = "Start microvm error: {cause}"


class NoKernelConfigured(VmmError):
    text = "Cannot start microvm without kernel configuration."


class StartCmdlineError(VmmError):
    text = "Invalid kernel command line: {cause}"


class MemoryConfigError(VmmError):
    text = "Invalid Memory Configuration: {cause}"


class MemoryRegionError(VmmError):
    text = "Cannot create mmap region: {cause}"


class SystemConfigError(VmmError):
    text = "System configuration error: {cause}"


class KernelLoadError(VmmError):
    text = (
        "Cannot load kernel due to invalid memory configuration or invalid kernel image: Kernel Loader: {cause}"
    )


class BadKernelImage(VmmError):
    """What is wrong with the image; `cause` is the loader's own sentence."""

    text = "{cause}"


class No64BitEntry(VmmError):
    text = "bzImage does not provide a 64-bit entry point"


class InvalidE820(VmmError):
    text = "Invalid e820 setup params."


class MpTableError(VmmError):
    text = "Error writing MP table to memory: {cause}"


class AcpiError(VmmError):
    text = "Error configuring ACPI: {cause}"


class InitrdLoadError(VmmError):
    text = "Error with initrd initialization: {cause}."


class InitrdAddressError(VmmError):
    text = "Failed to compute the initrd address."


class InitrdReadError(VmmError):
    text = "Cannot copy initrd file fd: {cause}"


class InitrdMetadataError(VmmError):
    text = "Cannot image metadata: {cause}"


class AttachDeviceError(VmmError):
    text = "Could not attach device: {cause}"


class EngineError(VmmError):
    """The engine cannot make or run a virtual machine here; the sentence says why and what to do."""

    text = "Kvm error: {cause}"


class MissingDevice(VmmError):
    """A configured device that this build does not have yet; deleted when the device lands."""

    text = "This build of Hibana has no {device} device yet; remove it from the configuration to start the microVM."


# --- i8042 ------------------------------------------------------------------------------------------------------------


class I8042Error(VmmError):
    text = "I8042 error: {cause}"


class I8042BufferFull(VmmError):
    text = "i8042 internal buffer full."


# --- buses and allocation ---------------------------------------------------------------------------------------------


class BusOverlap(VmmError):
    text = "The insertion failed because the new device overlapped with an old device."


class BusZeroRange(VmmError):
    text = "Failed to operate on zero sized range."


class ResourceNotAvailable(VmmError):
    text = "The requested resource is not available."
