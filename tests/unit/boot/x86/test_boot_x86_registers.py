"""The registers at a kernel's entry, from KVM's reset values."""

import struct

import pytest

from hibana.boot.entry import BootProtocol, Entry
from hibana.boot.x86.registers import configure
from hibana.engine.state import (
    UNINITIALIZED,
    DebugRegs,
    DescriptorTable,
    Fpu,
    Regs,
    Segment,
    Sregs,
    VcpuEvents,
    VcpuState,
)

LINUX = Entry(BootProtocol.LINUX_64, 0x1000000)
PVH = Entry(BootProtocol.PVH, 0x1000850)


def after_reset(lint0: int = 0x700, lint1: int = 0x10000) -> VcpuState:
    lapic = bytearray(1024)
    struct.pack_into("<I", lapic, 0x30, 0x50014)
    struct.pack_into("<I", lapic, 0x350, lint0)
    struct.pack_into("<I", lapic, 0x360, lint1)
    real = Segment()
    return VcpuState(
        regs=Regs(rdx=0x600, rip=0xFFF0),
        sregs=Sregs(
            *(real, real, real, real, real, real),
            Segment(type=11, s=0),
            Segment(type=2, s=0),
            DescriptorTable(),
            DescriptorTable(),
        ),
        fpu=Fpu(fcw=0x40),
        debugregs=DebugRegs(),
        events=VcpuEvents(),
        msrs={0x10: 12345, 0x277: 0x0007040600070406},
        lapic=bytes(lapic),
        mp_state=UNINITIALIZED,
    )


def test_linux_gets_the_zero_page_in_rsi_and_a_stack() -> None:
    regs = configure(after_reset(), LINUX).regs
    assert regs == Regs(rip=0x1000000, rsp=0x8FF0, rbp=0x8FF0, rsi=0x7000, rflags=2)


def test_pvh_gets_the_start_info_in_rbx() -> None:
    assert configure(after_reset(), PVH).regs == Regs(rip=0x1000850, rbx=0x6000, rflags=2)


def test_linux_starts_in_long_mode_with_paging_on() -> None:
    sregs = configure(after_reset(), LINUX).sregs
    assert (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) == (0xE0000011, 0x9000, 0x20, 0x500)


def test_pvh_starts_in_protected_mode_with_paging_off() -> None:
    state = after_reset()
    state.sregs.cr4 = 0x2000
    sregs = configure(state, PVH).sregs
    assert (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) == (0x11, 0, 0, 0)


@pytest.mark.parametrize("entry", [LINUX, PVH])
def test_descriptor_tables_and_data_segments_are_the_same_for_both(entry: Entry) -> None:
    sregs = configure(after_reset(), entry).sregs
    assert (sregs.gdt.base, sregs.gdt.limit, sregs.idt.base, sregs.idt.limit) == (0x500, 31, 0x520, 7)
    data = Segment(0, 0xFFFFFFFF, 0x10, type=3, s=1, present=1, db=1, g=1)
    assert [sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss] == [data] * 5
    assert sregs.ldt == after_reset().sregs.ldt
    assert sregs.apic_base == 0xFEE00900


def test_the_code_segment_decides_between_64_and_32_bits() -> None:
    linux, pvh = configure(after_reset(), LINUX).sregs, configure(after_reset(), PVH).sregs
    assert linux.cs == Segment(0, 0xFFFFFFFF, 8, type=0xB, s=1, present=1, db=0, l=1, g=1)
    assert pvh.cs == Segment(0, 0xFFFFFFFF, 8, type=0xB, s=1, present=1, db=1, l=0, g=1)
    assert linux.tr == Segment(0, 0xFFFFFFFF, 0x18, type=0xB, s=0, present=1, g=1)
    assert pvh.tr == Segment(0, 0x67, 0x18, type=0xB, s=0, present=1, g=0)


def test_the_fpu_is_initialised() -> None:
    fpu = configure(after_reset(), LINUX).fpu
    assert (fpu.fcw, fpu.mxcsr, fpu.fsw, fpu.ftwx, fpu.xmm) == (0x37F, 0x1F80, 0, 0, [bytes(16)] * 16)


def test_boot_msrs_are_set_and_the_others_kept() -> None:
    assert configure(after_reset(), LINUX).msrs == {
        0x10: 0,
        0x174: 0,
        0x175: 0,
        0x176: 0,
        0x1A0: 1,
        0x277: 0x0007040600070406,
        0x2FF: 0x806,
        0xC0000081: 0,
        0xC0000082: 0,
        0xC0000083: 0,
        0xC0000084: 0,
        0xC0000102: 0,
    }


@pytest.mark.parametrize(
    ("before", "after"), [((0x700, 0x10000), (0x700, 0x10400)), ((0x10000, 0x10755), (0x10700, 0x10455))]
)
def test_the_interrupt_pins_keep_all_but_their_delivery_mode(before: tuple[int, int], after: tuple[int, int]) -> None:
    reset = after_reset(*before)
    lapic = configure(reset, LINUX).lapic
    lint0, lint1 = (struct.unpack_from("<I", lapic, at)[0] for at in (0x350, 0x360))
    assert (lint0, lint1) == after
    assert lapic[:0x350] == reset.lapic[:0x350]
    assert lapic[0x364:] == reset.lapic[0x364:]


def test_an_application_processor_keeps_waiting() -> None:
    assert configure(after_reset(), LINUX).mp_state == UNINITIALIZED


def test_neither_the_reset_state_nor_another_cpu_is_touched() -> None:
    reset = after_reset()
    first = configure(reset, LINUX)
    first.sregs.gdt.base = first.sregs.ds.base = first.sregs.es.base = 1
    assert reset == after_reset()
    assert configure(reset, LINUX).sregs.gdt.base == 0x500
    assert configure(reset, LINUX).sregs.es.base == 0
