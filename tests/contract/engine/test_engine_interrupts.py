"""Interrupts: lines through the I/O APIC, the local APIC and its timer, priorities, shadows and HLT."""

from typing import Final

import pytest

from tests.contract.engine import guests
from tests.contract.engine.harness import Boot, Guest

VECTOR: Final = 0x45
COUNT: Final = """
    count:
        inc dword ptr [interrupts]
        EOI
        ret
    interrupts: .long 0
"""


def _pulse_on_act(guest: Guest) -> None:
    """Let the guest raise a line by naming it: devices are called on the runner's thread."""
    guest.bus.reactions[guests.PORT_ACT] = guest.pulse_and_wait


# --- when an interrupt is taken ---------------------------------------------------------------------------------------


def test_a_pulse_wakes_a_halted_cpu(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        PIN 5, 0x45
        ON 0x45, count
        ACT 5                               # while IF is clear: it must wait
        sti
        hlt
    awake:
        cli
        END
    """
        + COUNT
    )
    _pulse_on_act(guest)
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.rip) == (VECTOR, guest.label("awake"))
    assert trap.rflags & 0x200


def test_a_pulse_interrupts_running_code_at_once(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        PIN 5, 0x45
        ON 0x45, count
        sti
        ACT 5
        mov eax, 50000                      # by then at the latest
    1:  cmp dword ptr [interrupts], 0
        jne 2f
        dec eax
        jnz 1b
    2:  cli
        END
    """
        + COUNT
    )
    _pulse_on_act(guest)
    guest.run()
    assert [t.vector for t in guest.traps()] == [VECTOR]


def test_each_pulse_is_one_interrupt(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        PIN 7, 0x47
        ON 0x47, count
        mov ebx, 300
    1:  ACT 7
        sti
        hlt
        cli
        dec ebx
        jnz 1b
        END
    """
        + COUNT
    )
    _pulse_on_act(guest)
    guest.run()
    assert guest.number("interrupts", 4) == 300


@pytest.mark.parametrize("pin", [0, 1, 4, 5, 15, 16, 23])
def test_every_pin_of_the_io_apic_delivers_its_own_vector(boot: Boot, pin: int) -> None:
    guest = boot(
        f"""
    start:
        ENABLE_APIC
        PIN {pin}, {0x50 + pin}
        ON {0x50 + pin}, count
        ACT {pin}
        sti
        hlt
        cli
        END
    """
        + COUNT
    )
    _pulse_on_act(guest)
    guest.run()
    assert [t.vector for t in guest.traps()] == [0x50 + pin]


def test_a_masked_pin_delivers_nothing(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        PIN 5, 0x10045
        PIN 6, 0x46
        ON 0x45, count
        ON 0x46, count
        ACT 5
        ACT 6
        sti
        hlt
        cli
        END
    """
        + COUNT
    )
    _pulse_on_act(guest)
    guest.run()
    assert [t.vector for t in guest.traps()] == [0x46]


def test_an_interrupt_after_sti_waits_one_instruction(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        ON 0x60, count
        APIC 0x300, 0x40060                 # an interrupt to myself, pending while IF is clear
        sti
        inc ebx
    after_one:
        inc ebx
        inc ebx
        cli
        END
    """
        + COUNT
    )
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.rip) == (0x60, guest.label("after_one"))


def test_sti_followed_by_cli_lets_no_interrupt_in(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        ON 0x60, count
        APIC 0x300, 0x40060
        mov ecx, 100
    1:  sti
        cli
        loop 1b
        mov eax, [interrupts]
        mov [seen], eax
        sti
        nop
        nop
        cli
        END
    seen: .long 77
    """
        + COUNT
    )
    guest.run()
    assert guest.number("seen", 4) == 0
    assert guest.number("interrupts", 4) == 1


def test_popf_and_iret_that_set_if_let_a_pending_interrupt_in_at_once(boot: Boot) -> None:
    guest = boot(
        f"""
    start:
        ENABLE_APIC
        ON 0x60, count
        APIC 0x300, 0x40060
        push 0x202
        popfq
    after_popf:
        nop
        cli
        APIC 0x300, 0x40060
        mov rax, rsp
        push {guests.KERNEL_DATA}
        push rax
        push 0x202
        push {guests.KERNEL_CODE}
        push offset after_iret
        iretq
    after_iret:
        nop
        cli
        END
    """
        + COUNT
    )
    guest.run()
    assert [t.rip for t in guest.traps()] == [guest.label("after_popf"), guest.label("after_iret")]


# --- priorities -------------------------------------------------------------------------------------------------------


def test_the_task_priority_holds_lower_interrupts_back(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        ON 0x55, count
        ON 0x65, count
        APIC 0x80, 0x50                     # TPR: class 5 and below wait
        APIC 0x300, 0x40055
        APIC 0x300, 0x40065
        sti
        nop
        nop
        cli
        mov eax, [interrupts]
        mov [seen], eax
        APIC 0x80, 0x40
        sti
        nop
        nop
        cli
        END
    seen: .long 0
    """
        + COUNT
    )
    guest.run()
    assert guest.number("seen", 4) == 1
    assert [t.vector for t in guest.traps()] == [0x65, 0x55]


def test_cr8_is_the_task_priority(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        ON 0x55, count
        mov eax, 5
        mov cr8, rax
        mov r15d, LAPIC
        mov ebx, [r15 + 0x80]
        mov [tpr], ebx
        APIC 0x300, 0x40055
        sti
        nop
        nop
        cli
        mov eax, [interrupts]
        mov [seen], eax
        APIC 0x80, 0x30
        mov rax, cr8
        mov [cr8_after], eax
        xor eax, eax
        mov cr8, rax
        sti
        nop
        nop
        cli
        END
    seen: .long 77
    tpr: .long 0
    cr8_after: .long 0
    """
        + COUNT
    )
    guest.run()
    assert guest.number("tpr", 4) == 0x50
    assert guest.number("seen", 4) == 0
    assert guest.number("cr8_after", 4) == 3
    assert [t.vector for t in guest.traps()] == [0x55]


def test_pending_interrupts_come_highest_vector_first(boot: Boot) -> None:
    vectors = [0x31, 0x9F, 0x42, 0xEF, 0x41, 0x70, 0x9E]
    guest = boot(
        "start: ENABLE_APIC\n"
        + "".join(f"ON {v:#x}, count\nAPIC 0x300, {0x40000 | v:#x}\n" for v in vectors)
        + "mov ecx, 100\n1: sti\nnop\ncli\nloop 1b\nEND"
        + COUNT
    )
    guest.run()
    assert [t.vector for t in guest.traps()] == sorted(vectors, reverse=True)


def test_an_interrupt_in_service_holds_its_class_back_until_eoi(boot: Boot) -> None:
    guest = boot("""
    start:
        ENABLE_APIC
        ON 0x60, slow
        ON 0x61, quick                      # same class
        ON 0x51, quick                      # lower
        ON 0x71, quick                      # higher
        APIC 0x300, 0x40060
        sti
        nop
        nop
        cli
        mov ecx, 10
    1:  sti
        nop
        cli
        loop 1b
        END
    slow:
        APIC 0x300, 0x40061
        APIC 0x300, 0x40051
        APIC 0x300, 0x40071
        APIC 0x300, 0x40060
        mov eax, [log_count]
        mov [before], eax
        sti
        mov eax, 20
    2:  dec eax
        jnz 2b
        cli
        mov eax, [log_count]
        mov [after], eax
        mov qword ptr [handlers + 8 * 0x60], offset quick
        EOI
        ret
    quick:
        EOI
        ret
    before: .long 0
    after: .long 0
    """)
    guest.run()
    assert [t.vector for t in guest.traps()] == [0x60, 0x71, 0x61, 0x60, 0x51]
    assert (guest.number("before", 4), guest.number("after", 4)) == (1, 2)


def test_the_local_apic_shows_what_is_pending_and_in_service(boot: Boot) -> None:
    guest = boot("""
    start:
        ENABLE_APIC
        ON 0x60, look
        APIC 0x300, 0x40060
        mov eax, [r15 + 0x230]              # IRR of vectors 0x60-0x7f
        mov [got], eax
        sti
        nop
        nop
        cli
        mov r15d, LAPIC
        mov eax, [r15 + 0x130]              # ISR
        mov [got + 12], eax
        END
    look:
        mov r15d, LAPIC
        mov eax, [r15 + 0x230]
        mov [got + 4], eax
        mov eax, [r15 + 0x130]
        mov [got + 8], eax
        EOI
        ret
    got: .long 0, 0, 0, 0
    """)
    guest.run()
    assert guest.numbers("got", 4, 4) == [1, 0, 1, 0]


def test_a_software_disabled_apic_takes_no_interrupts(boot: Boot) -> None:
    guest = boot(
        """
    start:
        ENABLE_APIC
        PIN 5, 0x45
        ON 0x45, count
        APIC 0xf0, 0xff
        ACT 5
        sti
        nop
        nop
        cli
        mov eax, [interrupts]
        mov [seen], eax
        APIC 0xf0, 0x1ff
        ACT 5
        sti
        nop
        nop
        cli
        END
    seen: .long 77
    """
        + COUNT
    )
    _pulse_on_act(guest)
    guest.run()
    assert guest.number("seen", 4) == 0
    assert guest.number("interrupts", 4) == 1


def test_an_nmi_ignores_the_interrupt_flag_and_blocks_the_next_until_iret(boot: Boot) -> None:
    guest = boot("""
    start:
        ENABLE_APIC
        ON 2, nmi
        cli
        APIC 0x310, 0
        APIC 0x300, 0x4400                  # NMI to CPU 0 (the shorthand "self" is for fixed interrupts only)
        mov ecx, 1000
    1:  loop 1b
        END
    nmi:
        mov eax, [depth]
        inc dword ptr [depth]
        add dword ptr [nested], eax
        inc dword ptr [taken]
        cmp dword ptr [taken], 3
        jae 3f
        APIC 0x300, 0x4400
        mov eax, 1000
    2:  dec eax
        jnz 2b
    3:  dec dword ptr [depth]
        ret
    taken: .long 0
    depth: .long 0
    nested: .long 0
    """)
    guest.run()
    assert [t.vector for t in guest.traps()] == [2, 2, 2]
    assert guest.number("nested", 4) == 0


def test_the_8259_delivers_its_vector_through_lint0(boot: Boot) -> None:
    guest = boot(
        """
    start:
        APIC 0xf0, 0x1ff
        APIC 0x350, 0x700                   # LINT0: ExtINT
        PIN 5, 0x10000
        mov al, 0x11                        # ICW1: edge, cascade, ICW4
        out 0x20, al
        out 0xa0, al
        mov al, 0x90                        # ICW2: vectors
        out 0x21, al
        mov al, 0x98
        out 0xa1, al
        mov al, 4                           # ICW3: cascade on line 2
        out 0x21, al
        mov al, 2
        out 0xa1, al
        mov al, 1                           # ICW4: 8086
        out 0x21, al
        out 0xa1, al
        mov al, 0xdb                        # only lines 2 and 5
        out 0x21, al
        mov al, 0xf7                        # only line 11
        out 0xa1, al
        ON 0x95, master
        ON 0x9b, slave
        ACT 5
        sti
        hlt
        cli
        ACT 11
        sti
        hlt
        cli
        END
    slave:
        mov al, 0x20
        out 0xa0, al
    master:
        mov al, 0x20
        out 0x20, al
        ret
    """
    )
    _pulse_on_act(guest)
    guest.run()
    assert [t.vector for t in guest.traps()] == [0x95, 0x9B]
