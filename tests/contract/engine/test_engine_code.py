"""Code that changes: whoever writes it and through whatever address, what runs is what memory says."""

import os
from itertools import cycle
from typing import Final

import pytest

from hibana.units import GIB
from tests.contract.engine import guests
from tests.contract.engine.guests import HEAP, PRESENT, WRITABLE
from tests.contract.engine.harness import Boot

ROUNDS: Final = 100
# How often each of these guests changes its code may be said in HIBANA_CODE_ROUNDS, and is a multiple of 100.
REPEATED: Final = max(1, int(os.environ.get("HIBANA_CODE_ROUNDS", ROUNDS)) // ROUNDS)
RETURN_IMM: Final = f"""
.macro FUNCTION at                  # write "mov eax, 0; ret" at an address
    mov byte ptr [\\at], 0xb8
    mov dword ptr [\\at + 1], 0
    mov byte ptr [\\at + 5], 0xc3
.endm
.macro CHECK                        # EAX must be EBX
    cmp eax, ebx
    jne wrong
.endm
.macro ROUNDS_END                   # the loop over EBX, which begins at 1:
    inc ebx
    cmp ebx, {ROUNDS}
    jne 1b
    mov ebx, 1
    dec dword ptr [rest]
    jnz 1b
    END 1
wrong:
    mov [got], eax
    mov [got + 4], ebx
    END 2
    .balign 8
got: .long 0, 0
rest: .long {REPEATED}
.endm
"""


def _passes(boot: Boot, source: str, **settings: int) -> None:
    guest = boot(RETURN_IMM + source, **settings)
    assert guest.run() == 1, f"returned and expected: {guest.numbers('got', 2, 4)}"


STORES: Final = {
    "one byte": "mov [rdi + 1], bl",
    "two bytes": "mov [rdi + 1], bx",
    "four bytes": "mov [rdi + 1], ebx",
    "eight bytes": "ASSEMBLED; mov [rdi], rax",
    "a push": "ASSEMBLED; lea rsp, [rdi + 8]; push rax",
    "a locked addition": "cmp ebx, 1; jle 5f; lock add dword ptr [rdi + 1], 1; jmp 6f; 5: mov [rdi + 1], ebx; 6:",
    "an exchange": "mov eax, ebx; xchg [rdi + 1], eax",
    "a compare and exchange": "mov eax, [rdi + 1]; lock cmpxchg [rdi + 1], ebx",
    "SSE": "movd xmm0, ebx; movd [rdi + 1], xmm0",
    "x87": "mov [scratch], ebx; fild dword ptr [scratch]; fistp dword ptr [rdi + 1]",
    "MOVSB": "mov [scratch], ebx; mov esi, offset scratch; mov ecx, 4; inc rdi; rep movsb; sub rdi, 5",
    "STOSD": "mov eax, ebx; inc rdi; stosd; sub rdi, 5",
    "INS": "mov edx, 0x77; inc rdi; insd; sub rdi, 5",
}


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("target", ["function", "HEAP"])
def test_code_rewritten_by(boot: Boot, name: str, target: str) -> None:
    """`function` lies in the page of the code that writes it, HEAP in another."""
    guest = boot(
        RETURN_IMM
        + f"""
    .macro ASSEMBLED                        # RAX = the bytes of "mov eax, EBX; ret; nop; nop"
        mov rax, 0x9090c300000000
        or rax, rbx
        shl rax, 8
        mov al, 0xb8
    .endm
    start:
        mov edi, offset {target}
        FUNCTION rdi
        mov ebx, 1
    1:  {STORES[name]}
        mov esp, 0x41000
        call rdi
        CHECK
        ROUNDS_END
    scratch: .quad 0
        .balign 8
    function: .quad 0
    """
    )
    values = cycle(range(1, ROUNDS))
    guest.bus.answers[0x77] = lambda size: next(values)
    assert guest.run() == 1, f"returned and expected: {guest.numbers('got', 2, 4)}"


def test_an_instruction_may_rewrite_the_one_that_follows(boot: Boot) -> None:
    _passes(
        boot,
        """
    start:
        mov ebx, 1
    1:  mov [2f + 1], ebx
    2:  mov eax, 0
        CHECK
        mov dword ptr [3f + 1], 0x1000
        lea ecx, [rbx + 0x1000]
        lock add [3f + 1], ebx
    3:  mov eax, 0
        cmp eax, ecx
        jne wrong
        mov dword ptr [3b + 1], 0
        ROUNDS_END
    """,
    )


def test_code_across_two_pages_changes_with_either(boot: Boot) -> None:
    """The immediate lies half in one page and half in the next; each half is written alone."""
    _passes(
        boot,
        """
    start:
        mov edi, HEAP + 0xffd
        FUNCTION rdi
        mov ebx, 1
    1:  mov word ptr [rdi + 3], bx          # the second page only
        call rdi
        mov ecx, ebx
        shl ecx, 16
        cmp eax, ecx
        jne wrong
        mov [rdi + 1], bx                   # the first page only
        mov word ptr [rdi + 3], 0
        call rdi
        CHECK
        mov [rdi + 1], ebx                  # both at once
        call rdi
        CHECK
        mov word ptr [rdi + 1], 0
        ROUNDS_END
    """,
    )


def test_code_written_through_another_address_of_the_same_page(boot: Boot) -> None:
    """W^X by double mapping, as JIT compilers do: written at PAGES, executed in HEAP."""
    guest = boot(
        RETURN_IMM
        + """
    start:
        mov edi, PAGES + 0x10
        mov esi, HEAP + 0x10
        FUNCTION rdi
        mov ebx, 1
    1:  mov [rdi + 1], ebx
        call rsi
        CHECK
        lock add dword ptr [rdi + 1], 0x10000
        call rsi
        sub eax, 0x10000
        CHECK
        ROUNDS_END
    """
    )
    guests.write_page(guest.memory, 0, HEAP | PRESENT | WRITABLE | guests.NO_EXECUTE)
    assert guest.run() == 1, f"returned and expected: {guest.numbers('got', 2, 4)}"


def test_two_functions_in_one_page_written_through_another_address(boot: Boot) -> None:
    """The first write through the other address must not make the second one go unnoticed."""
    guest = boot(
        RETURN_IMM
        + """
    start:
        mov edi, PAGES
        FUNCTION rdi
        FUNCTION rdi + 0x800
        mov ebx, 1
    1:  mov esi, HEAP
        call rsi
        add esi, 0x800
        call rsi
        mov [rdi + 1], ebx
        mov [rdi + 0x801], ebx
        call rsi
        CHECK
        mov esi, HEAP
        call rsi
        CHECK
        ROUNDS_END
    """
    )
    guests.write_page(guest.memory, 0, HEAP | PRESENT | WRITABLE | guests.NO_EXECUTE)
    assert guest.run() == 1, f"returned and expected: {guest.numbers('got', 2, 4)}"


def test_code_executed_through_two_addresses(boot: Boot) -> None:
    guest = boot(
        RETURN_IMM
        + """
    start:
        mov edi, PAGES + 0x10
        mov esi, HEAP + 0x10
        mov r8d, USER + HEAP + 0x10
        FUNCTION rdi
        mov ebx, 1
    1:  mov [rsi + 1], ebx
        call rdi
        CHECK
        call rsi
        CHECK
        mov eax, ebx
        not eax
        mov [r8 + 1], eax
        call rsi
        not eax
        CHECK
        call rdi
        not eax
        CHECK
        ROUNDS_END
    """
    )
    guests.write_page(guest.memory, 0, HEAP | PRESENT | WRITABLE)
    assert guest.run() == 1, f"returned and expected: {guest.numbers('got', 2, 4)}"


def test_a_virtual_page_moved_to_another_frame_runs_the_other_code(boot: Boot) -> None:
    _passes(
        boot,
        f"""
    start:
        FUNCTION HEAP
        FUNCTION HEAP + 0x1000
        mov dword ptr [HEAP + 1], 77
        mov ebx, 1
        mov edi, PAGES
    1:  mov qword ptr [{guests.PT:#x}], HEAP + 3
        invlpg [rdi]
        call rdi
        cmp eax, 77
        jne wrong
        mov [HEAP + 0x1001], ebx
        mov qword ptr [{guests.PT:#x}], HEAP + 0x1003
        mov rax, cr3
        mov cr3, rax
        call rdi
        CHECK
        ROUNDS_END
    """,
    )


@pytest.mark.parametrize("paging", ["mov eax, 0x620", "mov eax, 0x6a0"])
def test_two_address_spaces_show_different_code_at_one_address(boot: Boot, paging: str) -> None:
    """Without and with global pages (CR4.PGE); the frames are rewritten all the while."""
    guest = boot(
        RETURN_IMM
        + f"""
    start:
        {paging}
        mov cr4, rax
        .set number, 0                      # a second PML4, PDPT, directory and page table at HEAP + 0x10000
        .irp table, {guests.PML4:#x}, {guests.PDPT:#x}, {guests.PD + 0x1000:#x}, {guests.PT:#x}
        mov esi, \\table
        mov edi, HEAP + 0x10000 + 0x1000 * number
        mov ecx, 512
        rep movsq
        .set number, number + 1
        .endr
        mov qword ptr [HEAP + 0x10000], HEAP + 0x11007
        mov qword ptr [HEAP + 0x11008], HEAP + 0x12007
        mov qword ptr [HEAP + 0x12ff8], HEAP + 0x13007
        mov qword ptr [HEAP + 0x13000], HEAP + 0x1007
        FUNCTION HEAP
        FUNCTION HEAP + 0x1000
        mov edi, PAGES
        mov r8d, {guests.PML4:#x}
        mov r9d, HEAP + 0x10000
        mov ebx, 1
    1:  mov [HEAP + 1], ebx
        mov cr3, r8
        call rdi
        CHECK
        mov eax, ebx
        not eax
        mov [HEAP + 0x1001], eax
        mov cr3, r9
        call rdi
        not eax
        CHECK
        mov cr3, r8
        call rdi
        CHECK
        ROUNDS_END
    """
    )
    guests.write_page(guest.memory, 0, HEAP | PRESENT | WRITABLE)
    assert guest.run() == 1, f"returned and expected: {guest.numbers('got', 2, 4)}"


def test_one_piece_of_code_runs_in_ring_0_and_ring_3(boot: Boot) -> None:
    """Its meaning differs: the ring shows in CS, and CLI faults only in ring 3."""
    guest = boot("""
    start:
        mov ebx, 20
    1:  call probe
        cmp ecx, 0
        jne wrong
        CATCH 2f
        ENTER_USER user
    2:  cmp ecx, 3
        jne wrong
        dec ebx
        jnz 1b
        END 1
    wrong:
        END 2
    user:
        call probe
        hlt
    probe:
        mov ecx, cs
        and ecx, 3
        cli
        ret
    """)
    assert guest.run() == 1
    assert {(t.vector, t.cs) for t in guest.traps()} == {(13, guests.USER_CODE)}


def test_the_same_bytes_mean_different_things_in_32_and_64_bit_mode(boot: Boot) -> None:
    """40 C3 is "inc eax; ret" in one mode, a prefix and "ret" in the other."""
    guest = boot(f"""
    start:
        mov ebx, 50
        xor eax, eax
    1:  call bytes
        push {guests.KERNEL_CODE_32}
        push offset narrow
        retfq
    .code32
    narrow:
        call bytes
        push {guests.KERNEL_CODE}
        push offset wide
        retf
    .code64
    wide:
        mov esp, 0x41000
        dec ebx
        jnz 1b
        END eax
    bytes: .byte 0x40, 0xc3
    """)
    assert guest.run() == 50


def test_neighbouring_numbers_change_without_disturbing_code(boot: Boot) -> None:
    _passes(
        boot,
        """
    start:
        xor r9d, r9d
        mov ebx, 1
    1:  mov ecx, 200
    2:  add dword ptr [neighbour], 1
        inc r9d
        loop 2b
        call function
        CHECK
        cmp [neighbour], r9d
        jne wrong
        ROUNDS_END
    neighbour: .long 0
    function:
        mov eax, ebx
        ret
    """,
    )


def test_code_that_rewrites_itself_survives_kicks(boot: Boot) -> None:
    guest = boot(
        RETURN_IMM
        + """
    start:
        FUNCTION HEAP
        mov edi, HEAP
        mov ebx, 1
    1:  mov [rdi + 1], ebx
        call rdi
        CHECK
        lock add dword ptr [2f + 1], 1
    2:  mov eax, 0
        CHECK
        inc ebx
        in al, 0x7e
        test al, al
        jnz 1b
        END 1
    wrong:
        mov [got], eax
        mov [got + 4], ebx
        END 2
        .balign 8
    got: .long 0, 0
    """
    )
    guest.bus.answers[0x7E] = lambda size: int(guest.kicked < 500)
    with guest.kicked_often():
        assert guest.run() == 1, f"returned and expected: {guest.numbers('got', 2, 4)}"


# --- code and data written by devices ---------------------------------------------------------------------------------


def test_a_device_may_overwrite_code_that_has_run(boot: Boot) -> None:
    guest = boot(
        RETURN_IMM
        + """
    start:
        FUNCTION HEAP
        mov edi, HEAP
        mov ebx, 1
    1:  ACT ebx
        call rdi
        CHECK
        ROUNDS_END
    """
    )
    guest.bus.reactions[guests.PORT_ACT] = lambda value: guest.memory.write(HEAP + 1, value.to_bytes(4, "little"))
    assert guest.run() == 1, f"returned and expected: {guest.numbers('got', 2, 4)}"


def test_a_device_may_overwrite_the_page_that_is_executing(boot: Boot) -> None:
    guest = boot(
        RETURN_IMM
        + """
    start:
        mov ebx, 1
    1:  ACT ebx
        jmp 2f
    2:  mov eax, 0
        CHECK
        ROUNDS_END
        .set immediate, 2b + 1
    """
    )
    addr = guest.label("immediate")
    guest.bus.reactions[guests.PORT_ACT] = lambda value: guest.memory.write(addr, value.to_bytes(4, "little"))
    assert guest.run() == 1, f"returned and expected: {guest.numbers('got', 2, 4)}"


def test_a_device_may_write_through_a_window_and_say_so(boot: Boot) -> None:
    """A large DMA, as a disk does, over 16 pages of which each holds a function."""
    guest = boot(
        RETURN_IMM
        + """
    start:
        mov ebx, 1
    1:  mov edx, DEVICE
        mov [rdx], ebx                      # "read a sector": an MMIO write this time
        mov edi, HEAP
        mov ecx, 16
    2:  call rdi
        CHECK
        add edi, 0x1000
        loop 2b
        ROUNDS_END
    """
    )

    def fill(value: int) -> None:
        window = guest.memory.window(HEAP, 16 * 0x1000)
        for page in range(16):
            window[0x1000 * page : 0x1000 * page + 6] = b"\xb8" + value.to_bytes(4, "little") + b"\xc3"
        guest.memory.touched(HEAP, 16 * 0x1000)

    guest.bus.on_mmio_write = fill
    assert guest.run() == 1, f"returned and expected: {guest.numbers('got', 2, 4)}"


def test_a_device_sees_what_the_guest_has_written_and_the_guest_what_the_device_has(boot: Boot) -> None:
    guest = boot("""
    start:
        mov ebx, 1
    1:  mov [HEAP + 8 * rbx], rbx
        ACT ebx
        mov rax, [HEAP + 8 * rbx]
        lea rcx, [rbx + rbx]
        cmp rax, rcx
        jne wrong
        inc ebx
        cmp ebx, 200
        jne 1b
        END 1
    wrong:
        END 2
    """)

    def double(value: int) -> None:
        addr = HEAP + 8 * value
        guest.memory.write(addr, (2 * guest.number(addr)).to_bytes(8, "little"))

    guest.bus.reactions[guests.PORT_ACT] = double
    assert guest.run() == 1


# --- large memory -----------------------------------------------------------------------------------------------------

FIVE_GIB: Final = 5 * 1024


def test_memory_continues_above_the_hole(boot: Boot) -> None:
    """5 GiB: [0, 3 GiB) and [4 GiB, 6 GiB); numbers at all four ends, seen from both sides."""
    places = [3 * GIB - 8, 4 * GIB, 4 * GIB + 0x123, 5 * GIB - 4, 6 * GIB - 8]
    guest = boot(
        "start:\n"
        + "".join(
            f"mov rdi, {p:#x}; mov rax, [rdi]; not rax; mov [rdi], rax; lock inc dword ptr [rdi]\n" for p in places
        )
        + "END",
        memory_mib=FIVE_GIB,
    )
    for place in places:
        guest.memory.write(place, (place ^ 0x5A5A5A5A).to_bytes(8, "little"))
    guest.run()
    for place in places:
        value = ~(place ^ 0x5A5A5A5A) & ((1 << 64) - 1)
        low = (value + 1) & 0xFFFFFFFF
        assert guest.number(place) == value >> 32 << 32 | low
    assert guest.bus.seen("mmio", "write") == []


def test_the_hole_of_a_large_guest_still_reaches_the_bus(boot: Boot) -> None:
    guest = boot(
        "start: mov edi, 0xc0000000; mov eax, [rdi]; mov rdi, 6 << 30; mov dword ptr [PAGES], 5; END",
        memory_mib=FIVE_GIB,
    )
    guests.write_page(guest.memory, 0, 6 * GIB | PRESENT | WRITABLE)
    guest.run()
    assert guest.bus.seen("mmio", "read") == [(3 * GIB, 4, 0xFFFFFFFF)]
    assert guest.bus.seen("mmio", "write") == [(6 * GIB, 4, 5)]


@pytest.mark.parametrize("home", [3 * GIB - 0x1000, 4 * GIB, 4 * GIB + 0x3FFC, 6 * GIB - 0x1000])
def test_code_above_the_hole_runs_and_changes(boot: Boot, home: int) -> None:
    """Rewritten by the guest, then by a device."""
    guest = boot(
        RETURN_IMM
        + f"""
    start:
        mov rdi, {home:#x}
        FUNCTION rdi
        mov ebx, 1
    1:  mov [rdi + 1], ebx
        call rdi
        CHECK
        mov eax, ebx
        not eax
        ACT eax
        call rdi
        not eax
        CHECK
        ROUNDS_END
    """,
        memory_mib=FIVE_GIB,
    )
    guest.bus.reactions[guests.PORT_ACT] = lambda value: guest.memory.write(home + 1, value.to_bytes(4, "little"))
    assert guest.run() == 1, f"returned and expected: {guest.numbers('got', 2, 4)}"


def test_page_tables_may_lie_above_the_hole(boot: Boot) -> None:
    guest = boot(
        f"""
    start:
        mov esi, {guests.PML4:#x}
        mov rdi, 5 << 30
        mov ecx, 512
        rep movsq
        mov rax, 5 << 30
        mov cr3, rax
        mov dword ptr [HEAP], 77
        ACT
        mov rax, cr4
        or eax, 0x80
        mov cr4, rax
        mov rax, 5 << 30
        mov cr3, rax
        mov eax, [HEAP]
        END eax
    """,
        memory_mib=FIVE_GIB,
    )
    assert guest.run() == 77
