"""One vCPU's registers, from unicorn's layout to KVM's and back.

The scheduler keeps each vCPU as an image: the bytes of its CPUX86State (`ENV` in offsets.py). Both directions work on
images of vCPUs that are not running, where the flags register is complete. What follows from the registers, the
translator's `hflags`, is computed here too. What lives outside the image (TLB, breakpoints, rounding modes) must be
brought in line by whoever puts an imported image into the library.
"""

from struct import Struct
from typing import Final

from hibana.engine.soft.lapic import TPR
from hibana.engine.soft.offsets import ENV
from hibana.engine.state import DebugRegs, DescriptorTable, Fpu, Regs, Segment, Sregs, VcpuEvents, VcpuState

_U16: Final = Struct("<H")
_U32: Final = Struct("<I")
_I32: Final = Struct("<i")
_U64: Final = Struct("<Q")
_U64_MASK: Final = (1 << 64) - 1

_REGS: Final = Struct("<16Q")
_SEGMENT: Final = Struct("<I4xQII")  # SegmentCache: selector, base, limit, flags

# Descriptor attributes, as in the high half of a descriptor: (field, bit, mask).
_ATTRIBUTES: Final = (
    ("type", 8, 0xF),
    ("s", 12, 1),
    ("dpl", 13, 3),
    ("present", 15, 1),
    ("avl", 20, 1),
    ("l", 21, 1),
    ("db", 22, 1),
    ("g", 23, 1),
)

MSR_TSC: Final = 0x10
_MSRS: Final = {
    0x174: (ENV.sysenter_cs, _U32),
    0x175: (ENV.sysenter_esp, _U64),
    0x176: (ENV.sysenter_eip, _U64),
    0x1A0: (ENV.misc_enable, _U64),
    **{0x200 + i: (ENV.mtrr_var + 8 * i, _U64) for i in range(16)},
    **{msr: (ENV.mtrr_fixed + 8 * i, _U64) for i, msr in enumerate((0x250, 0x258, 0x259, *range(0x268, 0x270)))},
    0x277: (ENV.pat, _U64),
    0x2FF: (ENV.mtrr_deftype, _U64),
    0xC0000081: (ENV.star, _U64),
    0xC0000082: (ENV.lstar, _U64),
    0xC0000083: (ENV.cstar, _U64),
    0xC0000084: (ENV.fmask, _U64),
    0xC0000102: (ENV.kernelgsbase, _U64),
    0xC0000103: (ENV.tsc_aux, _U64),
}

_FSW_TOP: Final = 0x3800  # top of the register stack, which the image keeps apart

# RFLAGS.
_ARITHMETIC: Final = 0x8D5  # CF PF AF ZF SF OF
_DF: Final = 1 << 10
_TF: Final = 1 << 8
_IOPL: Final = 3 << 12
_VM: Final = 1 << 17

_CR0_PE: Final = 1 << 0
_CR0_MP_EM_TS: Final = 7 << 1
_CR4_OSFXSR: Final = 1 << 9
_CR4_SMAP: Final = 1 << 21
_EFER_LMA: Final = 1 << 10

# hflags; TF, IOPL and VM are where RFLAGS has them.
_HF_INHIBIT_IRQ: Final = 1 << 3
_HF_CS32: Final = 1 << 4
_HF_SS32: Final = 1 << 5
_HF_ADDSEG: Final = 1 << 6
_HF_PE: Final = 1 << 7
_HF_MP: Final = 1 << 9
_HF_LMA: Final = 1 << 14
_HF_CS64: Final = 1 << 15
_HF_OSFXSR: Final = 1 << 22
_HF_SMAP: Final = 1 << 23
_HF2_NMI_MASKED: Final = 1 << 2

_CC_OP_EFLAGS: Final = 1  # the arithmetic flags are in cc_src as they are
_NO_EXCEPTION: Final = -1


def export_state(image: bytes, lapic: bytes, mp_state: int, apic_base: int, host_tsc: int) -> VcpuState:
    """Read a vCPU out of its image, its local APIC's register page and what the scheduler knows of it."""
    return VcpuState(
        regs=_export_regs(image),
        sregs=_export_sregs(image, lapic, apic_base),
        fpu=_export_fpu(image),
        debugregs=_export_debugregs(image),
        events=VcpuEvents(
            interrupt_shadow=int(_u32(image, ENV.hflags) & _HF_INHIBIT_IRQ != 0),
            nmi_masked=int(_u32(image, ENV.hflags2) & _HF2_NMI_MASKED != 0),
        ),
        msrs=_export_msrs(image, host_tsc),
        lapic=lapic,
        xcr0=_u64(image, ENV.xcr0),
        mp_state=mp_state,
    )


def import_state(image: bytearray, state: VcpuState, host_tsc: int) -> None:
    """Write all that a state says into an image; the rest of the image stays."""
    _import_regs(image, state.regs)
    _import_sregs(image, state.sregs)
    _import_fpu(image, state.fpu)
    _import_debugregs(image, state.debugregs)
    _import_msrs(image, state.msrs, host_tsc)
    _U64.pack_into(image, ENV.xcr0, state.xcr0)
    _U32.pack_into(image, ENV.hflags, _hflags(state))
    hflags2 = _u32(image, ENV.hflags2) & ~_HF2_NMI_MASKED
    _U32.pack_into(image, ENV.hflags2, hflags2 | (_HF2_NMI_MASKED if state.events.nmi_masked else 0))
    _I32.pack_into(image, ENV.old_exception, _NO_EXCEPTION)


def _u32(image: bytes | bytearray, offset: int) -> int:
    return int(_U32.unpack_from(image, offset)[0])


def _u64(image: bytes | bytearray, offset: int) -> int:
    return int(_U64.unpack_from(image, offset)[0])


# --- general registers ------------------------------------------------------------------------------------------------


def _export_regs(image: bytes) -> Regs:
    rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 = _REGS.unpack_from(image, ENV.regs)
    rip, rflags = _u64(image, ENV.eip), _u64(image, ENV.eflags)
    return Regs(rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags)


def _import_regs(image: bytearray, regs: Regs) -> None:
    _REGS.pack_into(
        image,
        ENV.regs,
        *(regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi),
        *(regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15),
    )
    _U64.pack_into(image, ENV.eip, regs.rip)
    _U64.pack_into(image, ENV.eflags, regs.rflags)
    # The lazy flags say the same, for whoever computes RFLAGS before the vCPU runs.
    _U64.pack_into(image, ENV.cc_src, regs.rflags & _ARITHMETIC)
    _U32.pack_into(image, ENV.cc_op, _CC_OP_EFLAGS)
    _I32.pack_into(image, ENV.df, -1 if regs.rflags & _DF else 1)


# --- segments and control registers -----------------------------------------------------------------------------------


def _export_segment(image: bytes, offset: int) -> Segment:
    selector, base, limit, flags = _SEGMENT.unpack_from(image, offset)
    segment = Segment(base=base, limit=limit, selector=selector)
    for name, bit, mask in _ATTRIBUTES:
        setattr(segment, name, flags >> bit & mask)
    segment.unusable = 1 - segment.present
    return segment


def _import_segment(image: bytearray, offset: int, segment: Segment) -> None:
    flags = 0
    for name, bit, mask in _ATTRIBUTES:
        flags |= (getattr(segment, name) & mask) << bit
    if segment.unusable:
        flags &= ~(1 << 15)
    _SEGMENT.pack_into(image, offset, segment.selector, segment.base, segment.limit, flags)


def _export_table(image: bytes, offset: int) -> DescriptorTable:
    _, base, limit, _ = _SEGMENT.unpack_from(image, offset)
    return DescriptorTable(base=base, limit=limit)


def _export_sregs(image: bytes, lapic: bytes, apic_base: int) -> Sregs:
    es, cs, ss, ds, fs, gs = (_export_segment(image, ENV.segs + _SEGMENT.size * i) for i in range(6))
    return Sregs(
        cs=cs,
        ds=ds,
        es=es,
        fs=fs,
        gs=gs,
        ss=ss,
        tr=_export_segment(image, ENV.tr),
        ldt=_export_segment(image, ENV.ldt),
        gdt=_export_table(image, ENV.gdt),
        idt=_export_table(image, ENV.idt),
        cr0=_u64(image, ENV.cr),
        cr2=_u64(image, ENV.cr + 16),
        cr3=_u64(image, ENV.cr + 24),
        cr4=_u64(image, ENV.cr + 32),
        cr8=lapic[TPR] >> 4,
        efer=_u64(image, ENV.efer),
        apic_base=apic_base,
    )


def _import_sregs(image: bytearray, sregs: Sregs) -> None:
    for i, segment in enumerate((sregs.es, sregs.cs, sregs.ss, sregs.ds, sregs.fs, sregs.gs)):
        _import_segment(image, ENV.segs + _SEGMENT.size * i, segment)
    _import_segment(image, ENV.tr, sregs.tr)
    _import_segment(image, ENV.ldt, sregs.ldt)
    _SEGMENT.pack_into(image, ENV.gdt, 0, sregs.gdt.base, sregs.gdt.limit, 0)
    _SEGMENT.pack_into(image, ENV.idt, 0, sregs.idt.base, sregs.idt.limit, 0)
    for number, value in ((0, sregs.cr0), (2, sregs.cr2), (3, sregs.cr3), (4, sregs.cr4)):
        _U64.pack_into(image, ENV.cr + 8 * number, value)
    _U64.pack_into(image, ENV.efer, sregs.efer)


def _hflags(state: VcpuState) -> int:
    """Derive what translated code depends on."""
    sregs, rflags = state.sregs, state.regs.rflags
    hflags = sregs.ss.dpl & 3 | rflags & (_TF | _IOPL | _VM)
    hflags |= (sregs.cr0 & _CR0_MP_EM_TS) * (_HF_MP >> 1)
    for condition, flag in (
        (sregs.cr0 & _CR0_PE, _HF_PE),
        (sregs.cr4 & _CR4_OSFXSR, _HF_OSFXSR),
        (sregs.cr4 & _CR4_SMAP, _HF_SMAP),
        (sregs.efer & _EFER_LMA, _HF_LMA),
        (state.events.interrupt_shadow, _HF_INHIBIT_IRQ),
    ):
        hflags |= flag if condition else 0
    if hflags & _HF_LMA and sregs.cs.l:
        return hflags | _HF_CS32 | _HF_SS32 | _HF_CS64
    hflags |= (_HF_CS32 if sregs.cs.db else 0) | (_HF_SS32 if sregs.ss.db else 0)
    flat = hflags & _HF_PE and not hflags & _VM and hflags & _HF_CS32
    if not flat or sregs.ds.base | sregs.es.base | sregs.ss.base:
        hflags |= _HF_ADDSEG
    return hflags


# --- x87, SSE, debug registers ----------------------------------------------------------------------------------------


def _export_fpu(image: bytes) -> Fpu:
    top = _u32(image, ENV.fpstt) & 7
    physical = [image[ENV.fpregs + 16 * i : ENV.fpregs + 16 * i + 10] for i in range(8)]
    (fpus,) = _U16.unpack_from(image, ENV.fpus)
    (fcw,) = _U16.unpack_from(image, ENV.fpuc)
    (last_opcode,) = _U16.unpack_from(image, ENV.fpop)
    return Fpu(
        fpr=[bytes(physical[(top + i) & 7]).ljust(16, b"\0") for i in range(8)],
        fcw=fcw,
        fsw=fpus & ~_FSW_TOP | top << 11,
        ftwx=sum(1 << i for i in range(8) if not image[ENV.fptags + i]),
        last_opcode=last_opcode,
        last_ip=_u64(image, ENV.fpip),
        last_dp=_u64(image, ENV.fpdp),
        xmm=[bytes(image[ENV.xmm_regs + 64 * i : ENV.xmm_regs + 64 * i + 16]) for i in range(16)],
        mxcsr=_u32(image, ENV.mxcsr),
    )


def _import_fpu(image: bytearray, fpu: Fpu) -> None:
    top = fpu.fsw >> 11 & 7
    for i, register in enumerate(fpu.fpr):
        at = ENV.fpregs + 16 * (top + i & 7)
        image[at : at + 10] = register[:10]
    for i, register in enumerate(fpu.xmm):
        at = ENV.xmm_regs + 64 * i
        image[at : at + 16] = register
    for i in range(8):
        image[ENV.fptags + i] = 1 - (fpu.ftwx >> i & 1)
    _U32.pack_into(image, ENV.fpstt, top)
    _U16.pack_into(image, ENV.fpus, fpu.fsw & ~_FSW_TOP)
    _U16.pack_into(image, ENV.fpuc, fpu.fcw)
    _U16.pack_into(image, ENV.fpop, fpu.last_opcode)
    _U64.pack_into(image, ENV.fpip, fpu.last_ip)
    _U64.pack_into(image, ENV.fpdp, fpu.last_dp)
    _U32.pack_into(image, ENV.mxcsr, fpu.mxcsr)


def _export_debugregs(image: bytes) -> DebugRegs:
    dr = [_u64(image, ENV.dr + 8 * i) for i in range(8)]
    return DebugRegs(db=dr[:4], dr6=dr[6], dr7=dr[7])


def _import_debugregs(image: bytearray, debugregs: DebugRegs) -> None:
    for number, value in (*enumerate(debugregs.db), (6, debugregs.dr6), (7, debugregs.dr7)):
        _U64.pack_into(image, ENV.dr + 8 * number, value)


# --- model-specific registers -----------------------------------------------------------------------------------------


def _export_msrs(image: bytes, host_tsc: int) -> dict[int, int]:
    msrs = {msr: int(form.unpack_from(image, offset)[0]) for msr, (offset, form) in _MSRS.items()}
    msrs[MSR_TSC] = host_tsc + _u64(image, ENV.tsc_offset) & _U64_MASK
    return msrs


def _import_msrs(image: bytearray, msrs: dict[int, int], host_tsc: int) -> None:
    """Write the registers this CPU has; a state from another engine may carry more."""
    for msr, value in msrs.items():
        if msr in _MSRS:
            offset, form = _MSRS[msr]
            form.pack_into(image, offset, value & (1 << 8 * form.size) - 1)
    if MSR_TSC in msrs:
        _U64.pack_into(image, ENV.tsc_offset, msrs[MSR_TSC] - host_tsc & _U64_MASK)
