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


class ActionError(VmmError):
    """A failure as the client sees it; the other sentences appear as the `{cause}` of one of these."""


class RequestError(VmmError):
    """A request that is refused before anyone is asked to act on it."""


class GuestFault(Exception):
    """The guest broke the specification; never leaves the device that noticed."""


# Where musl words the errors of the operating system differently; clients of the reference's static binaries match it.
_MUSL: Final = {
    errno.EIO: "I/O error",
    errno.ENOMEM: "Out of memory",
    errno.EBUSY: "Resource busy",
    errno.EXDEV: "Cross-device link",
    errno.EMFILE: "No file descriptors available",
    errno.ENOTTY: "Not a tty",
    errno.ESPIPE: "Invalid seek",
    errno.ERANGE: "Result not representable",
    errno.EDEADLK: "Resource deadlock would occur",
    errno.ENAMETOOLONG: "Filename too long",
    errno.ELOOP: "Symbolic link loop",
    errno.EOVERFLOW: "Value too large for data type",
    errno.ENOTSOCK: "Not a socket",
    errno.EOPNOTSUPP: "Not supported",
    errno.EADDRINUSE: "Address in use",
    errno.EADDRNOTAVAIL: "Address not available",
    errno.ENOTCONN: "Socket not connected",
    errno.ETIMEDOUT: "Operation timed out",
    errno.EDQUOT: "Quota exceeded",
}


def os_text(error: OSError | ValueError) -> str:
    """Render an operating system error as the reference does: `No such file or directory (os error 2)`.

    Nor is a path with a NUL byte shown to the operating system there; Python raises ValueError.
    """
    if isinstance(error, ValueError):
        return "file name contained an unexpected NUL byte"
    number = error.errno or 0
    return f"{_MUSL.get(number) or os.strerror(number)} (os error {number})"


_KINDS: Final = {
    errno.ENOENT: "NotFound",
    errno.EACCES: "PermissionDenied",
    errno.EPERM: "PermissionDenied",
    errno.EISDIR: "IsADirectory",
    errno.ENOTDIR: "NotADirectory",
    errno.ENAMETOOLONG: "InvalidFilename",
    errno.ELOOP: "FilesystemLoop",
    errno.EFBIG: "FileTooLarge",
    errno.ETIMEDOUT: "TimedOut",
}


def os_debug(error: OSError) -> str:
    """Render an operating system error as Rust's debug form, which the reference's panics show."""
    number = error.errno or 0
    message = _MUSL.get(number) or os.strerror(number)
    return f'Os {{ code: {number}, kind: {_KINDS.get(number, "Uncategorized")}, message: "{message}" }}'


# --- command line -----------------------------------------------------------------------------------------------------


class ArgumentsError(VmmError):
    text = r"Arguments parsing error: {cause} \n\nFor more information try --help."  # the reference prints it unescaped
    exit_code = 153


class UnexpectedArgument(VmmError):
    text = "Found argument '{argument}' which wasn't expected, or isn't valid in this context."


class MissingArgumentValue(VmmError):
    text = "The argument '{name}' requires a value, but none was supplied."


class DuplicateArgument(VmmError):
    text = "The argument '{name}' was provided more than once."


class MissingArgument(VmmError):
    text = "Argument '{name}' required, but not found."


class ForbiddenArgument(VmmError):
    text = "Argument '{other}' cannot be used together with argument '{name}'."


class InvalidLogLevel(VmmError):
    text = (
        "Invalid value for logger level: Failed to parse string to level filter: {level}."
        "Possible values: [Error, Warning, Info, Debug]"
    )
    exit_code = 152


class Fatal(VmmError):
    """A failure that ends the process, whatever it was asked to do."""


class Panic(Fatal):
    """A mistake of the user's that the reference answers with a panic: two log lines, then SIGABRT."""

    text = "{message}"
    exit_code = 134


class InvalidInstanceId(Panic):
    text = "Invalid instance ID: {problem}"


class InvalidNumber(Panic):
    text = "'{name}' parameter expected to be of '{type}' type.: ParseIntError {{ kind: {kind} }}"


class FileUnreadable(Panic):
    text = "Unable to open or read from the {what} file: {cause}"


class MetadataPanic(Panic):
    text = "{message}"


class LoggerInitError(VmmError):
    text = "Could not initialize logger: {cause}"


class MetricsStartError(VmmError):
    text = "Could not initialize metrics: {cause}"


class UnknownEngine(VmmError):
    text = "There is no engine {name!r}. Choose one of {choices}."
    exit_code = 152


class EnablePciNotHere(VmmError):
    """Deleted when the PCI transport lands."""

    text = "This build of Hibana has no PCI transport yet. Leave --enable-pci out."


class SnapshotFormatNotHere(VmmError):
    """Deleted when snapshots land."""

    text = "When printing Snapshot Data format: this build of Hibana has no snapshots yet."


class SignalHandlersError(VmmError):
    text = "Failed to register signal handlers: {cause}"


class DescriptorTableError(VmmError):
    text = "Failed to resize fd table: Failed to close dup2'd file descriptor"


# --- hibana: the friendly program -------------------------------------------------------------------------------------


class UnknownCommand(VmmError):
    text = "There is no command {name!r}; `hibana --help` lists those that there are."


# --- seccomp: filters of the VMM, and their compiler ------------------------------------------------------------------


class SeccompError(VmmError):
    text = "Seccomp error: {cause}"


class FilterFileError(VmmError):
    text = "Filter file open error: {cause}"


class FilterFormatError(VmmError):
    text = "Filter deserialization failed: {cause}"


class FilterReadError(VmmError):
    text = "Failed to read input: {cause}"


class FilterFileTooLarge(VmmError):
    text = "Input size {size} exceeds limit of 100000 bytes"


class FilterFileBroken(VmmError):
    text = "Bitcode deserialization failed: {cause}"


class InvalidThreadCategories(VmmError):
    text = "Invalid thread categories: {names}"


class MissingThreadCategory(VmmError):
    text = "Missing thread category: {name}"


class FilterTooLong(VmmError):
    text = "Filter length exceeds the maximum size of 4096 instructions"


class FilterRefused(VmmError):
    text = "prctl` syscall failed with error code: {cause}"  # the backtick is the reference's


class VmmFilterError(Fatal):
    text = "Failed to install vmm seccomp filter: {cause}"


class VmmFilterRunError(VmmError):
    text = "{mode}Error error: {cause}"


class VcpuFilterError(Panic):
    text = "Failed to set the requested seccomp filters on vCPU {index}: Error: {cause}"


class PolicyOpenError(VmmError):
    text = "Cannot open input file: {cause}"


class PolicyReadError(VmmError):
    text = "Cannot read input file: {cause}"


class PolicyJsonError(VmmError):
    text = "Cannot deserialize json: {cause}"


class UnknownArchitecture(VmmError):
    text = "Cannot parse arch: {name}"


class UnknownSyscall(VmmError):
    text = "Cannot add libseccomp syscall"


class SyscallRuleError(VmmError):
    text = "Cannot add libseccomp syscall rule"


class FilterCreateError(VmmError):
    text = "Cannot create output file: {cause}"


class FilterFileTooLong(VmmError):
    text = "Serialized BPF exceeds size limit of 100000 bytes"


# --- API server -------------------------------------------------------------------------------------------------------


class ApiSocketInUse(VmmError):
    text = "RunWithApiError error: Failed to open the API socket at: {path}. Check that it is not already used."


class ApiServerError(VmmError):
    text = "RunWithApiError error: Failed to bind and run the HTTP server: IO error: {cause}"


# --- logger and metrics -----------------------------------------------------------------------------------------------


class LogFileError(VmmError):
    text = "Failed to open target file: {cause}"


class MetricsInitError(VmmError):
    text = "Cannot initialize the metrics system due to bad user input: {cause}"


class MetricsConfiguredTwice(VmmError):
    text = "Reinitialization of metrics not allowed."


class MetricsWriteError(VmmError):
    text = "Failed to write metrics: {cause}"


# --- JSON -------------------------------------------------------------------------------------------------------------


class JsonError(VmmError):
    """A JSON text that is malformed or does not say what it should; `line` is 0 where no place is to blame."""

    text = "{message}{place}"

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        self.message, self.line, self.column = message, line, column
        super().__init__(message=message, place=f" at line {line} column {column}" if line else "")


# --- files named by the user ------------------------------------------------------------------------------------------


class HostFileError(VmmError):
    """A file that cannot be opened; `cause` is the operating system's sentence."""

    text = "{cause}"


# --- requests that nobody is asked to act on --------------------------------------------------------------------------


class GetWithBody(RequestError):
    text = "GET request cannot have a body."


class EmptyPut(RequestError):
    text = "Empty PUT request."


class EmptyPatch(RequestError):
    text = "Empty PATCH request."


class DeleteWithBody(RequestError):
    text = "Empty Delete request."


class InvalidPathMethod(RequestError):
    text = "Invalid request method and/or path: {method} {path}."

    def __init__(self, method: str, path: str) -> None:
        self.method, self.path = method, path
        super().__init__(method=method, path=path)


class UnrecognizedPath(RequestError):
    text = "Unrecognized {method} request path `{path}`."


class MissingSnapshotOperation(RequestError):
    text = "Missing snapshot operation type."


class EmptyId(RequestError):
    text = "The ID cannot be empty."


class InvalidId(RequestError):
    text = "API Resource IDs can only contain alphanumeric characters and underscores."


class IdMismatch(RequestError):
    text = "The id from the path does not match the id from the body!"


class InterfaceIdMismatch(RequestError):
    text = "The id from the path [{path_id}] does not match the id from the body [{body_id}]!"


class UnreadableBody(RequestError):
    text = "An error occurred when deserializing the json body of a request: {cause}."

    def __init__(self, cause: JsonError) -> None:
        self.cause = cause
        super().__init__(cause=cause)


# --- which verb is legal when -----------------------------------------------------------------------------------------


class NotBeforeStart(ActionError):
    text = "The requested operation is not supported before starting the microVM."


class NotAfterStart(ActionError):
    text = "The requested operation is not supported after starting the microVM."


class InternalVmmError(ActionError):
    text = "Internal VMM error: {cause}"


class VcpusDoNotAnswer(VmmError):
    text = "Failed to message the vCPUs."


# --- machine configuration --------------------------------------------------------------------------------------------


class MachineConfigError(ActionError):
    text = "Machine config error: {cause}"


class InvalidMemorySize(VmmError):
    text = "The memory size (MiB) is either 0, or not a multiple of the configured page size."


class InvalidVcpuCount(VmmError):
    text = "The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is enabled."


class SmallerThanBalloon(VmmError):
    text = "The memory size (MiB) is smaller than the previously set balloon device target size."


# --- boot source ------------------------------------------------------------------------------------------------------


class BootSourceError(ActionError):
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


class CmdlineNul(VmmError):
    text = "Null terminator detected in the command line structure."


# --- devices: drives --------------------------------------------------------------------------------------------------


class DriveError(ActionError):
    text = "Drive config error: {cause}"


class RootDriveExists(VmmError):
    text = "A root block device already exists!"


class RootIsPmem(VmmError):
    text = "Attempt to add block as a root device while the root device defined as a pmem device"


class CreateDriveError(VmmError):
    text = "Unable to create the virtio block device: {cause}"


class InvalidDriveConfig(VmmError):
    text = "Invalid block config."


class VirtioDriveError(VmmError):
    text = "Virtio backend error: {cause}"


class BlockDeviceError(VmmError):
    """What a drive of a running microVM says."""

    text = "Block: {cause}"


class WrongDriveBackend(VmmError):
    text = "Running method expected different backend."


class BackingFileError(VmmError):
    text = "Error manipulating the backing file: {cause} {path}"


class IoEngineError(VmmError):
    text = "Error coming from the IO engine: {cause}"


class AsyncEngineError(VmmError):
    text = "Async error: {cause}"


class IoUringError(VmmError):
    text = "IoUring: {cause}"


class IoUringSetupError(VmmError):
    text = "Error calling io_uring_setup: {cause}"


class IoUringProbeError(VmmError):
    text = "Error probing the io_uring subsystem: {cause}"


class MissingIoUringFeature(VmmError):
    text = "Required feature is not supported on the host kernel: {feature}"


class MissingIoUringOperation(VmmError):
    text = "Required operation is not supported on the host kernel: {operation}"


class IoUringRestrictionsError(VmmError):
    text = "Could not register restrictions: {cause}"


class IoUringEventFdError(VmmError):
    text = "Could not register eventfd: {cause}"


class IoUringFileError(VmmError):
    text = "Could not register file: {cause}"


class IoUringEnableError(VmmError):
    text = "Could not enable the ring: {cause}"


# --- devices: network interfaces --------------------------------------------------------------------------------------


class NetworkError(ActionError):
    text = "Network config error: {cause}"


class MacInUse(VmmError):
    text = "The MAC address is already in use: {mac}"


class CreateNetworkError(VmmError):
    text = "Could not create the network device: {cause}"


class TapOpenError(VmmError):
    text = "Open tap device failed: {cause}"


class TunUnavailable(VmmError):
    text = "Couldn't open /dev/net/tun: {cause}"


class InvalidTapName(VmmError):
    text = "Invalid interface name"


class CreateTapError(VmmError):
    text = (
        "Error while creating ifreq structure: {cause}. Invalid TUN/TAP Backend provided by {name}. Check our"
        " documentation on setting up the network devices."
    )


class TapHeaderError(VmmError):
    text = "Setting vnet header size failed: {cause}"


class TapHeaderSizeError(VmmError):
    text = "Error while setting size of the vnet header: {cause}"


class TapOffloadError(VmmError):
    text = "Error while setting the offload flags: {cause}"


class InvalidMtu(VmmError):
    text = "MTU {mtu} is out of range [68, 65535]"


# --- devices: persistent memory ---------------------------------------------------------------------------------------


class PmemError(ActionError):
    text = "Pmem config error: {cause}"


class RootIsDrive(VmmError):
    text = "Attempt to add pmem as a root device while the root device defined as a block device"


class RootPmemExists(VmmError):
    text = "A root pmem device already exist"


# --- devices: vsock, entropy ------------------------------------------------------------------------------------------


class VsockError(ActionError):
    text = "Vsock config error: {cause}"


class EntropyError(ActionError):
    text = "Entropy config error: {cause}"


# --- devices: balloon -------------------------------------------------------------------------------------------------


class BalloonError(ActionError):
    text = "Balloon config error: {cause}"


class BalloonUpdateError(ActionError):
    text = "Balloon update error: {cause}"


class NoBalloon(VmmError):
    text = "No balloon device found."


class BalloonTooLarge(VmmError):
    text = "Amount of pages requested is too large."


# --- devices: hotpluggable memory -------------------------------------------------------------------------------------


class MemoryHotplugError(ActionError):
    text = "Memory hotplug config error: {cause}"


class MemoryHotplugUpdateError(ActionError):
    text = "Memory hotplug update error: {cause}"


class BlockSizeTooSmall(VmmError):
    text = "Block size must not be lower than 2 MiB"


class BlockSizeNotPowerOfTwo(VmmError):
    text = "Block size must be a power of 2"


class SlotSizeTooSmall(VmmError):
    text = "Slot size must not be lower than 128 MiB"


class SlotSizeNotMultiple(VmmError):
    text = "Slot size must be a multiple of block size ({block_size_mib} MiB)"


class TotalSizeTooSmall(VmmError):
    text = "Total size must not be lower than slot size ({slot_size_mib} MiB)"


class TotalSizeNotMultiple(VmmError):
    text = "Total size must be a multiple of slot size ({slot_size_mib} MiB)"


# --- metadata service -------------------------------------------------------------------------------------------------


class MmdsConfigError(ActionError):
    text = "MMMDS config error: {cause}"


class NoMmdsInterface(VmmError):
    text = "The list of network interface IDs that allow forwarding MMDS requests is empty."


class MmdsAddressNotLinkLocal(VmmError):
    text = "The MMDS IPv4 address is not link local."


class UnknownMmdsInterface(VmmError):
    text = (
        "The list of network interface IDs provided contains at least one ID that does not correspond to any existing"
        " network interface."
    )


class MmdsError(ActionError):
    text = "MMDS error: {cause}"


class MmdsLimitError(ActionError):
    text = "MMDS limit exceeded error: {cause}"
    status = 413


class MmdsDoesNotFit(VmmError):
    text = "The MMDS patch request doesn't fit."


class MmdsNotInitialized(VmmError):
    text = "The MMDS data store is not initialized."


# --- what the operator sees -------------------------------------------------------------------------------------------


class LoggerError(ActionError):
    text = "Logger error: {cause}"


class MetricsError(ActionError):
    text = "Metrics error: {cause}"


# --- snapshots --------------------------------------------------------------------------------------------------------


class CreateSnapshotError(ActionError):
    text = "Create snapshot error: {cause}"


class LoadSnapshotError(ActionError):
    text = "Load snapshot error: {cause}"


class LoadAfterConfiguration(VmmError):
    text = "Loading a microVM snapshot not allowed after configuring boot-specific resources."


# --- the configuration file -------------------------------------------------------------------------------------------


class ConfigFileError(VmmError):
    text = "Configuration for VMM from one single json failed: {cause}"


class ConfigFileStartError(VmmError):
    text = "Could not Start MicroVM from one single json: {cause}"


class BuildFromJsonError(VmmError):
    text = "{mode}Error error: Failed to build MicroVM from Json: {cause}"


class MetadataFileError(VmmError):
    text = "{mode}Error error: Failed to build MicroVM: Populating MMDS from file failed: {cause}."


class StoppedWithError(VmmError):
    text = "{mode}Error error: {words} an error: GenericError"


class InvalidJson(VmmError):
    text = "Invalid JSON: {cause}"


class FileMachineError(VmmError):
    text = "VM config error: {cause}"


class FileOperationError(VmmError):
    text = "File operation error: {cause}"


class FileDriveError(VmmError):
    text = "Block device error: {cause}"


class FileNetworkError(VmmError):
    text = "Network device error: {cause}"


class FileVsockError(VmmError):
    text = "Vsock device error: {cause}"


class FileBalloonError(VmmError):
    text = "Balloon device error: {cause}"


class FileMmdsConfigError(VmmError):
    text = "MMDS config error: {cause}"


class FileEntropyError(VmmError):
    text = "Entropy device error: {cause}"


class FilePmemError(VmmError):
    text = "Pmem device error: {cause}"


class InvalidMetadata(VmmError):
    text = "MMDS error: metadata provided not valid json: {cause}"


# --- starting the microVM ---------------------------------------------------------------------------------------------


class StartError(ActionError):
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
        "Cannot load kernel due to invalid memory configuration or invalid kernel image:"
        " Kernel Loader: failed to load {format} kernel image: Kernel Loader: {cause}"
    )


class BadKernelImage(VmmError):
    """What is wrong with the image; `cause` is the loader's own sentence."""

    text = "{cause}"


class No64BitEntry(VmmError):
    text = "bzImage does not provide a 64-bit entry point"


class CmdlineLoadError(VmmError):
    text = "Cannot load command line string: {cause}"


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


class InitrdImageError(VmmError):
    text = "Cannot load initrd due to an invalid image: {cause}"


class InitrdMetadataError(VmmError):
    text = "Cannot image metadata: {cause}"


class StartInternalError(VmmError):
    text = "Internal error while starting microVM: {cause}"


class VcpuThreadError(VmmError):
    text = "Cannot spawn Vcpu thread: {cause}"


class DeviceManagerError(VmmError):
    text = "Failed to create device manager: {cause}"


class SerialOutError(VmmError):
    """The file of `serial_out_path` cannot be opened; the reference words it as if it were an eventfd."""

    text = "Error with EventFd: {cause}"


class AttachDeviceError(VmmError):
    text = "Could not attach device: {cause}"


class MmioTransportError(VmmError):
    text = "MMIO transport error: {cause}"


class MmioResourceError(VmmError):
    text = "Failed to allocate requested resource: {cause}"


class MmioCmdlineError(VmmError):
    text = "Failed to allocate requested resourc: {cause}"  # as the reference spells it


class EngineError(VmmError):
    """The engine cannot make or run a virtual machine here; the sentence says why and what to do."""

    text = "Kvm error: {cause}"


class MissingDevice(VmmError):
    """A configured device that this build does not have yet; deleted when the device lands."""

    text = "This build of Hibana has no {device} device yet; remove it from the configuration to start the microVM."


# --- a running microVM ------------------------------------------------------------------------------------------------


class PciNotEnabled(ActionError):
    text = "PCI is not enabled"


class DeviceNotFound(VmmError):
    text = "Failed perform action on device: Device not found"


class PatchDriveError(VmmError):
    text = "Unable to patch the block device: {cause} Please verify the request arguments."


class PatchNetError(VmmError):
    text = "Unable to update the net device: {cause}"


class DeviceNotFoundToPatchPmem(VmmError):
    text = (
        "Unable to patch the pmem device: Failed perform action on device: Device not found"
        " Please verify the request arguments."
    )


class FlushMetricsError(VmmError):
    text = "Metrics error: {cause}"


class SaveStateWhileRunning(VmmError):
    text = "Cannot save the microVM state: Operation not allowed: save/restore unavailable while running"


class NoSnapshots(VmmError):
    """Deleted when snapshots land."""

    text = "Cannot save the microVM state: Operation not allowed: this build of Hibana has no snapshots yet"


class LoadSnapshotNotHere(VmmError):
    """Deleted when snapshots land."""

    text = "Failed to restore from snapshot: this build of Hibana has no snapshots yet"


class CpuTemplateError(VmmError):
    text = "Failed to get CPU template: {cause}"


class CpuVendorMismatch(VmmError):
    text = "CPU vendor mismatched between actual CPU and CPU template."


class CpuModelNotPermitted(VmmError):
    text = "The current CPU model is not permitted to apply the CPU template."


class GuestConfigError(VmmError):
    text = "Failed to create guest config: {cause}"


class UnknownCpuVendor(VmmError):
    text = "Can create cpuid from raw: CPUs made by {vendor!r} are not supported."  # "Can create": as the reference


class TemplateCpuidNotSupported(VmmError):
    text = "Template changes a CPUID entry not supported by KVM: Leaf: {leaf:x}, Subleaf: {subleaf:x}"


class TemplateMsrNotSupported(VmmError):
    text = "Template changes an MSR entry not supported by KVM: Register Address: {addr:x}"


class StripInputsError(VmmError):
    text = "The number of inputs should be two or more."


class NotInCpuConfiguration(VmmError):
    text = "{register} not found in CPU configuration."


class CpuValueMismatch(VmmError):
    text = (
        "Value for {register} mismatched.\n"
        "* CPU template     : {wanted}\n"
        "* CPU configuration: {found}\n"
        "* Diff             : {marks}"
    )


class VmResourcesError(VmmError):
    text = "Failed to create VmResources: {cause}"


class BuildMicrovmError(VmmError):
    text = "Failed to build microVM: {cause}"


class ToolFileError(VmmError):
    text = "Failed to operate file: {path}: {cause}"


class ToolJsonError(VmmError):
    text = "Failed to serialize/deserialize JSON file: {path}: {cause}"


class FingerprintSourceError(VmmError):
    text = "Failed to read {path}: {cause}"


class FingerprintsDiffer(VmmError):
    text = "{differences}"


class CpuIsFixed(VmmError):
    text = "The soft engine has one fixed CPU and takes no CPU template."


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


# --- the jailer -------------------------------------------------------------------------------------------------------


class JailArgumentsError(VmmError):
    text = "Failed to parse arguments: {cause}"


class JailIdLengthError(VmmError):
    text = "Invalid instance ID: Invalid len ({size});  the length must be between 1 and 64"


class JailIdCharacterError(VmmError):
    text = "Invalid instance ID: Invalid char ({character}) at position {at}"


class CanonicalizeError(VmmError):
    text = "Failed to canonicalize path {path}: {cause}"


class NotAFile(VmmError):
    text = "{path} is not a file"


class NotADirectory(VmmError):
    text = "{path} is not a directory"


class InvalidUid(VmmError):
    text = "Invalid uid: {text}"


class InvalidGid(VmmError):
    text = "Invalid gid: {text}"


class InvalidParentCgroup(VmmError):
    text = "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'"


class InvalidCgroupVersion(VmmError):
    text = "{text} is an invalid cgroup version specifier"


class NoCgroupHierarchy(VmmError):
    text = "Hierarchy not found: No hierarchy found for this cgroup version."


class InvalidCgroupFormat(VmmError):
    text = "Invalid format for cgroups: {text}"


class InvalidCgroupFile(VmmError):
    text = "Cgroup invalid file: {file}"


class NoCgroupController(VmmError):
    text = "Controller {name} is unavailable"


class CgroupInheritError(VmmError):
    text = "Failed to inherit cgroups configurations from file {file} in path {folder}"


class CgroupMoveError(VmmError):
    text = (
        "Failed to move process to cgroup ({folder}): {cause}.\n"
        "Hint: If you intended to create a child cgroup under {folder}, pass any --cgroup parameters."
    )


class InvalidLimitFormat(VmmError):
    text = "Invalid format for resources limits: {text}"


class InvalidLimitValue(VmmError):
    text = "Invalid limit value for resource: {value}: {cause}"


class InvalidLimitName(VmmError):
    text = "Invalid resource argument: {name}"


class SetLimitError(VmmError):
    text = "Failed to set limit for resource: {what}"


class JailOpenError(VmmError):
    text = "Failed to open {path}: {cause}"


class JailHardLink(VmmError):
    text = "Detected hard link at: {path}"


class JailCopyError(VmmError):
    text = "Failed to copy {source} to {target}: {cause}"


class JailMetadataError(VmmError):
    text = "Cannot get metadata for a file: {path}: {cause}"


class JailOpenFileError(VmmError):
    text = "Failed to open file {path}: {cause}"


class JailWriteError(VmmError):
    text = "Failed to write to {path}: {cause}"


class JailReadError(VmmError):
    text = "Failed to read file {path} into a string: {cause}"


class JoinNetworkError(VmmError):
    text = "Failed to join network namespace: netns: {cause}"


class UnshareMountsError(VmmError):
    text = "Failed to unshare into new mount namespace: {cause}"


class PropagationError(VmmError):
    text = "Failed to change the propagation type to slave: {cause}"


class BindRootError(VmmError):
    text = "Failed to bind mount the jail root directory: {cause}"


class EnterRootError(VmmError):
    text = "Failed to change current directory: {cause}"


class CreateOldRootError(VmmError):
    text = "Failed to create the jail root directory before pivoting root: {cause}"


class PivotRootError(VmmError):
    text = "Failed to pivot root: {cause}"


class EnterJailError(VmmError):
    text = "Failed to chdir into chroot directory: {cause}"


class UnmountOldRootError(VmmError):
    text = "Failed to unmount the old jail root: {cause}"


class RemoveOldRootError(VmmError):
    text = "Failed to remove old jail root directory: {cause}"


class JailFolderError(VmmError):
    text = "Failed to create directory {path}: {cause}"


class JailModeError(VmmError):
    text = "Failed to change permissions on {path}: {cause}"


class JailOwnerError(VmmError):
    text = "Failed to change owner for {path}: {cause}"


class DeviceNodeError(VmmError):
    text = "Failed to create {node} via mknod inside the jail: {cause}"


class DaemonizeError(VmmError):
    text = "Failed to daemonize: {cause}"


class NewSessionError(VmmError):
    text = "Failed to daemonize: setsid: {cause}"


class DuplicateError(VmmError):
    text = "Failed to duplicate fd: {cause}"


class NewPidNamespaceError(VmmError):
    text = "Failed cloning into a new child process: {cause}"


class ExecError(VmmError):
    text = "Failed to exec into Firecracker: {cause}"


class SanitizeError(Panic):
    text = "Failed to sanitize the Jailer process: Failed to call close range syscall: {cause}"
