"""The registers a kernel starts with, from those of a CPU after reset (machine.md §3.2-§3.5)."""

from struct import pack_into, unpack_from
from typing import Final

from msgspec.structs import replace

from hibana.boot.entry import BootProtocol, Entry
from hibana.boot.x86.gdt import GDT, GDTR, IDTR, segment
from hibana.engine.state import Fpu, Regs, Sregs, VcpuState
from hibana.memory import layout

_CR0_PE: Final = 1 << 0
_CR0_ET: Final = 1 << 4
_CR0_PG: Final = 1 << 31
_CR4_PAE: Final = 1 << 5
_EFER_LME: Final = 1 << 8
_EFER_LMA: Final = 1 << 10

_CODE_SELECTOR: Final = 0x08
_DATA_SELECTOR: Final = 0x10
_TSS_SELECTOR: Final = 0x18

_LVT_LINT0: Final = 0x350
_LVT_LINT1: Final = 0x360
_DELIVERY_MODE: Final = 0x700
_DELIVER_NMI: Final = 0x400
_DELIVER_EXTINT: Final = 0x700  # the 8259A answers

BOOT_MSRS: Final = {
    0x010: 0,  # IA32_TSC
    0x174: 0,  # IA32_SYSENTER_CS
    0x175: 0,  # IA32_SYSENTER_ESP
    0x176: 0,  # IA32_SYSENTER_EIP
    0x1A0: 1,  # IA32_MISC_ENABLE: fast strings
    0x2FF: 0x806,  # IA32_MTRR_DEF_TYPE: MTRRs on, write-back
    0xC0000081: 0,  # IA32_STAR
    0xC0000082: 0,  # IA32_LSTAR
    0xC0000083: 0,  # IA32_CSTAR
    0xC0000084: 0,  # IA32_FMASK
    0xC0000102: 0,  # IA32_KERNEL_GS_BASE
}


def configure(reset: VcpuState, entry: Entry) -> VcpuState:
    """Turn the state of a CPU after reset into the one a kernel expects at its entry.

    Every CPU gets the same: where the others start is decided later, by the kernel's SIPI.
    """
    return replace(
        reset,
        regs=_regs(entry),
        sregs=_sregs(reset.sregs, entry.protocol),
        fpu=Fpu(),
        msrs=reset.msrs | BOOT_MSRS,
        lapic=_lapic(reset.lapic),
    )


def _regs(entry: Entry) -> Regs:
    if entry.protocol is BootProtocol.PVH:
        return Regs(rip=entry.addr, rbx=layout.PVH_INFO)
    return Regs(rip=entry.addr, rsp=layout.BOOT_STACK, rbp=layout.BOOT_STACK, rsi=layout.ZERO_PAGE)


def _sregs(reset: Sregs, protocol: BootProtocol) -> Sregs:
    descriptors = GDT[protocol]
    data = segment(descriptors.data, _DATA_SELECTOR)
    sregs = replace(
        reset,
        cs=segment(descriptors.code, _CODE_SELECTOR),
        ds=data,
        es=replace(data),
        fs=replace(data),
        gs=replace(data),
        ss=replace(data),
        tr=segment(descriptors.tss, _TSS_SELECTOR),
        gdt=replace(GDTR),
        idt=replace(IDTR),
    )
    if protocol is BootProtocol.PVH:
        sregs.cr0 = _CR0_PE | _CR0_ET
        sregs.cr4 = 0
    else:
        sregs.cr0 |= _CR0_PE | _CR0_PG
        sregs.cr3 = layout.PML4
        sregs.cr4 |= _CR4_PAE
        sregs.efer |= _EFER_LME | _EFER_LMA
    return sregs


def _lapic(reset: bytes) -> bytes:
    """Connect the interrupt pins as MP tables promise: LINT0 to the 8259A, LINT1 to NMI."""
    page = bytearray(reset)
    for register, mode in ((_LVT_LINT0, _DELIVER_EXTINT), (_LVT_LINT1, _DELIVER_NMI)):
        (lvt,) = unpack_from("<I", page, register)
        pack_into("<I", page, register, lvt & ~_DELIVERY_MODE | mode)
    return bytes(page)
