"""Debug registers: the guest's own breakpoints (SDM vol. 3, chapter 18)."""

from tests.contract.engine import guests
from tests.contract.engine.harness import Boot


def test_an_instruction_breakpoint_stops_before_the_instruction(boot: Boot) -> None:
    guest = boot("""
    start:
        ON 1, note
        lea rax, [rip + here]
        mov dr0, rax
        mov eax, 0x401                      # L0
        mov dr7, rax
        xor ebx, ebx
        nop
        jmp here
    here:
        inc ebx
    behind:
        mov [HEAP], ebx
        END
    note:
        mov rax, dr6
        mov [HEAP + 8], rax
        or qword ptr [rdi + 32], 0x10000    # RF: let the instruction run
        ret
    """)
    guest.run()
    assert [(t.vector, t.rip) for t in guest.traps()] == [(1, guest.label("here"))]
    assert guest.number(guests.HEAP, 4) == 1
    assert guest.number(guests.HEAP + 8) & 0xF == 1


def test_a_data_breakpoint_stops_after_the_write(boot: Boot) -> None:
    guest = boot("""
    start:
        ON 1, note
        mov eax, HEAP + 0x100
        mov dr1, rax
        mov eax, 0xd00404                   # L1, on writes, four bytes
        mov dr7, rax
        mov eax, [HEAP + 0x100]             # a read does not count
        mov dword ptr [HEAP + 0x104], 1     # nor does a neighbour
        mov dword ptr [HEAP + 0x100], 2
    behind:
        nop
        xor eax, eax
        mov dr7, rax
        mov dword ptr [HEAP + 0x100], 3
        END
    note:
        mov rax, dr6
        mov [HEAP + 8], rax
        mov eax, [HEAP + 0x100]
        mov [HEAP + 16], eax
        ret
    """)
    guest.run()
    assert [(t.vector, t.rip) for t in guest.traps()] == [(1, guest.label("behind"))]
    assert guest.number(guests.HEAP + 8) & 0xF == 2
    assert guest.number(guests.HEAP + 16, 4) == 2


def test_dr6_and_dr7_have_their_fixed_bits(boot: Boot) -> None:
    guest = boot("""
    start:
        xor eax, eax
        mov dr6, rax
        mov dr7, rax
        mov rax, dr6
        mov [HEAP], rax
        mov rax, dr7
        mov [HEAP + 8], rax
        END
    """)
    guest.run()
    dr6, dr7 = guest.numbers(guests.HEAP, 2)
    assert dr6 & 0xFFFE0FF0 == 0xFFFE0FF0  # bit 16 is RTM's, where there is RTM
    assert dr7 == 0x400
