"""A serial port: bytes may reach the chip late and together, but nobody can tell from the chip."""

import threading
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hibana.devices.uart16550 import DATA, IER, IIR, LCR, LSR, LSR_DATA_READY, LSR_IDLE, MCR, MSR, SCR, SIZE, Uart16550
from hibana.engine.interface import Engine, Runner, SerialPort
from hibana.testing.fakes import FakeIrq, ListSink
from tests.contract.engine import guests
from tests.contract.engine.guests import HEAP
from tests.contract.engine.harness import PATIENCE_S, Boot, Guest

PORT: Final = 0x3F8

# Carries out records of 4 bytes at HEAP: direction (0 OUT, 1 IN, 2 the end), offset, value; an IN replaces the value.
PLAYER: Final = f"""
start:
    mov esi, HEAP
1:  movzx edx, byte ptr [rsi + 1]
    add edx, {PORT}
    mov al, [rsi + 2]
    cmp byte ptr [rsi], 1
    ja 3f
    je 2f
    out dx, al
    add esi, 4
    jmp 1b
2:  in al, dx
    mov [rsi + 2], al
    add esi, 4
    jmp 1b
3:  END
"""
# Prints RCX bytes from RSI, with a look at the line status before each.
PRINT: Final = f"""
print:
    mov edx, {PORT + LSR}
1:  in al, dx
    test al, 0x20
    jz 1b
    mov edx, {PORT}
    lodsb
    out dx, al
    mov edx, {PORT + LSR}
    loop 1b
    ret
"""


class Chip:
    """A serial port that keeps what was printed, piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.steady: int | None = LSR_IDLE
        self.arrived = threading.Event()
        self.expected = b""

    @property
    def content(self) -> bytes:
        return b"".join(self.pieces)

    def print(self, content: bytes) -> None:
        self.pieces.append(content)
        if self.content == self.expected:
            self.arrived.set()


def _connect(guest: Guest, chip: SerialPort) -> None:
    guest.bus.reactions[PORT + DATA] = lambda value: chip.print(bytes((value,)))
    guest.bus.answers[PORT + LSR] = lambda size: chip.steady or 0
    guest.vm.coalesce(PORT + DATA, PORT + LSR, chip)


def _connect_uart(guest: Guest, uart: Uart16550) -> None:
    for offset in range(SIZE):
        guest.bus.reactions[PORT + offset] = lambda value, at=offset: uart.write(at, 1, value)  # type: ignore[misc]
        guest.bus.answers[PORT + offset] = lambda size, at=offset: uart.read(at, size)  # type: ignore[misc]
    guest.vm.coalesce(PORT + DATA, PORT + LSR, uart)


def test_a_long_text_arrives_whole(boot: Boot) -> None:
    guest = boot(f"start: mov esi, HEAP; mov ecx, 10000; call print; END; {PRINT}")
    text = bytes(at * 7 & 0xFF for at in range(10000))
    guest.memory.write(HEAP, text)
    chip = Chip()
    _connect(guest, chip)
    guest.run()
    assert chip.content == text


@pytest.mark.parametrize("access", [f"out {guests.PORT_ACT:#x}, al", f"mov dx, {PORT + IIR}; in al, dx"])
def test_what_was_printed_comes_before_any_access_to_another_port(boot: Boot, access: str) -> None:
    guest = boot(f"start: mov esi, HEAP; mov ecx, 5; call print; {access}; END; {PRINT}")
    guest.memory.write(HEAP, b"first")
    chip = Chip()
    seen: list[bytes] = []
    _connect(guest, chip)
    guest.bus.reactions[guests.PORT_ACT] = lambda value: seen.append(chip.content)
    guest.bus.answers[PORT + IIR] = lambda size: seen.append(chip.content) or 0  # type: ignore[func-returns-value]
    guest.run()
    assert seen == [b"first"]


@pytest.mark.parametrize("after", ["jmp .", "cli; hlt"], ids=["it spins", "it halts"])
@pytest.mark.parametrize("text", [b"$", b"login: "])
def test_what_was_printed_arrives_although_the_guest_never_says_more(boot: Boot, text: bytes, after: str) -> None:
    guest = boot(f"start: mov esi, HEAP; mov ecx, {len(text)}; call print; {after}; {PRINT}")
    guest.memory.write(HEAP, text)
    chip = Chip()
    chip.expected = text
    _connect(guest, chip)
    runner = guest.vm.runners[0]
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    arrived = chip.arrived.wait(PATIENCE_S)
    while thread.is_alive():
        runner.kick()
        thread.join(0.02)
    assert arrived, chip.content


def test_every_byte_is_seen_at_once_when_the_chip_wants_it(boot: Boot) -> None:
    """As with a driver that is told by an interrupt when the transmitter is empty."""
    guest = boot(f"start: mov dx, {PORT}; mov ecx, 100; 1: mov al, cl; out dx, al; mov [HEAP], ecx; loop 1b; END")
    chip = Chip()
    chip.steady = None
    told: list[tuple[int, int]] = []
    _connect(guest, chip)
    guest.bus.reactions[PORT] = lambda value: told.append((value, guest.number(HEAP, 4)))
    guest.run()
    assert told == [(count, (count + 1) % 101) for count in range(100, 0, -1)]


def test_the_guest_sees_a_status_that_changed_while_it_stood_still(boot: Boot) -> None:
    guest = boot(f"""
    start:
        mov dx, {PORT}
        mov al, 'x'
        out dx, al
        mov dx, {PORT + LSR}
    1:  in al, dx
        test al, {LSR_DATA_READY}
        jz 1b
        END
    """)
    chip = Chip()
    _connect(guest, chip)

    def receive(runner: Runner) -> None:
        chip.steady = LSR_IDLE | LSR_DATA_READY

    guest.between_runs = receive
    timer = threading.Timer(0.02, guest.kick)
    timer.start()
    assert guest.run() == 0
    timer.join()


def test_two_cpus_print_at_the_same_time(boot: Boot) -> None:
    guest = boot(
        f"""
        start:
            START_APS
            mov esi, HEAP
            mov ecx, 3000
            call print
        2:  pause
            cmp dword ptr [done], 0
            je 2b
            END
        ap_start:
            mov esi, HEAP + 0x10000
            mov ecx, 3000
            call print
            mov dword ptr [done], 1
            cli
            hlt
        done: .long 0
        {PRINT}
        """,
        vcpus=2,
    )
    guest.memory.write(HEAP, bytes(range(128)) * 24)
    guest.memory.write(HEAP + 0x10000, bytes(range(128, 256)) * 24)
    chip = Chip()
    _connect(guest, chip)
    guest.run()
    first = bytes(byte for byte in chip.content if byte < 128)
    second = bytes(byte for byte in chip.content if byte >= 128)
    assert first == (bytes(range(128)) * 24)[:3000]
    assert second == (bytes(range(128, 256)) * 24)[:3000]


def test_a_program_without_the_privilege_prints_nothing(boot: Boot) -> None:
    """Not even when the kernel has just printed."""
    guest = boot(f"""
    start:
        mov dx, {PORT}
        mov al, 'k'
        out dx, al
        CATCH 1f
        ENTER_USER user
    1:  END
    user:
        mov al, 'u'
        out dx, al
        hlt
    """)
    chip = Chip()
    _connect(guest, chip)
    guest.run()
    assert chip.content == b"k"
    assert [trap.vector for trap in guest.traps()] == [13]


Access = tuple[int, int, int]

PRINTS: Final = st.tuples(st.just(0), st.just(DATA), st.integers(0, 255))
LOOKS: Final = st.tuples(st.just(1), st.just(LSR), st.just(0))
OTHERS: Final = st.one_of(
    st.tuples(st.just(0), st.sampled_from((IIR, LSR, MSR, SCR)), st.integers(0, 255)),
    st.tuples(st.just(1), st.integers(0, SIZE - 1), st.just(0)),
)


@st.composite
def scenes(draw: st.DrawFn) -> list[Access]:
    """Set the chip up in some way, print, and look at what that did."""
    set_up = [(0, IER, draw(st.sampled_from((0, 1, 2))))]
    set_up += [(0, MCR, draw(st.sampled_from((8, 0x18)))), (0, LCR, draw(st.sampled_from((3, 0x83))))]
    printed = draw(st.lists(st.one_of(PRINTS, LOOKS), min_size=3, max_size=8))
    return [*set_up, *printed, *draw(st.lists(OTHERS, max_size=3)), (0, LCR, 3)]


@given(st.lists(scenes(), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_real_chip_ends_as_if_every_access_had_come_to_it(engine: Engine, played: list[list[Access]]) -> None:
    accesses = [access for scene in played for access in scene]
    alone, alone_sink, alone_irq = _make_uart()
    answers = bytearray()
    for direction, offset, value in accesses:
        if direction == 0:
            alone.write(offset, 1, value)
        answers += bytes((direction, offset, alone.read(offset, 1) if direction else value, 0))
    uart, sink, irq = _make_uart()
    guest = Guest(engine, PLAYER)
    try:
        guest.memory.write(HEAP, b"".join(bytes((*access, 0)) for access in accesses) + b"\x02\0\0\0")
        _connect_uart(guest, uart)
        guest.run()
        assert guest.memory.read(HEAP, len(answers)) == answers
    finally:
        guest.close()
    assert (uart.save(), sink.content, irq.count) == (alone.save(), alone_sink.content, alone_irq.count)


def _make_uart() -> tuple[Uart16550, ListSink, FakeIrq]:
    sink, irq = ListSink(), FakeIrq()
    return Uart16550(sink, irq), sink, irq
