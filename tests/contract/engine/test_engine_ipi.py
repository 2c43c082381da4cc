"""Interrupts between CPUs: whom they reach, and whom they wake."""

from typing import Final

import pytest

from tests.contract.engine import guests
from tests.contract.engine.harness import Boot

WAIT_FOR_ALL: Final = """
    .macro AWAIT cell, value
    777:
        pause
        cmp dword ptr [\\cell], \\value
        jb 777b
    .endm
"""


TARGETS: Final = {
    "one CPU by its id": ("APIC 0x310, 2 << 24; APIC 0x300, 0x4055", {2}),
    "all CPUs": ("APIC 0x300, 0x84055", {0, 1, 2, 3}),
    "all but the sender": ("APIC 0x300, 0xc4055", {1, 2, 3}),
    "the sender": ("APIC 0x300, 0x44055", {0}),
    "a set of logical ids": ("APIC 0x310, 0x0a << 24; APIC 0x300, 0x4855", {1, 3}),
    "the physical broadcast": ("APIC 0x310, 0xff << 24; APIC 0x300, 0x4055", {0, 1, 2, 3}),
}


@pytest.mark.parametrize("name", TARGETS)
def test_an_ipi_reaches(boot: Boot, name: str) -> None:
    send, reached = TARGETS[name]
    guest = boot(
        WAIT_FOR_ALL
        + f"""
    .macro LISTEN                           # logical id 1 << APIC id, flat
        mov r15d, LAPIC
        mov dword ptr [r15 + 0xf0], 0x1ff
        mov dword ptr [r15 + 0xe0], 0xffffffff
        mov ecx, ebx
        mov eax, 1 << 24
        shl eax, cl
        mov [r15 + 0xd0], eax
    .endm
    start:
        ON 0x55, note
        xor ebx, ebx
        LISTEN
        START_APS
        AWAIT arrived, 3
        {send}
        sti
        AWAIT noted, {len(reached)}
        mov ecx, 2000                       # nobody else may follow
    2:  pause
        loop 2b
        cli
        END
    ap_start:
        LISTEN
        lock inc dword ptr [arrived]
        sti
    3:  hlt
        jmp 3b
    note:
        mov r15d, LAPIC
        mov eax, [r15 + 0x20]
        shr eax, 24
        SAY eax
        lock inc dword ptr [noted]
        EOI
        ret
    arrived: .long 0
    noted: .long 0
    """,
        vcpus=4,
    )
    guest.run()
    assert sorted(guest.bus.said()) == sorted(reached)


def test_two_halted_cpus_wake_each_other(boot: Boot) -> None:
    """300 rounds of ping and pong, each side asleep in HLT between."""
    guest = boot(
        WAIT_FOR_ALL
        + """
    start:
        ON 0x50, ping
        ON 0x51, pong
        START_APS
        AWAIT arrived, 1
        APIC 0x310, 1 << 24
    1:  cmp dword ptr [pongs], 300
        jae 2f
        mov r15d, LAPIC
        mov eax, [pongs]
        mov [before], eax
        mov dword ptr [r15 + 0x300], 0x4050
    3:  cli
        mov eax, [pongs]
        cmp eax, [before]
        jne 1b
        sti
        hlt
        jmp 3b
    2:  cli
        END
    ap_start:
        APIC 0xf0, 0x1ff
        APIC 0x310, 0
        lock inc dword ptr [arrived]
        sti
    4:  hlt
        jmp 4b
    ping:
        inc dword ptr [pings]
        EOI
        APIC 0x300, 0x4051
        mov dword ptr [log_count], 0
        ret
    pong:
        inc dword ptr [pongs]
        EOI
        ret
    arrived: .long 0
    pings: .long 0
    pongs: .long 0
    before: .long 0
    """,
        vcpus=2,
    )
    guest.run()
    assert guest.number("pings", 4) == guest.number("pongs", 4) == 300


def test_a_line_goes_to_the_cpu_its_redirection_entry_names(boot: Boot) -> None:
    guest = boot(
        WAIT_FOR_ALL
        + """
    start:
        ENABLE_APIC
        ON 0x45, note
        START_APS
        AWAIT arrived, 2
        mov r15d, IOAPIC
        mov dword ptr [r15], 0x1b
        mov dword ptr [r15 + 16], 2 << 24
        mov dword ptr [r15], 0x1a
        mov dword ptr [r15 + 16], 0x45
        sti
        ACT 5
        AWAIT noted, 1
        END
    ap_start:
        APIC 0xf0, 0x1ff
        lock inc dword ptr [arrived]
        sti
    3:  hlt
        jmp 3b
    note:
        mov r15d, LAPIC
        mov eax, [r15 + 0x20]
        shr eax, 24
        SAY eax
        lock inc dword ptr [noted]
        EOI
        ret
    arrived: .long 0
    noted: .long 0
    """,
        vcpus=3,
    )
    guest.bus.reactions[guests.PORT_ACT] = guest.pulse_and_wait
    guest.run()
    assert guest.bus.said() == [2]


def test_an_nmi_wakes_a_cpu_that_halted_with_interrupts_off(boot: Boot) -> None:
    guest = boot(
        WAIT_FOR_ALL
        + """
    start:
        ON 2, note
        START_APS
        AWAIT arrived, 1
        APIC 0x310, 1 << 24
        APIC 0x300, 0x4400
        AWAIT awake, 1
        END
    ap_start:
        APIC 0xf0, 0x1ff
        lock inc dword ptr [arrived]
        cli
        hlt
        lock inc dword ptr [awake]
    3:  hlt
        jmp 3b
    note:
        ret
    arrived: .long 0
    awake: .long 0
    """,
        vcpus=2,
    )
    guest.run()
    assert [t.vector for t in guest.traps()] == [2]


def test_each_cpu_has_its_own_timer(boot: Boot) -> None:
    guest = boot(
        WAIT_FOR_ALL
        + """
    .macro TICK
        APIC 0xf0, 0x1ff
        APIC 0x3e0, 0xb
        APIC 0x320, 0x20040
        APIC 0x380, 200000
        sti
    .endm
    start:
        ON 0x40, tick
        START_APS
        TICK
    1:  hlt
        cmp dword ptr [ticks], 5
        jb 1b
        cmp dword ptr [ticks + 4], 5
        jb 1b
        cmp dword ptr [ticks + 8], 5
        jb 1b
        cli
        END
    ap_start:
        TICK
    2:  hlt
        jmp 2b
    tick:
        mov r15d, LAPIC
        mov eax, [r15 + 0x20]
        shr eax, 24
        inc dword ptr [ticks + 4 * rax]
        EOI
        mov dword ptr [log_count], 0
        ret
    ticks: .long 0, 0, 0
    """,
        vcpus=3,
    )
    guest.run()
    assert all(ticks >= 5 for ticks in guest.numbers("ticks", 3, 4))
