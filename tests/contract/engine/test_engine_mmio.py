"""MMIO: guest accesses to what is not RAM reach the bus, whole when aligned and with the right bytes when not."""

import pytest

from hibana.engine.interface import Reason
from hibana.units import GIB, MIB
from tests.contract.engine import guests
from tests.contract.engine.guests import DEVICE
from tests.contract.engine.harness import Boot

PATTERN = bytes((i * 37 + 11) & 0xFF for i in range(0x2000))
OF_SIZE = {1: ("al", "byte"), 2: ("ax", "word"), 4: ("eax", "dword"), 8: ("rax", "qword")}
SIZES = sorted(OF_SIZE)


@pytest.mark.parametrize("size", SIZES)
def test_an_aligned_write_is_one_access(boot: Boot, size: int) -> None:
    guest = boot(f"start: mov edi, DEVICE + 0x20; mov rax, 0x8877665544332211; mov [rdi], {OF_SIZE[size][0]}; END")
    guest.run()
    assert guest.bus.seen("mmio", "write") == [(DEVICE + 0x20, size, 0x8877665544332211 & (1 << 8 * size) - 1)]
    assert guest.bus.seen("mmio", "read") == []


@pytest.mark.parametrize("size", SIZES)
def test_an_aligned_read_is_one_access(boot: Boot, size: int) -> None:
    guest = boot(f"""
    start: mov edi, DEVICE + 0x20; mov rax, -1; mov {OF_SIZE[size][0]}, [rdi]; mov [got], rax; END
    got: .quad 0
    """)
    guest.bus.device[0x20:0x28] = bytes.fromhex("1122334455667788")
    guest.run()
    value = 0x8877665544332211 & (1 << 8 * size) - 1
    assert guest.bus.seen("mmio", "read") == [(DEVICE + 0x20, size, value)]
    kept = {1: (1 << 64) - 0x100, 2: (1 << 64) - 0x10000, 4: 0, 8: 0}[size]
    assert guest.number("got") == kept | value


@pytest.mark.parametrize(
    ("load", "result"),
    [
        ("movzx eax, byte ptr [rdi]", 0x88),
        ("movzx eax, word ptr [rdi]", 0xFF88),
        ("movsx rax, byte ptr [rdi]", 0xFFFFFFFFFFFFFF88),
        ("movsx eax, word ptr [rdi]", 0xFFFFFF88),
        ("movsxd rax, dword ptr [rdi]", 0xFFFFFFFFFFFFFF88),
    ],
)
def test_a_read_is_extended_as_the_instruction_says(boot: Boot, load: str, result: int) -> None:
    guest = boot(f"start: mov edi, DEVICE; {load}; mov [got], rax; END; got: .quad 0")
    guest.bus.device[:4] = b"\x88\xff\xff\xff"
    guest.run()
    assert guest.number("got") == result


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("offset", [0x1, 0x3, 0xFF9, 0xFFF])
def test_an_unaligned_write_changes_exactly_its_bytes(boot: Boot, size: int, offset: int) -> None:
    """The engine may split it; 0xFFF always crosses into the next page."""
    guest = boot(f"start: mov edi, DEVICE + {offset}; mov rax, 0x8877665544332211; mov [rdi], {OF_SIZE[size][0]}; END")
    guest.bus.device[: len(PATTERN)] = PATTERN
    guest.run()
    expected = bytearray(PATTERN)
    expected[offset : offset + size] = bytes.fromhex("1122334455667788")[:size]
    assert guest.bus.device[: len(PATTERN)] == expected


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("offset", [0x1, 0x3, 0xFF9, 0xFFF])
def test_an_unaligned_read_gives_the_bytes_at_its_address(boot: Boot, size: int, offset: int) -> None:
    guest = boot(f"""
    start: mov edi, DEVICE + {offset}; xor eax, eax; mov {OF_SIZE[size][0]}, [rdi]; mov [got], rax; END
    got: .quad 0
    """)
    guest.bus.device[: len(PATTERN)] = PATTERN
    guest.run()
    assert guest.number("got") == int.from_bytes(PATTERN[offset : offset + size], "little")


def test_an_access_may_straddle_the_end_of_ram(boot: Boot) -> None:
    guest = boot("""
    start:
        mov edi, 0xfffffd                   # RAM ends at 16 MiB
        mov rax, 0x8877665544332211
        mov [rdi], rax
        mov rbx, [rdi]
        mov [got], rbx
        END
    got: .quad 0
    """)
    guest.run()
    assert guest.memory.read(16 * MIB - 3, 3) == bytes.fromhex("112233")
    written = b"".join(v.to_bytes(size, "little") for _, size, v in guest.bus.seen("mmio", "write"))
    assert written == bytes.fromhex("4455667788")
    assert guest.number("got") == 0xFFFFFFFFFF332211


@pytest.mark.parametrize(
    ("change", "before", "after", "rax"),
    [
        ("add dword ptr [rdi], eax", 0xFFFFFFFE, 5, 7),
        ("lock add dword ptr [rdi], eax", 0xFFFFFFFE, 5, 7),
        ("or dword ptr [rdi], eax", 0x10, 0x17, 7),
        ("and dword ptr [rdi], eax", 0x15, 5, 7),
        ("xor dword ptr [rdi], eax", 0x15, 0x12, 7),
        ("sub dword ptr [rdi], eax", 8, 1, 7),
        ("inc dword ptr [rdi]", 8, 9, 7),
        ("dec dword ptr [rdi]", 8, 7, 7),
        ("not dword ptr [rdi]", 0xF0F0F0F0, 0x0F0F0F0F, 7),
        ("neg dword ptr [rdi]", 1, 0xFFFFFFFF, 7),
        ("shl dword ptr [rdi], 4", 0x11, 0x110, 7),
        ("bts dword ptr [rdi], 3", 1, 9, 7),
        ("lock btr dword ptr [rdi], 3", 9, 1, 7),
        ("xchg [rdi], eax", 0x1234, 7, 0x1234),
        ("lock xadd [rdi], eax", 3, 10, 3),
        ("lock cmpxchg [rdi], ecx", 7, 99, 7),
        ("setz byte ptr [rdi]", 0x1100, 0x1101, 7),
    ],
)
def test_a_read_modify_write_works_on_a_device(boot: Boot, change: str, before: int, after: int, rax: int) -> None:
    guest = boot(f"""
    start:
        mov edi, DEVICE + 8
        mov eax, 7
        mov ecx, 99
        cmp eax, eax
        {change}
        mov [got], rax
        END
    got: .quad 0
    """)
    guest.bus.device[8:12] = before.to_bytes(4, "little")
    guest.run()
    assert int.from_bytes(guest.bus.device[8:12], "little") == after
    assert guest.number("got") == rax
    assert len(guest.bus.seen("mmio", "write")) == 1
    assert len(guest.bus.seen("mmio", "read")) == (0 if change.startswith("setz") else 1)


@pytest.mark.parametrize("look", ["cmp dword ptr [rdi], 5", "test dword ptr [rdi], 5", "bt dword ptr [rdi], 0"])
def test_a_comparison_only_reads_a_device(boot: Boot, look: str) -> None:
    guest = boot(f"start: mov edi, DEVICE; {look}; END")
    guest.bus.device[0] = 5
    guest.run()
    assert guest.bus.seen("mmio", "read") == [(DEVICE, 4, 5)]
    assert guest.bus.seen("mmio", "write") == []


@pytest.mark.parametrize("size", SIZES)
def test_string_moves_copy_into_and_out_of_a_device(boot: Boot, size: int) -> None:
    letter = {1: "b", 2: "w", 4: "d", 8: "q"}[size]
    guest = boot(f"""
    start:
        mov esi, HEAP
        mov edi, DEVICE
        mov ecx, 40
        rep movs{letter}                    # RAM to device
        mov esi, DEVICE
        mov edi, DEVICE + 0x1000
        mov ecx, 40
        rep movs{letter}                    # device to device
        mov esi, DEVICE + 0x1000
        mov edi, HEAP + 0x1000
        mov ecx, 40
        rep movs{letter}                    # device to RAM
        END
    """)
    guest.memory.write(guests.HEAP, PATTERN[: 40 * size])
    guest.run()
    assert guest.memory.read(guests.HEAP + 0x1000, 40 * size) == PATTERN[: 40 * size]
    into = [DEVICE + size * i for i in range(40)]
    assert guest.bus.seen("mmio", "write")[:40] == [
        (addr, size, int.from_bytes(PATTERN[addr - DEVICE :][:size], "little")) for addr in into
    ]
    assert [a[0] for a in guest.bus.seen("mmio", "read")] == into + [addr + 0x1000 for addr in into]


@pytest.mark.parametrize("size", SIZES)
def test_string_stores_and_loads_work_on_a_device(boot: Boot, size: int) -> None:
    letter = {1: "b", 2: "w", 4: "d", 8: "q"}[size]
    guest = boot(f"""
    start:
        mov edi, DEVICE + {3 * size}
        mov rax, 0x8877665544332211
        mov ecx, 4
        std
        rep stos{letter}
        cld
        mov esi, DEVICE
        xor eax, eax
        lods{letter}
        mov [got], rax
        END
    got: .quad 0
    """)
    guest.run()
    value = 0x8877665544332211 & (1 << 8 * size) - 1
    assert guest.bus.seen("mmio", "write") == [(DEVICE + size * i, size, value) for i in (3, 2, 1, 0)]
    assert guest.bus.seen("mmio", "read") == [(DEVICE, size, value)]
    assert guest.number("got") == value


def test_a_string_search_reads_a_device_until_it_finds(boot: Boot) -> None:
    guest = boot("""
    start:
        mov edi, DEVICE
        mov ecx, 100
        mov al, 'x'
        repne scasb
        mov [got], rcx
        END
    got: .quad 0
    """)
    guest.bus.device[:8] = b"abcdexyz"
    guest.run()
    assert guest.number("got") == 94
    assert [a[0] for a in guest.bus.seen("mmio", "read")] == [DEVICE + i for i in range(6)]


@pytest.mark.parametrize("move", ["movups", "movaps", "movdqu"])
def test_sixteen_bytes_reach_a_device_in_order(boot: Boot, move: str) -> None:
    guest = boot(f"""
    start:
        mov esi, offset text
        mov edi, DEVICE + 0x10
        {move} xmm3, [rsi]
        {move} [rdi], xmm3
        {move} xmm4, [rdi]
        {move} [got], xmm4
        END
        .balign 16
    text: .ascii "0123456789abcdef"
    got: .quad 0, 0
    """)
    guest.run()
    assert guest.bus.device[0x10:0x20] == b"0123456789abcdef"
    assert guest.memory.read(guest.label("got"), 16) == b"0123456789abcdef"
    assert [a[0] for a in guest.bus.seen("mmio", "write")] == [DEVICE + 0x10, DEVICE + 0x18]


def test_the_stack_may_lie_in_a_device(boot: Boot) -> None:
    guest = boot("""
    start:
        mov rbx, rsp
        mov esp, DEVICE + 0x100
        push 0x1234
        call 1f
    after:
        pop rax
        mov rsp, rbx
        mov [got], rax
        END
    1:  ret
    got: .quad 0
    """)
    guest.run()
    assert guest.number("got") == 0x1234
    assert guest.bus.seen("mmio", "write") == [(DEVICE + 0xF8, 8, 0x1234), (DEVICE + 0xF0, 8, guest.label("after"))]


@pytest.mark.parametrize(
    "addr", [16 * MIB, 3 * GIB - 0x1000, guests.HOLE, 0xFFFFF000, 4 * GIB, 6 * GIB, 64 * GIB, 255 * GIB, 512 * GIB]
)
def test_an_address_with_nothing_behind_it_reaches_the_bus(boot: Boot, addr: int) -> None:
    guest = boot("""
    start:
        mov edi, PAGES
        mov eax, [rdi + 0xabc]
        mov [got], eax
        mov dword ptr [rdi + 0xabc], 77
        END
    got: .long 0
    """)
    guests.write_page(guest.memory, 0, addr | guests.PRESENT | guests.WRITABLE)
    guest.run()
    assert guest.number("got", 4) == 0xFFFFFFFF
    assert guest.bus.seen("mmio", "read") == [(addr + 0xABC, 4, 0xFFFFFFFF)]
    assert guest.bus.seen("mmio", "write") == [(addr + 0xABC, 4, 77)]


def test_the_interrupt_chips_answer_themselves(boot: Boot) -> None:
    guest = boot("""
    start:
        ENABLE_APIC
        mov edi, LAPIC
        mov eax, [rdi + 0x30]
        mov [got], eax
        mov edi, IOAPIC
        mov dword ptr [rdi], 1
        mov eax, [rdi + 16]
        mov [got + 4], eax
        in al, 0x21
        mov [got + 8], al
        END
    got: .long 0, 0, 0
    """)
    guest.run()
    local, io, mask = guest.numbers("got", 3, 4)
    assert (local & 0xFF, local >> 16, io & 0xFF, io >> 16 & 0xFF) == (0x14, 5, 0x11, 23)
    assert mask == 0xFF
    assert [a for a in guest.bus.log if a.addr != guests.PORT_END] == []


def test_an_exception_in_a_device_stops_the_vm_with_a_sentence(boot: Boot) -> None:
    guest = boot("start: mov edi, DEVICE; mov eax, [rdi]; 1: jmp 1b")
    guest.bus.faulty = True
    stop = guest.run_to_stop()
    assert stop is not None
    assert stop.reason is Reason.FAILED
    assert "a bug in a device" in stop.detail


def test_a_failure_is_told_before_a_kick(boot: Boot) -> None:
    """A VMM that pauses a VM must not take a broken one for a paused one."""
    guest = boot("start: ACT; 1: jmp 1b")

    def kick_and_fail(value: int) -> None:
        guest.kick()
        raise ValueError("a bug in a port")

    guest.bus.reactions[guests.PORT_ACT] = kick_and_fail
    assert guest.run_once().reason is Reason.FAILED


def test_an_exception_in_a_port_handler_stops_the_vm_with_a_sentence(boot: Boot) -> None:
    guest = boot("start: ACT; 1: jmp 1b")

    def fail(value: int) -> None:
        raise ValueError("a bug in a port")

    guest.bus.reactions[guests.PORT_ACT] = fail
    stop = guest.run_to_stop()
    assert stop is not None
    assert stop.reason is Reason.FAILED
    assert "a bug in a port" in stop.detail
