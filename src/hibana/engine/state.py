"""CPU and chip state in KVM's terms: the language in which both engines speak to boot code, snapshots and tests.

Field names, widths and orders are those of `struct kvm_regs`, `kvm_sregs`, `kvm_fpu` and so on (linux/kvm.h), so that a
state written by one engine can be read by the other.
"""

from msgspec import Struct, field


class Regs(Struct):
    """General registers (struct kvm_regs)."""

    rax: int = 0
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0
    rsi: int = 0
    rdi: int = 0
    rsp: int = 0
    rbp: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rip: int = 0
    rflags: int = 2


class Segment(Struct):
    """A segment register with its hidden part (struct kvm_segment); `limit` is in bytes, already scaled."""

    base: int = 0
    limit: int = 0xFFFF
    selector: int = 0
    type: int = 3
    present: int = 1
    dpl: int = 0
    db: int = 0
    s: int = 1
    l: int = 0  # noqa: E741 - the name in the Intel manual and in KVM
    g: int = 0
    avl: int = 0
    unusable: int = 0


class DescriptorTable(Struct):
    """GDTR or IDTR (struct kvm_dtable)."""

    base: int = 0
    limit: int = 0xFFFF


class Sregs(Struct):
    """Segment, control and system registers (struct kvm_sregs)."""

    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment
    ldt: Segment
    gdt: DescriptorTable
    idt: DescriptorTable
    cr0: int = 0x60000010
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    cr8: int = 0
    efer: int = 0
    apic_base: int = 0xFEE00900


class Fpu(Struct):
    """x87 and SSE state (struct kvm_fpu)."""

    fpr: list[bytes] = field(default_factory=lambda: [bytes(16)] * 8)
    """ST0…ST7 (stack order), 10 bytes each, padded to 16."""
    fcw: int = 0x37F
    fsw: int = 0
    ftwx: int = 0
    """Abridged tag word: bit i set when physical register i is in use."""
    last_opcode: int = 0
    last_ip: int = 0
    last_dp: int = 0
    xmm: list[bytes] = field(default_factory=lambda: [bytes(16)] * 16)
    mxcsr: int = 0x1F80


class DebugRegs(Struct):
    """DR0-DR3, DR6 and DR7 (struct kvm_debugregs)."""

    db: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    dr6: int = 0xFFFF0FF0
    dr7: int = 0x400


class VcpuEvents(Struct):
    """What is about to be delivered (struct kvm_vcpu_events).

    `injected` is what the CPU has accepted but not begun to handle; on soft nothing is between two runs.
    """

    exception_injected: int = 0
    exception_nr: int = 0
    exception_has_error_code: int = 0
    exception_pending: int = 0
    exception_error_code: int = 0
    interrupt_injected: int = 0
    interrupt_nr: int = 0
    interrupt_soft: int = 0
    interrupt_shadow: int = 0
    nmi_injected: int = 0
    nmi_pending: int = 0
    nmi_masked: int = 0
    sipi_vector: int = 0
    smi_smm: int = 0
    smi_pending: int = 0
    smi_smm_inside_nmi: int = 0
    smi_latched_init: int = 0
    triple_fault_pending: int = 0
    exception_has_payload: int = 0
    exception_payload: int = 0


# mp_state (KVM_MP_STATE_*)
RUNNABLE = 0
UNINITIALIZED = 1
INIT_RECEIVED = 2
HALTED = 3


class VcpuState(Struct):
    """Everything of one virtual CPU."""

    regs: Regs
    sregs: Sregs
    fpu: Fpu
    debugregs: DebugRegs
    events: VcpuEvents
    msrs: dict[int, int]
    """MSR index → value, without those kept in `sregs`."""
    lapic: bytes
    """The 1024-byte register page (struct kvm_lapic_state): 32-bit registers every 16 bytes."""
    xcr0: int = 1
    mp_state: int = RUNNABLE
    xsave: bytes = b""
    """The XSAVE image from its header on: AVX and what came later. Empty where the engine has no more than `fpu`."""
    tsc_khz: int = 0
    """How fast the time-stamp counter counts; 0 where that is not the host's business."""


class IoapicState(Struct):
    """I/O APIC (struct kvm_ioapic_state)."""

    id: int = 0
    ioregsel: int = 0
    irr: int = 0
    redirtbl: list[int] = field(default_factory=lambda: [0x10000] * 24)


class PicState(Struct):
    """One 8259A (struct kvm_pic_state)."""

    last_irr: int = 0
    irr: int = 0
    imr: int = 0
    isr: int = 0
    priority_add: int = 0
    irq_base: int = 0
    read_reg_select: int = 0
    poll: int = 0
    special_mask: int = 0
    init_state: int = 0
    auto_eoi: int = 0
    rotate_on_auto_eoi: int = 0
    special_fully_nested_mode: int = 0
    init4: int = 0
    elcr: int = 0
    elcr_mask: int = 0


class PitChannelState(Struct):
    """One channel of the 8254 (struct kvm_pit_channel_state)."""

    count: int = 0x10000
    latched_count: int = 0
    count_latched: int = 0
    status_latched: int = 0
    status: int = 0
    read_state: int = 0
    write_state: int = 0
    write_latch: int = 0
    rw_mode: int = 0
    mode: int = 0
    bcd: int = 0
    gate: int = 0
    count_load_time: int = 0
    """Nanoseconds of the host's monotonic clock."""


class PitState(Struct):
    """The 8254 and port 0x61 (struct kvm_pit_state2)."""

    channels: list[PitChannelState] = field(default_factory=lambda: [PitChannelState() for _ in range(3)])
    speaker: int = 0


class VmState(Struct):
    """The chips between CPUs and devices."""

    ioapic: IoapicState
    pic_master: PicState
    pic_slave: PicState
    pit: PitState
    clock_ns: int = 0
    """Guest clock (KVM_GET_CLOCK); 0 where the engine has none."""
    cmos: bytes = b""
    """Index and 128 bytes of the real-time clock's memory; empty where the engine has none."""
