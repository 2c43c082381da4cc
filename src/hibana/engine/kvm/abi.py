"""The kernel's interface: ioctls, records and constants (linux/kvm.h), declared once and computed, not remembered.

The request code of an ioctl is its direction, its number and the size of its record, so a record of a wrong size cannot
hide. A record is a `struct.Struct` with the fields in the kernel's order; names are the kernel's, without `kvm_`. A
test compares all of them with what a C compiler makes of the kernel's headers.
"""

import ctypes
from fcntl import ioctl
from struct import Struct
from typing import Any, Final

from hibana.errors import EngineError, os_text

API_VERSION: Final = 12

_KVM: Final = 0xAE
_WRITE: Final = 1 << 30
_READ: Final = 1 << 31


def io(number: int) -> int:
    """Compute the code of a request whose argument is a number, or nothing."""
    return _KVM << 8 | number


def iow(number: int, record: Struct) -> int:
    """Compute the code of a request that hands a record to the kernel."""
    return _WRITE | record.size << 16 | io(number)


def ior(number: int, record: Struct) -> int:
    """Compute the code of a request that the kernel answers with a record."""
    return _READ | record.size << 16 | io(number)


def iowr(number: int, record: Struct) -> int:
    """Compute the code of a request whose record goes both ways."""
    return _READ | iow(number, record)


# --- records ----------------------------------------------------------------------------------------------------------

USERSPACE_MEMORY_REGION: Final = Struct("<IIQQQ")  # slot, flags, guest_phys_addr, memory_size, userspace_addr
DIRTY_LOG: Final = Struct("<IIQ")  # slot, padding, dirty_bitmap
PIT_CONFIG: Final = Struct("<I60x")  # flags
IRQFD: Final = Struct("<IIII16x")  # fd, gsi, flags, resamplefd
IOEVENTFD: Final = Struct("<QQIiI36x")  # datamatch, addr, len, fd, flags
MSR_LIST: Final = Struct("<I")  # nmsrs, then as many numbers
MSRS: Final = Struct("<II")  # nmsrs, padding, then as many entries
MSR_ENTRY: Final = Struct("<IIQ")  # index, reserved, data
CPUID2: Final = Struct("<II")  # nent, padding, then as many entries
CPUID_ENTRY2: Final = Struct("<7I12x")  # function, index, flags, eax, ebx, ecx, edx
IRQ_ROUTING: Final = Struct("<II")  # nr, flags, then as many entries
IRQ_ROUTING_ENTRY: Final = Struct("<IIII8I")  # gsi, type, flags, padding, a union

REGS: Final = Struct("<18Q")  # rax rbx rcx rdx rsi rdi rsp rbp r8-r15 rip rflags
SREGS: Final = Struct("<" + 8 * "QIH9Bx" + 2 * "QH6x" + "7Q" + "32x")
"""cs ds es fs gs ss tr ldt: base limit selector type present dpl db s l g avl unusable; gdt idt: base limit; cr0 cr2
cr3 cr4 cr8 efer apic_base, interrupt_bitmap.
"""
DEBUGREGS: Final = Struct("<7Q72x")  # db[4], dr6, dr7, flags
XCRS: Final = Struct("<II384s")  # nr_xcrs, flags, entries
XCR: Final = Struct("<IIQ")  # xcr, reserved, value
XSAVE: Final = Struct("<4096s")
LAPIC_STATE: Final = Struct("<1024s")
MP_STATE: Final = Struct("<I")
VCPU_EVENTS: Final = Struct("<4BI4B3BxII4BB26xBQ")
"""exception: injected nr has_error_code pending error_code; interrupt: injected nr soft shadow; nmi: injected pending
masked; sipi_vector, flags; smi: smm pending smm_inside_nmi latched_init; triple_fault; exception: has_payload payload.
"""

IRQCHIP: Final = Struct("<II512s")  # chip_id, padding, the chip
PIC_STATE: Final = Struct("<16B")
IOAPIC_STATE: Final = Struct("<QIIII24Q")  # base_address ioregsel id irr padding redirtbl
PIT_STATE2: Final = Struct("<" + 3 * "IH10Bq" + "I36x")  # channels, flags
CLOCK_DATA: Final = Struct("<QI4xQQ16x")  # clock, flags, realtime, host_tsc

# struct kvm_run: what the kernel and we share while a vCPU runs.
RUN_IMMEDIATE_EXIT: Final = 1  # offset of a byte
RUN_EXIT_REASON: Final = 8
RUN_UNION: Final = 32
RUN_MMIO_DATA: Final = 40
EXIT_IO: Final = Struct("<BBHIQ")  # direction, size, port, count, data_offset
EXIT_MMIO: Final = Struct("<Q8xIB")  # phys_addr, (data, at RUN_MMIO_DATA), len, is_write
EXIT_FAIL_ENTRY: Final = Struct("<QI")  # hardware_entry_failure_reason, cpu
EXIT_SYSTEM_EVENT: Final = Struct("<I")  # type

# --- requests ---------------------------------------------------------------------------------------------------------

# to /dev/kvm
KVM_GET_API_VERSION: Final = io(0x00)
KVM_CREATE_VM: Final = io(0x01)
KVM_GET_MSR_INDEX_LIST: Final = iowr(0x02, MSR_LIST)
KVM_CHECK_EXTENSION: Final = io(0x03)
KVM_GET_VCPU_MMAP_SIZE: Final = io(0x04)
KVM_GET_SUPPORTED_CPUID: Final = iowr(0x05, CPUID2)

# to a virtual machine
KVM_CREATE_VCPU: Final = io(0x41)
KVM_GET_DIRTY_LOG: Final = iow(0x42, DIRTY_LOG)
KVM_SET_USER_MEMORY_REGION: Final = iow(0x46, USERSPACE_MEMORY_REGION)
KVM_SET_TSS_ADDR: Final = io(0x47)
KVM_CREATE_IRQCHIP: Final = io(0x60)
KVM_GET_IRQCHIP: Final = iowr(0x62, IRQCHIP)
KVM_SET_IRQCHIP: Final = ior(0x63, IRQCHIP)  # the kernel calls it a read
KVM_SET_GSI_ROUTING: Final = iow(0x6A, IRQ_ROUTING)
KVM_IRQFD: Final = iow(0x76, IRQFD)
KVM_CREATE_PIT2: Final = iow(0x77, PIT_CONFIG)
KVM_IOEVENTFD: Final = iow(0x79, IOEVENTFD)
KVM_SET_CLOCK: Final = iow(0x7B, CLOCK_DATA)
KVM_GET_CLOCK: Final = ior(0x7C, CLOCK_DATA)
KVM_GET_PIT2: Final = ior(0x9F, PIT_STATE2)
KVM_SET_PIT2: Final = iow(0xA0, PIT_STATE2)

# to a vCPU
KVM_RUN: Final = io(0x80)
KVM_GET_REGS: Final = ior(0x81, REGS)
KVM_SET_REGS: Final = iow(0x82, REGS)
KVM_GET_SREGS: Final = ior(0x83, SREGS)
KVM_SET_SREGS: Final = iow(0x84, SREGS)
KVM_GET_MSRS: Final = iowr(0x88, MSRS)
KVM_SET_MSRS: Final = iow(0x89, MSRS)
KVM_GET_LAPIC: Final = ior(0x8E, LAPIC_STATE)
KVM_SET_LAPIC: Final = iow(0x8F, LAPIC_STATE)
KVM_SET_CPUID2: Final = iow(0x90, CPUID2)
KVM_GET_MP_STATE: Final = ior(0x98, MP_STATE)
KVM_SET_MP_STATE: Final = iow(0x99, MP_STATE)
KVM_GET_VCPU_EVENTS: Final = ior(0x9F, VCPU_EVENTS)
KVM_SET_VCPU_EVENTS: Final = iow(0xA0, VCPU_EVENTS)
KVM_GET_DEBUGREGS: Final = ior(0xA1, DEBUGREGS)
KVM_SET_DEBUGREGS: Final = iow(0xA2, DEBUGREGS)
KVM_SET_TSC_KHZ: Final = io(0xA2)
KVM_GET_TSC_KHZ: Final = io(0xA3)
KVM_GET_XSAVE: Final = ior(0xA4, XSAVE)
KVM_SET_XSAVE: Final = iow(0xA5, XSAVE)
KVM_GET_XCRS: Final = ior(0xA6, XCRS)
KVM_SET_XCRS: Final = iow(0xA7, XCRS)
KVM_KVMCLOCK_CTRL: Final = io(0xAD)
KVM_GET_XSAVE2: Final = ior(0xCF, XSAVE)

# --- constants --------------------------------------------------------------------------------------------------------

KVM_CAP_IRQCHIP: Final = 0
KVM_CAP_USER_MEMORY: Final = 3
KVM_CAP_SET_TSS_ADDR: Final = 4
KVM_CAP_EXT_CPUID: Final = 7
KVM_CAP_NR_MEMSLOTS: Final = 10
KVM_CAP_MP_STATE: Final = 14
KVM_CAP_IRQFD: Final = 32
KVM_CAP_PIT2: Final = 33
KVM_CAP_PIT_STATE2: Final = 35
KVM_CAP_IOEVENTFD: Final = 36
KVM_CAP_ADJUST_CLOCK: Final = 39
KVM_CAP_VCPU_EVENTS: Final = 41
KVM_CAP_DEBUGREGS: Final = 50
KVM_CAP_XSAVE: Final = 55
KVM_CAP_XCRS: Final = 56
KVM_CAP_XSAVE2: Final = 208

KVM_MEM_LOG_DIRTY_PAGES: Final = 1
KVM_PIT_SPEAKER_DUMMY: Final = 1
KVM_IOEVENTFD_FLAG_DATAMATCH: Final = 1
KVM_IRQCHIP_PIC_MASTER: Final = 0
KVM_IRQCHIP_PIC_SLAVE: Final = 1
KVM_IRQCHIP_IOAPIC: Final = 2
KVM_IRQ_ROUTING_IRQCHIP: Final = 1
KVM_IRQ_ROUTING_MSI: Final = 2
KVM_PIT_FLAGS_SPEAKER_DATA_ON: Final = 2
KVM_VCPUEVENT_VALID_NMI_PENDING: Final = 1
KVM_VCPUEVENT_VALID_SHADOW: Final = 4
KVM_VCPUEVENT_VALID_SMM: Final = 8

KVM_EXIT_IO: Final = 2
KVM_EXIT_IO_OUT: Final = 1
KVM_EXIT_HLT: Final = 5
KVM_EXIT_MMIO: Final = 6
KVM_EXIT_SHUTDOWN: Final = 8
KVM_EXIT_FAIL_ENTRY: Final = 9
KVM_EXIT_INTR: Final = 10
KVM_EXIT_INTERNAL_ERROR: Final = 17
KVM_EXIT_SYSTEM_EVENT: Final = 24
KVM_SYSTEM_EVENT_SHUTDOWN: Final = 1
KVM_SYSTEM_EVENT_RESET: Final = 2

# --- calls ------------------------------------------------------------------------------------------------------------

_ioctl_with_long: Final = ctypes.CDLL(None, use_errno=True).ioctl
_ioctl_with_long.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)


def call(fd: int, request: int, argument: int | bytearray = 0) -> int:
    """Make a request; a record is changed in place where the kernel answers. Raises EngineError."""
    try:
        return ioctl(fd, request, argument)
    except OSError as error:
        raise EngineError(cause=f"{name_of(request)}: {os_text(error)}") from error


def call_with_address(fd: int, request: int, addr: int) -> None:
    """Make a request with an argument that is too large for a C int, all that `fcntl` takes. Raises EngineError."""
    if _ioctl_with_long(fd, request, addr) < 0:
        raise EngineError(cause=f"{name_of(request)}: {os_text(OSError(ctypes.get_errno(), ''))}")


def get(fd: int, request: int, record: Struct) -> tuple[Any, ...]:
    """Ask for a record. Raises EngineError."""
    buffer = bytearray(record.size)
    call(fd, request, buffer)
    return record.unpack(buffer)


def put(fd: int, request: int, record: Struct, *fields: object) -> None:
    """Hand a record over. Raises EngineError."""
    call(fd, request, bytearray(record.pack(*fields)))


def name_of(request: int) -> str:
    """Give the kernel's name of a request, for messages."""
    return next((name for name, value in globals().items() if value == request and name[:4] == "KVM_"), hex(request))
