"""Paging: page faults tell what was tried, and translations are forgotten when they must be."""

from typing import Final

import pytest

from tests.contract.engine import guests
from tests.contract.engine.guests import NO_EXECUTE, OPEN, PAGES, PRESENT, WRITABLE
from tests.contract.engine.harness import Boot

PAGE = guests.HEAP | PRESENT
RESERVED = 1 << 51  # no CPU of this decade has so many physical address bits
FAULTS: Final = {
    "a read of an absent page": ("mov eax, [rdi]", 0, 0),
    "a write of an absent page": ("mov [rdi], eax", 0, 2),
    "a fetch of an absent page": ("call rdi", 0, 0x10),
    "a write of a read-only page": ("mov [rdi], eax", PAGE, 3),
    "a read-modify-write of a read-only page": ("lock inc dword ptr [rdi]", PAGE, 3),
    "a fetch of a no-execute page": ("call rdi", PAGE | NO_EXECUTE, 0x11),
    "a read through a reserved bit": ("mov eax, [rdi]", PAGE | RESERVED, 9),
    "a write through a reserved bit": ("mov [rdi], eax", PAGE | WRITABLE | RESERVED, 0xB),
}
USER_FAULTS: Final = {
    "a user read of an absent page": ("mov eax, [rdi]", 0, 4),
    "a user write of an absent page": ("mov [rdi], eax", 0, 6),
    "a user fetch of an absent page": ("call rdi", 0, 0x14),
    "a user read of a supervisor page": ("mov eax, [rdi]", PAGE | WRITABLE, 5),
    "a user write of a supervisor page": ("mov [rdi], eax", PAGE | WRITABLE, 7),
    "a user fetch of a supervisor page": ("call rdi", PAGE, 0x15),
    "a user write of a read-only page": ("mov [rdi], eax", PAGE | OPEN, 7),
    "a user fetch of a no-execute page": ("call rdi", PAGE | OPEN | NO_EXECUTE, 0x15),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_page_fault_tells_what_was_tried(boot: Boot, name: str) -> None:
    access, entry, error = FAULTS[name]
    guest = boot(f"start: CATCH done; mov edi, PAGES + 0x3128; fault: {access}; nop; done: END")
    guests.write_page(guest.memory, 3, entry)
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error, trap.cr2) == (14, error, PAGES + 0x3128)
    assert trap.rip == (PAGES + 0x3128 if access.startswith("call") else guest.label("fault"))


@pytest.mark.parametrize("name", USER_FAULTS)
def test_a_page_fault_of_user_code_says_so(boot: Boot, name: str) -> None:
    access, entry, error = USER_FAULTS[name]
    guest = boot(f"start: CATCH done; ENTER_USER user; user: mov edi, PAGES + 0x3128; fault: {access}; nop; done: END")
    guests.write_page(guest.memory, 3, entry)
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error, trap.cr2) == (14, error, PAGES + 0x3128)
    assert trap.cs == guests.USER_CODE
    assert trap.rip == (PAGES + 0x3128 if access.startswith("call") else guests.USER + guest.label("fault"))


def test_no_execute_is_a_reserved_bit_while_efer_nxe_is_clear(boot: Boot) -> None:
    guest = boot("""
    start:
        mov ecx, 0xc0000080
        rdmsr
        btr eax, 11
        wrmsr
        CATCH done
        mov eax, [PAGES]
    done:
        END
    """)
    guests.write_page(guest.memory, 0, PAGE | NO_EXECUTE)
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error) == (14, 9)


def test_ring_0_may_write_read_only_pages_while_cr0_wp_is_clear(boot: Boot) -> None:
    guest = boot("""
    start:
        mov rax, cr0
        btr rax, 16
        mov cr0, rax
        mov dword ptr [PAGES], 77
        bts rax, 16
        mov cr0, rax
        CATCH done
        mov dword ptr [PAGES], 78
    done:
        END
    """)
    guests.write_page(guest.memory, 0, PAGE)
    guest.run()
    assert [(t.vector, t.error) for t in guest.traps()] == [(14, 3)]
    assert guest.number(guests.HEAP, 4) == 77


def test_a_page_fault_in_the_second_page_leaves_the_first_untouched(boot: Boot) -> None:
    guest = boot("start: CATCH done; mov rax, -1; mov [PAGES + 0xffd], rax; done: END")
    guests.write_page(guest.memory, 0, PAGE | WRITABLE)
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error, trap.cr2) == (14, 2, PAGES + 0x1000)
    assert guest.number(guests.HEAP + 0xFF8) == 0


def test_an_instruction_across_pages_faults_at_its_second_page(boot: Boot) -> None:
    guest = boot("start: CATCH done; mov edi, PAGES + 0xffe; call rdi; done: END")
    guests.write_page(guest.memory, 0, PAGE)
    guest.memory.write(guests.HEAP + 0xFFE, b"\xb8\x01")  # mov eax, imm32 without its end
    guest.run()
    (trap,) = guest.traps()
    assert (trap.vector, trap.error, trap.cr2, trap.rip) == (14, 0x10, PAGES + 0x1000, PAGES + 0xFFE)


def test_accessed_and_dirty_bits_are_set_by_use(boot: Boot) -> None:
    guest = boot("start: mov eax, [PAGES]; mov [PAGES + 0x1000], eax; END")
    for index in range(3):
        guests.write_page(guest.memory, index, PAGE | WRITABLE)
    guest.run()
    assert [entry & 0x60 for entry in guest.numbers(guests.PT, 3)] == [0x20, 0x60, 0]


def test_a_stale_translation_is_used_until_invlpg_or_a_cr3_write_drops_it(boot: Boot) -> None:
    """Only the flushed cases are certain: what an unflushed TLB shows is the CPU's own affair."""
    guest = boot(f"""
    start:
        mov eax, [PAGES]                    # remembered in the TLB
        mov qword ptr [{guests.PT:#x}], HEAP + 0x1000 + 3
        invlpg [PAGES]
        mov eax, [PAGES]
        mov [got], eax
        mov qword ptr [{guests.PT:#x}], HEAP + 0x2000 + 3
        mov rax, cr3
        mov cr3, rax
        mov eax, [PAGES]
        mov [got + 4], eax
        mov qword ptr [{guests.PT:#x}], HEAP + 0x3000 + 3
        mov rax, cr4
        xor eax, 0x80                       # PGE, either way, drops everything
        mov cr4, rax
        mov eax, [PAGES]
        mov [got + 8], eax
        END
    got: .long 0, 0, 0
    """)
    guests.write_page(guest.memory, 0, PAGE | WRITABLE)
    for index in range(4):
        guest.memory.write(guests.HEAP + 0x1000 * index, bytes([index] * 4))
    guest.run()
    assert guest.numbers("got", 3, 4) == [0x01010101, 0x02020202, 0x03030303]


def test_a_global_page_survives_a_cr3_write_but_not_invlpg(boot: Boot) -> None:
    guest = boot(f"""
    start:
        mov rax, cr4
        or eax, 0x80
        mov cr4, rax
        mov eax, [PAGES]
        mov rax, cr3
        mov cr3, rax
        mov qword ptr [{guests.PT:#x}], HEAP + 0x1000 + 3 + 0x100
        invlpg [PAGES]
        mov eax, [PAGES]
        mov [got], eax
        END
    got: .long 0
    """)
    guests.write_page(guest.memory, 0, PAGE | WRITABLE | 0x100)
    guest.memory.write(guests.HEAP + 0x1000, b"\x01\x01\x01\x01")
    guest.run()
    assert guest.number("got", 4) == 0x01010101


def test_a_cr3_write_forgets_pages_that_are_not_global(boot: Boot) -> None:
    """64 rounds with more pages than any log of pages holds, switching between two address spaces."""
    guest = boot(f"""
    start:
        mov rax, cr4
        or eax, 0x80
        mov cr4, rax
        mov esi, {guests.PML4:#x}           # a second PML4 and all below it down to the page table
        mov edi, HEAP + 0x100000
        call copy_table
        mov qword ptr [HEAP + 0x100000], HEAP + 0x101000 + 7
        mov esi, {guests.PDPT:#x}
        call copy_table
        mov qword ptr [HEAP + 0x101008], HEAP + 0x102000 + 7
        mov esi, {guests.PD + 0x1000:#x}
        call copy_table
        mov qword ptr [HEAP + 0x102ff8], HEAP + 0x103000 + 7
        mov esi, {guests.PT:#x}
        call copy_table
        mov ecx, 200                        # there, every page shows the frame after next
    1:  add qword ptr [HEAP + 0x103000 + 8 * rcx - 8], 0x100000
        loop 1b
        mov r8d, 64
        mov r9, cr3
        mov r10d, HEAP + 0x100000
    round:
        mov cr3, r9
        xor ebx, ebx
        call sum
        mov r11, rbx
        mov cr3, r10
        xor ebx, ebx
        call sum
        sub rbx, r11
        cmp rbx, 200 * 1000
        jne wrong
        dec r8d
        jnz round
        END 1
    wrong:
        END 2
    sum:                                    # adds the first number of each page
        mov edi, PAGES
        mov ecx, 200
    2:  mov eax, [rdi]
        add rbx, rax
        add rdi, 0x1000
        loop 2b
        ret
    copy_table:
        mov ecx, 512
        rep movsq
        ret
    """)
    for index in range(200):
        guests.write_page(guest.memory, index, guests.HEAP + 0x200000 + 0x1000 * index | PRESENT | WRITABLE)
        guest.memory.write(guests.HEAP + 0x200000 + 0x1000 * index, index.to_bytes(4, "little"))
        guest.memory.write(guests.HEAP + 0x300000 + 0x1000 * index, (index + 1000).to_bytes(4, "little"))
    assert guest.run() == 1


@pytest.mark.parametrize("feature", ["SMEP", "SMAP"])
def test_the_kernel_is_kept_away_from_user_pages(boot: Boot, feature: str) -> None:
    bit, cr4_bit, access, error = {
        "SMEP": (7, 20, "mov edi, PAGES + 0x10; call rdi", 0x11),
        "SMAP": (20, 21, "mov eax, [PAGES + 0x10]", 1),
    }[feature]
    guest = boot(f"""
    start:
        mov eax, 7
        xor ecx, ecx
        cpuid
        bt ebx, {bit}
        jnc 1f
        mov rax, cr4
        bts rax, {cr4_bit}
        mov cr4, rax
        CATCH done
        {access}
        END 3
    1:  END 2
    done:
        mov rax, cr4
        btr rax, {cr4_bit}
        mov cr4, rax
        mov eax, [PAGES + 0x10]             # allowed again
        END 1
    """)
    guests.write_page(guest.memory, 0, PAGE | OPEN | WRITABLE)
    if guest.run() == 2:
        pytest.skip(f"the guest's CPUID does not offer {feature}")
    (trap,) = guest.traps()
    assert (trap.vector, trap.error, trap.cr2) == (14, error, PAGES + 0x10)


def test_an_exception_handler_may_fault_itself(boot: Boot) -> None:
    """Three levels of page faults: each handler first reads the page behind the one it is asked for."""
    guest = boot(f"""
    start:
        ON 14, map_next
        mov eax, [PAGES]
        mov [got], eax
        END
    map_next:
        push rbx
        mov rbx, cr2
        cmp rbx, PAGES + 0x2000
        je 1f
        mov eax, [rbx + 0x1000]             # faults itself
    1:  lea rcx, [rbx - PAGES]
        shr ecx, 9
        lea rax, [rbx + HEAP + 3 - PAGES]
        mov [rcx + {guests.PT:#x}], rax
        pop rbx
        ret
    got: .long 0
    """)
    guest.memory.write(guests.HEAP, b"ABCD")
    guest.run()
    assert [t.cr2 - PAGES for t in guest.traps()] == [0, 0x1000, 0x2000]
    assert [t.error for t in guest.traps()] == [0, 0, 0]
    assert guest.number("got", 4) == int.from_bytes(b"ABCD", "little")
