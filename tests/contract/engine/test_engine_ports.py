"""Ports: IN, OUT and their string forms reach the bus, once each and in order."""

import pytest

from tests.contract.engine import guests
from tests.contract.engine.harness import Boot

REGISTERS = [("al", 1), ("ax", 2), ("eax", 4)]
STRINGS = [("b", 1), ("w", 2), ("d", 4)]


@pytest.mark.parametrize(("register", "size"), REGISTERS)
def test_a_port_write_reaches_the_bus(boot: Boot, register: str, size: int) -> None:
    guest = boot(f"start: mov eax, 0x87654321; mov edx, 0x142e9; out dx, {register}; out 0x77, {register}; END")
    guest.run()
    value = 0x87654321 & (1 << 8 * size) - 1
    assert guest.bus.seen("port", "write") == [(0x42E9, size, value), (0x77, size, value)]


@pytest.mark.parametrize(("register", "size"), REGISTERS)
def test_a_port_read_changes_only_as_much_of_rax_as_was_read(boot: Boot, register: str, size: int) -> None:
    guest = boot(f"""
    start:
        mov rax, 0x1122334455667788
        mov dx, 0xfffe
        in {register}, dx
        mov [got], rax
        mov rax, 0x1122334455667788
        in {register}, 0x77
        mov [got + 8], rax
        END
    got: .quad 0, 0
    """)
    guest.bus.answers = {
        0xFFFE: lambda size: 0xA5A6A7A8 & (1 << 8 * size) - 1,
        0x77: lambda size: 0x01020304 & (1 << 8 * size) - 1,
    }
    guest.run()
    kept = {1: 0x1122334455667700, 2: 0x1122334455660000, 4: 0}[size]  # a 32-bit result clears the upper half
    mask = (1 << 8 * size) - 1
    assert guest.numbers("got", 2) == [kept | 0xA5A6A7A8 & mask, kept | 0x01020304 & mask]
    assert [a[:2] for a in guest.bus.seen("port", "read")] == [(0xFFFE, size), (0x77, size)]


def test_port_and_memory_writes_reach_the_bus_in_program_order(boot: Boot) -> None:
    guest = boot("""
    start:
        mov edi, DEVICE
        xor eax, eax
    1:  out 0x77, al
        mov [rdi], eax
        inc eax
        cmp eax, 50
        jne 1b
        END
    """)
    guest.run()
    assert [(a.space, a.value) for a in guest.bus.log[:-1]] == [(s, i) for i in range(50) for s in ("port", "mmio")]


@pytest.mark.parametrize(("letter", "size"), STRINGS)
def test_outs_sends_one_element(boot: Boot, letter: str, size: int) -> None:
    guest = boot(f"""
    start: mov esi, offset text; mov dx, 0x77; outs{letter}; mov [end_rsi], rsi; END
    text: .ascii "abcd"
    end_rsi: .quad 0
    """)
    guest.run()
    assert guest.bus.seen("port", "write") == [(0x77, size, int.from_bytes(b"abcd"[:size], "little"))]
    assert guest.number("end_rsi") == guest.label("text") + size


@pytest.mark.parametrize(("letter", "size"), STRINGS)
@pytest.mark.parametrize("step", [1, -1])
def test_rep_outs_sends_every_element_in_order(boot: Boot, letter: str, size: int, step: int) -> None:
    guest = boot(f"""
    start:
        mov esi, offset text
        .if {step} < 0
        std
        add esi, {99 * size}
        .endif
        mov ecx, 100
        mov dx, 0x77
        rep outs{letter}
        cld
        mov [end], rsi
        mov [end + 8], rcx
        END
    end: .quad 0, 0
    text:
    """)
    text = bytes((7 * i + i // 256) & 0xFF for i in range(100 * size))
    guest.memory.write(guest.label("text"), text)
    guest.run()
    elements = [int.from_bytes(text[i : i + size], "little") for i in range(0, 100 * size, size)][::step]
    assert guest.bus.seen("port", "write") == [(0x77, size, value) for value in elements]
    assert guest.numbers("end", 2) == [guest.label("text") + (100 * size if step > 0 else -size), 0]


@pytest.mark.parametrize(("letter", "size"), STRINGS)
@pytest.mark.parametrize("step", [1, -1])
def test_rep_ins_stores_every_element_in_order(boot: Boot, letter: str, size: int, step: int) -> None:
    guest = boot(f"""
    start:
        mov edi, HEAP
        .if {step} < 0
        std
        add edi, {99 * size}
        .endif
        mov ecx, 100
        mov dx, 0x77
        rep ins{letter}
        cld
        mov [end], rdi
        mov [end + 8], rcx
        END
    end: .quad 0, 0
    """)
    values = iter(range(0x01010101, 0x7F010101, 0x01010101 + 1))
    guest.bus.answers[0x77] = lambda size: next(values) & (1 << 8 * size) - 1
    guest.run()
    answered = [value for _, _, value in guest.bus.seen("port", "read")]
    assert len(answered) == 100
    assert guest.numbers(guests.HEAP, 100, size) == answered[::step]
    assert guest.numbers("end", 2) == [guests.HEAP + (100 * size if step > 0 else -size), 0]


def test_rep_outs_with_a_count_of_zero_does_nothing(boot: Boot) -> None:
    guest = boot("""
    start: mov esi, offset text; xor ecx, ecx; mov dx, 0x77; rep outsb; mov [end], rsi; END
    text: .ascii "a"
    end: .quad 0
    """)
    guest.run()
    assert guest.bus.seen("port", "write") == []
    assert guest.number("end") == guest.label("text")


def test_outs_obeys_a_segment_base(boot: Boot) -> None:
    guest = boot("""
    start:
        SET_MSR 0xc0000100, 0x1000        # FS.base
        mov esi, offset text - 0x1000
        mov dx, 0x77
        outs dx, byte ptr fs:[rsi]
        END
    text: .ascii "z"
    """)
    guest.run()
    assert guest.bus.seen("port", "write") == [(0x77, 1, ord("z"))]


def test_rep_outs_with_32_bit_addresses_counts_in_ecx(boot: Boot) -> None:
    guest = boot("""
    start:
        mov rsi, offset text
        mov rcx, 0x700000003
        mov dx, 0x77
        addr32 rep outsb
        mov [end], rcx
        END
    text: .ascii "xyz!"
    end: .quad 0
    """)
    guest.run()
    assert bytes(value for _, _, value in guest.bus.seen("port", "write")) == b"xyz"
    assert guest.number("end") & 0xFFFFFFFF == 0


def test_rep_ins_faults_at_the_first_absent_page_and_continues(boot: Boot) -> None:
    """The device must be asked once for every element that was stored, whatever happens in the middle."""
    guest = boot(f"""
    start:
        mov edi, PAGES + 0xffc
        mov ecx, 8
        mov dx, 0x77
        ON 14, map_it
        rep insb
        END
    map_it:
        mov rax, HEAP + 0x1000 + 3
        mov [{guests.PT + 8:#x}], rax
        ret
    """)
    guests.write_page(guest.memory, 0, guests.HEAP | guests.PRESENT | guests.WRITABLE)
    letters = iter(b"abcdefghijklmnop")
    guest.bus.answers[0x77] = lambda size: next(letters)
    guest.run()
    assert [(t.vector, t.cr2) for t in guest.traps()] == [(14, guests.PAGES + 0x1000)]
    stored = guest.memory.read(guests.HEAP + 0xFFC, 8)
    asked = bytes(value for _, _, value in guest.bus.seen("port", "read"))
    # KVM reads ahead and forgets what it read when the store faults; still nothing is stored twice or out of order.
    assert stored[:4] == b"abcd"
    assert asked.find(stored[4:]) >= 4
