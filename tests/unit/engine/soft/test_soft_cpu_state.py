"""vCPU images: KVM's view of them and back, and the derived flags that the translator lives on."""

import random
from struct import Struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.engine.soft.cpu_state import export_state, import_state
from hibana.engine.soft.offsets import ENV
from hibana.engine.state import HALTED, DebugRegs, DescriptorTable, Fpu, Regs, Segment, Sregs, VcpuEvents, VcpuState

MSRS = (
    *(0x10, 0x174, 0x175, 0x176, 0x1A0, *range(0x200, 0x210), 0x250, 0x258, 0x259, *range(0x268, 0x270)),
    *(0x277, 0x2FF, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000102, 0xC0000103),
)
APIC_BASE = 0xFEE00900
HOST_TSC = 0xFEDCBA9876543210
U64 = Struct("<Q")
U32 = Struct("<I")
U16 = Struct("<H")
I32 = Struct("<i")


def random_state(seed: int) -> VcpuState:
    """Fill every field of a state with a value its register can hold."""
    dice = random.Random(seed)

    def u64() -> int:
        return dice.getrandbits(64)

    def segment() -> Segment:
        present = dice.getrandbits(1)
        return Segment(
            base=u64(),
            limit=dice.getrandbits(32),
            selector=dice.getrandbits(16),
            type=dice.getrandbits(4),
            present=present,
            dpl=dice.getrandbits(2),
            db=dice.getrandbits(1),
            s=dice.getrandbits(1),
            l=dice.getrandbits(1),
            g=dice.getrandbits(1),
            avl=dice.getrandbits(1),
            unusable=1 - present,
        )

    lapic = dice.randbytes(1024)
    regs = Regs()
    for name in Regs.__struct_fields__:
        setattr(regs, name, u64())
    return VcpuState(
        regs=regs,
        sregs=Sregs(
            cs=segment(),
            ds=segment(),
            es=segment(),
            fs=segment(),
            gs=segment(),
            ss=segment(),
            tr=segment(),
            ldt=segment(),
            gdt=DescriptorTable(u64(), dice.getrandbits(16)),
            idt=DescriptorTable(u64(), dice.getrandbits(16)),
            cr0=dice.getrandbits(32),
            cr2=u64(),
            cr3=u64(),
            cr4=dice.getrandbits(32),
            cr8=lapic[0x80] >> 4,
            efer=dice.getrandbits(16),
            apic_base=APIC_BASE,
        ),
        fpu=Fpu(
            fpr=[dice.randbytes(10).ljust(16, b"\0") for _ in range(8)],
            fcw=dice.getrandbits(16),
            fsw=dice.getrandbits(16),
            ftwx=dice.getrandbits(8),
            last_opcode=dice.getrandbits(11),
            last_ip=u64(),
            last_dp=u64(),
            xmm=[dice.randbytes(16) for _ in range(16)],
            mxcsr=dice.getrandbits(16),
        ),
        debugregs=DebugRegs([u64() for _ in range(4)], dice.getrandbits(32), dice.getrandbits(32)),
        events=VcpuEvents(interrupt_shadow=dice.getrandbits(1), nmi_masked=dice.getrandbits(1)),
        msrs={msr: dice.getrandbits(32 if msr == 0x174 else 64) for msr in MSRS},
        lapic=lapic,
        xcr0=dice.getrandbits(2) | 1,
        mp_state=HALTED,
    )


def linux_state() -> VcpuState:
    """A CPU in 64-bit kernel code, as Linux runs it."""
    code = Segment(limit=0xFFFFFFFF, selector=0x10, type=0xB, l=1, g=1)
    stack = Segment(limit=0xFFFFFFFF, selector=0x18, type=3, db=1, g=1)

    def null() -> Segment:
        return Segment(limit=0, present=0, unusable=1, s=0, type=0)

    return VcpuState(
        regs=Regs(rflags=0x246),
        sregs=Sregs(
            cs=code,
            ds=null(),
            es=null(),
            fs=null(),
            gs=null(),
            ss=stack,
            tr=Segment(limit=0x206F, selector=0x40, type=0xB, s=0),
            ldt=null(),
            gdt=DescriptorTable(0xFFFFFE0000001000, 0x7F),
            idt=DescriptorTable(0xFFFFFE0000000000, 0xFFF),
            cr0=0x80050033,
            cr4=0x100A0,
            efer=0xD01,
        ),
        fpu=Fpu(),
        debugregs=DebugRegs(),
        events=VcpuEvents(),
        msrs={},
        lapic=bytes(1024),
    )


def imported(state: VcpuState, image: bytearray | None = None) -> bytearray:
    image = bytearray(ENV.SIZE) if image is None else image
    import_state(image, state, HOST_TSC)
    return image


def exported(image: bytes | bytearray, state: VcpuState) -> VcpuState:
    return export_state(bytes(image), state.lapic, state.mp_state, APIC_BASE, HOST_TSC)


def hflags(state: VcpuState) -> int:
    return int(U32.unpack_from(imported(state), ENV.hflags)[0])


# --- there and back ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**64), st.integers(0, 2**64))
def test_a_state_survives_the_image_whatever_was_there_before(seed: int, garbage: int) -> None:
    state = random_state(seed)
    image = bytearray(random.Random(garbage).randbytes(ENV.SIZE))
    assert exported(imported(state, image), state) == state


def test_an_import_touches_only_architectural_state() -> None:
    image = bytearray(b"\xa5" * ENV.SIZE)
    imported(random_state(1), image)
    assert set(image[ENV.features : ENV.mtrr_fixed]) == {0xA5}
    assert set(image[ENV.mtrr_var + 8 * 16 :]) == {0xA5}


def test_registers_an_image_does_not_have_are_passed_over() -> None:
    state = random_state(2)
    state.msrs = {0x6E0: 5, 0x4B564D00: 7}
    image = bytearray(ENV.SIZE)
    U64.pack_into(image, ENV.tsc_offset, 99)
    imported(state, image)
    assert U64.unpack_from(image, ENV.tsc_offset) == (99,)
    assert 0x6E0 not in exported(image, state).msrs


def test_a_register_wider_than_ours_is_cut() -> None:
    state = random_state(3)
    state.msrs = {0x174: 0x1_0000_0010}
    assert exported(imported(state), state).msrs[0x174] == 0x10


# --- unicorn's layout -------------------------------------------------------------------------------------------------


def test_general_registers_are_in_the_order_of_their_encoding() -> None:
    state = linux_state()
    state.regs = Regs(rax=0, rcx=1, rdx=2, rbx=3, rsp=4, rbp=5, rsi=6, rdi=7, r8=8, r15=15, rip=0x1234)
    image = imported(state)
    assert [U64.unpack_from(image, ENV.regs + 8 * i)[0] for i in (*range(9), 15)] == [*range(9), 15]
    assert U64.unpack_from(image, ENV.eip) == (0x1234,)


@pytest.mark.parametrize(("rflags", "df"), [(0x246, 1), (0x646, -1)])
def test_lazy_flags_agree_with_rflags(rflags: int, df: int) -> None:
    state = linux_state()
    state.regs.rflags = rflags
    image = imported(state)
    assert U64.unpack_from(image, ENV.eflags) == (rflags,)
    assert U64.unpack_from(image, ENV.cc_src) == (0x44,)
    assert U32.unpack_from(image, ENV.cc_op) == (1,)
    assert I32.unpack_from(image, ENV.df) == (df,)


def test_a_segment_is_a_descriptors_high_half() -> None:
    image = imported(linux_state())
    cs, ss = ENV.segs + 24, ENV.segs + 48
    assert U32.unpack_from(image, cs) == (0x10,)
    assert U32.unpack_from(image, cs + 16) == (0xFFFFFFFF,)
    assert U32.unpack_from(image, cs + 20) == (0x00A09B00,)
    assert U32.unpack_from(image, ss + 20) == (0x00C09300,)
    assert U32.unpack_from(image, ENV.ldt + 20) == (0,)


def test_an_unusable_segment_is_not_present() -> None:
    state = linux_state()
    state.sregs.ldt.present = state.sregs.ldt.unusable = 1
    assert exported(imported(state), state).sregs.ldt.present == 0


def test_the_x87_stack_is_kept_by_physical_register() -> None:
    state = linux_state()
    state.fpu = Fpu(fpr=[bytes([i + 1] * 10).ljust(16, b"\0") for i in range(8)], fsw=6 << 11 | 0x41, ftwx=0b11000001)
    image = imported(state)
    assert U32.unpack_from(image, ENV.fpstt) == (6,)
    assert U16.unpack_from(image, ENV.fpus) == (0x41,)
    assert [image[ENV.fpregs + 16 * i] for i in range(8)] == [3, 4, 5, 6, 7, 8, 1, 2]
    assert list(image[ENV.fptags : ENV.fptags + 8]) == [0, 1, 1, 1, 1, 1, 0, 0]


def test_the_guests_counter_is_the_hosts_plus_an_offset() -> None:
    state = linux_state()
    state.msrs = {0x10: 1000}
    image = imported(state)
    later = export_state(bytes(image), state.lapic, 0, APIC_BASE, HOST_TSC + 500)
    assert later.msrs[0x10] == 1500


def test_cr8_is_the_task_priority() -> None:
    lapic = bytearray(1024)
    lapic[0x80] = 0xB7
    state = linux_state()
    state.lapic = bytes(lapic)
    assert exported(imported(state), state).sregs.cr8 == 0xB


# --- hflags -----------------------------------------------------------------------------------------------------------

CS32, SS32, ADDSEG, PE, TF, MP, EM, TS = (1 << bit for bit in (4, 5, 6, 7, 8, 9, 10, 11))
LMA, CS64, VM, OSFXSR, SMAP, INHIBIT = (1 << bit for bit in (14, 15, 17, 22, 23, 3))


def test_hflags_of_64_bit_kernel_and_user_code() -> None:
    state = linux_state()
    assert hflags(state) == CS32 | SS32 | CS64 | LMA | PE | MP
    state.sregs.cs.dpl = state.sregs.ss.dpl = 3
    assert hflags(state) & 3 == 3


@pytest.mark.parametrize("segment", ["ds", "es", "ss"])
def test_hflags_of_compatibility_mode_look_at_the_segments(segment: str) -> None:
    state = linux_state()
    state.sregs.cs.l, state.sregs.cs.db = 0, 1
    assert hflags(state) == CS32 | SS32 | LMA | PE | MP
    getattr(state.sregs, segment).base = 0x1000
    assert hflags(state) == CS32 | SS32 | ADDSEG | LMA | PE | MP


def test_hflags_of_real_mode() -> None:
    state = linux_state()
    state.sregs.cr0, state.sregs.efer, state.sregs.cr4 = 0x10, 0, 0
    state.sregs.cs = state.sregs.ss = Segment()
    assert hflags(state) == ADDSEG


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        (("regs", "rflags", 0x346), TF),
        (("regs", "rflags", 0x3246), 3 << 12),
        (("regs", "rflags", 1 << 17 | 0x246), VM),
        (("sregs", "cr0", 0x8005003B), TS),
        (("sregs", "cr0", 0x80050037), EM),
        (("sregs", "cr4", 0x102A0), OSFXSR),
        (("sregs", "cr4", 0x2100A0), SMAP),
        (("events", "interrupt_shadow", 1), INHIBIT),
    ],
)
def test_each_register_bit_reaches_its_flag(change: tuple[str, str, int], flag: int) -> None:
    state = linux_state()
    before = hflags(state)
    part, name, value = change
    setattr(getattr(state, part), name, value)
    assert hflags(state) == before | flag
