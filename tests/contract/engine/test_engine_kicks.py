"""Kicks: they end `run` soon and whenever they come, and the guest never notices."""

import itertools
import random
import threading
import time
from typing import Final

import pytest

from hibana.engine.interface import KICKED, Runner
from tests.contract.engine import guests
from tests.contract.engine.guests import DEVICE
from tests.contract.engine.harness import Boot, Guest

ENOUGH: Final = 1000
"""Returns of `run` that make a guest's life hard enough."""
PORT_MORE: Final = 0x7E
"""Read by a guest that asks whether to go on."""
ENDLESS: Final = {
    "an empty loop": "1: jmp 1b",
    "a loop of PAUSE": "1: pause; jmp 1b",
    "a loop over memory": "1: inc qword ptr [HEAP]; jmp 1b",
    "HLT with interrupts off": "cli; 1: hlt; jmp 1b",
    "HLT with interrupts on": "sti; 1: hlt; jmp 1b",
    "a loop of port writes": "1: out 0x77, al; jmp 1b",
    "a loop of MMIO reads": "mov edi, DEVICE; 1: mov eax, [rdi]; jmp 1b",
    "a loop of exceptions": (
        "ON 6, 2f; 1: ud2; jmp 1b; 2: add qword ptr [rdi + 16], 2; mov dword ptr [log_count], 0; ret"
    ),
    "a loop of string moves": "1: mov esi, HEAP; lea edi, [rsi + 0x10000]; mov ecx, 0x8000; rep movsb; jmp 1b",
    "a loop of CR3 writes": "mov rax, cr3; 1: mov cr3, rax; jmp 1b",
    "a loop of CPUID": "1: cpuid; jmp 1b",
}


def _busy_until_kicked_enough(guest: Guest) -> None:
    guest.bus.answers[PORT_MORE] = lambda size: int(guest.kicked < ENOUGH)


def test_a_kick_before_run_is_not_lost(boot: Boot) -> None:
    guest = boot("start: jmp start")
    for _ in range(20):
        guest.kick()
        assert guest.run_once() == KICKED


def test_two_kicks_are_at_least_one_return(boot: Boot) -> None:
    guest = boot("start: jmp start")
    guest.kick()
    guest.kick()
    assert guest.run_once() == KICKED
    threading.Timer(0.05, guest.kick).start()  # the second of the two may have returned already: one more is enough
    assert guest.run_once() == KICKED


@pytest.mark.parametrize("name", ENDLESS)
def test_a_kick_ends(boot: Boot, name: str) -> None:
    guest = boot(f"start: {ENDLESS[name]}")
    for wait_s in (0.02, 0.001, 0.0, 0.005, 0.0):
        kicker = threading.Timer(wait_s, guest.kick)
        kicker.start()
        assert guest.run_once() == KICKED
        kicker.join()
    assert guest.result == -1, "the guest has ended itself"


def test_run_after_a_kick_goes_on_where_it_was(boot: Boot) -> None:
    """The guest's clock is a number in a register, so a restart anywhere else would show."""
    guest = boot("start: xor ebx, ebx; 1: inc rbx; mov [count], rbx; jmp 1b; count: .quad 0")
    last = 0

    def kick_when_it_has_moved() -> None:
        while guest.number("count") <= last:
            time.sleep(0.001)
        guest.kick()

    for _ in range(10):
        kicker = threading.Thread(target=kick_when_it_has_moved)
        kicker.start()
        assert guest.run_once() == KICKED
        kicker.join()
        now = guest.number("count")
        assert now > last
        assert guest.vm.vcpus[0].save().regs.rbx in (now, now + 1)
        last = now


def test_a_kick_inside_a_bus_call_lets_the_access_finish(boot: Boot) -> None:
    """The value that was read arrives in the guest, and no access is repeated."""
    guest = boot("""
    start:
        mov ebx, 200
    1:  in eax, 0x77
        add [sum], rax
        mov edi, DEVICE
        inc dword ptr [rdi]
        dec ebx
        jnz 1b
        END
    sum: .quad 0
    """)
    values = itertools.count(1)

    def kick_and_answer(size: int) -> int:
        guest.kick()
        return next(values)

    guest.bus.answers[0x77] = kick_and_answer
    guest.bus.on_mmio_write = lambda value: guest.kick()
    guest.run()
    assert guest.number("sum") == sum(range(1, 201))
    assert int.from_bytes(guest.bus.device[:4], "little") == 200
    assert guest.kicked >= 100


def test_no_addition_to_memory_is_lost_or_repeated(boot: Boot) -> None:
    """ADD to memory is the trap for engines that restart instructions: the store must not happen twice."""
    guest = boot(f"""
    start:
        xor ebx, ebx
        mov edi, HEAP + 0xffd               # across two pages
    more:
        mov ecx, 3000
    1:  add qword ptr [count], 1
        add qword ptr [rdi], 1
        inc rbx
        loop 1b
        in al, {PORT_MORE}
        test al, al
        jnz more
        mov [expected], rbx
        END
        .balign 64
    count: .quad 0
    expected: .quad 0
    """)
    _busy_until_kicked_enough(guest)
    with guest.kicked_often():
        guest.run()
    assert guest.number("count") == guest.number("expected") == guest.number(guests.HEAP + 0xFFD)


def test_no_push_pop_or_exchange_is_lost_or_repeated(boot: Boot) -> None:
    guest = boot(f"""
    start:
        mov rbp, rsp
        xor ebx, ebx
    more:
        mov ecx, 2000
    1:  push rbx
        call 2f
        pop rax
        cmp rax, rbx
        jne wrong
        lock xadd [count], r8
        mov r8d, 1
        inc rbx
        xchg [cell], rdx
        loop 1b
        cmp rsp, rbp
        jne wrong
        in al, {PORT_MORE}
        test al, al
        jnz more
        mov [expected], rbx
        END 1
    2:  inc qword ptr [calls]
        ret
    wrong:
        END 2
    count: .quad 1                          # the first XADD adds nothing
    calls: .quad 0
    expected: .quad 0
    cell: .quad 0
    """)
    _busy_until_kicked_enough(guest)
    with guest.kicked_often():
        assert guest.run() == 1
    assert guest.number("calls") == guest.number("expected") == guest.number("count")


def test_each_port_write_is_seen_once_and_in_order(boot: Boot) -> None:
    guest = boot(f"""
    start:
        xor ebx, ebx
    more:
        mov ecx, 20
    1:  mov eax, ebx
        out 0x77, eax
        inc ebx
        loop 1b
        in al, {PORT_MORE}
        test al, al
        jnz more
        END ebx
    """)
    _busy_until_kicked_enough(guest)
    with guest.kicked_often():
        total = guest.run()
    assert [value for _, _, value in guest.bus.seen("port", "write")] == list(range(total))


def test_each_mmio_change_happens_once(boot: Boot) -> None:
    guest = boot(f"""
    start:
        mov edi, DEVICE
        xor ebx, ebx
    more:
        mov ecx, 20
    1:  inc dword ptr [rdi]
        lock add dword ptr [rdi + 4], 1
        inc ebx
        loop 1b
        in al, {PORT_MORE}
        test al, al
        jnz more
        END ebx
    """)
    _busy_until_kicked_enough(guest)
    with guest.kicked_often():
        total = guest.run()
    writes = [(addr - DEVICE, value) for addr, _, value in guest.bus.seen("mmio", "write")]
    assert writes == [(at, count) for count in range(1, total + 1) for at in (0, 4)]


def test_each_interrupt_and_exception_happens_once(boot: Boot) -> None:
    guest = boot(f"""
    start:
        ENABLE_APIC
        PIN 5, 0x45
        ON 0x45, count
        ON 6, skip
        xor ebx, ebx
    more:
        mov ecx, 20
    1:  ACT 5
        sti
        hlt
        cli
        ud2
        inc ebx
        loop 1b
        mov dword ptr [log_count], 0
        in al, {PORT_MORE}
        test al, al
        jnz more
        END ebx
    count:
        inc dword ptr [interrupts]
        EOI
        ret
    skip:
        inc dword ptr [exceptions]
        add qword ptr [rdi + 16], 2
        ret
    interrupts: .long 0
    exceptions: .long 0
    """)
    guest.bus.reactions[guests.PORT_ACT] = guest.pulse
    _busy_until_kicked_enough(guest)
    with guest.kicked_often():
        total = guest.run()
    assert guest.number("interrupts", 4) == guest.number("exceptions", 4) == total


def test_string_io_survives_random_kicks(boot: Boot) -> None:
    """64 KiB out and back in by REP OUTSB and REP INSB; the bus itself kicks at 200 random elements."""
    guest = boot("""
    start:
        mov esi, HEAP
        mov ecx, 0x4000
        mov dx, 0x77
        rep outsb
        mov edi, HEAP + 0x10000
        mov ecx, 0x4000
        rep insb
        mov [end], rsi
        mov [end + 8], rdi
        END
    end: .quad 0, 0
    """)
    content = random.Random(1).randbytes(0x4000)
    guest.memory.write(guests.HEAP, content)
    chosen = set(random.Random(2).sample(range(2 * 0x4000), 200))
    seen = itertools.count()

    def perhaps_kick() -> None:
        if next(seen) in chosen:
            guest.kick()

    supply = iter(content)

    def give(size: int) -> int:
        perhaps_kick()
        return next(supply)

    guest.bus.reactions[0x77] = lambda value: perhaps_kick()
    guest.bus.answers[0x77] = give
    guest.run()
    assert bytes(value for _, _, value in guest.bus.seen("port", "write")) == content
    assert guest.memory.read(guests.HEAP + 0x10000, 0x4000) == content
    assert guest.numbers("end", 2) == [guests.HEAP + 0x4000, guests.HEAP + 0x14000]
    assert guest.kicked >= 100


def test_string_moves_survive_kicks(boot: Boot) -> None:
    guest = boot(f"""
    start:
        xor ebx, ebx
    more:
        mov esi, HEAP
        mov edi, HEAP + 0x10001
        mov ecx, 0x3000
        rep movsb
        cmp edi, HEAP + 0x13001
        jne wrong
        mov esi, HEAP
        mov edi, HEAP + 0x10001
        mov ecx, 0x3000
        repe cmpsb
        jne wrong
        mov edi, HEAP + 0x10001
        mov ecx, 0x3000
        xor eax, eax
        rep stosb
        in al, {PORT_MORE}
        test al, al
        jnz more
        END 1
    wrong:
        END 2
    """)
    guest.memory.write(guests.HEAP, random.Random(3).randbytes(0x3000))
    _busy_until_kicked_enough(guest)
    with guest.kicked_often():
        assert guest.run() == 1


@pytest.mark.parametrize("reload", [False, True])
def test_looking_at_the_state_between_runs_changes_nothing(boot: Boot, reload: bool) -> None:
    """Neither does loading what one has just seen."""
    guest = boot(f"""
    start:
        xor ebx, ebx
    more:
        mov ecx, 100
    1:  add qword ptr [count], 1
        inc rbx
        loop 1b
        in al, {PORT_MORE}
        test al, al
        jnz more
        END ebx
    count: .quad 0
    """)
    vcpu = guest.vm.vcpus[0]

    def look(runner: Runner) -> None:
        state = vcpu.save()
        if reload:
            vcpu.load(state)

    guest.between_runs = look
    _busy_until_kicked_enough(guest)
    with guest.kicked_often():
        total = guest.run()
    assert guest.number("count") == total
