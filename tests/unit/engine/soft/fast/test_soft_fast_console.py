"""The console: bytes wait for each other, in a buffer that ends somewhere, and not longer than they may."""

from collections.abc import Callable
from typing import Final

from hibana.devices.uart16550 import DATA, LSR, LSR_IDLE
from hibana.engine.interface import Reason
from hibana.engine.soft.machine_code import MachineCode
from hibana.units import PAGE
from tests.contract.engine.harness import Boot, Guest

Unit = Callable[[str], MachineCode]

PORT: Final = 0x3F8
# Prints EBX bytes, always the lowest of the counter.
COUNTDOWN: Final = f"""
start:
    mov edx, {PORT + DATA}
1:  mov al, bl
    out dx, al
    dec ebx
    jnz 1b
    END
"""


class Chip:
    """A serial port that keeps what was printed, piece by piece; `faulty`, it breaks at the next piece."""

    def __init__(self, guest: Guest) -> None:
        self.pieces: list[bytes] = []
        self.steady: int | None = LSR_IDLE
        self.faulty = False
        guest.bus.reactions[PORT + DATA] = lambda value: self.pieces.append(bytes((value,)))
        guest.vm.coalesce(PORT + DATA, PORT + LSR, self)

    def print(self, content: bytes) -> None:
        if self.faulty:
            raise ZeroDivisionError("a bug in the chip")
        self.pieces.append(content)


def _counted_down(count: int) -> bytes:
    return bytes(number & 0xFF for number in range(count, 0, -1))


def test_bytes_come_together(boot: Boot, unit: Unit) -> None:
    unit("console")
    guest = boot(f"{COUNTDOWN.replace('start:', 'start: mov ebx, 1000')}")
    chip = Chip(guest)
    guest.run()
    assert b"".join(chip.pieces) == _counted_down(1000)
    assert len(chip.pieces) < 500  # two, unless the host is slow


def test_a_full_buffer_goes_out_before_the_byte_that_found_no_place(boot: Boot, unit: Unit) -> None:
    code = unit("console")
    count = 3 * PAGE
    guest = boot(f"{COUNTDOWN.replace('start:', f'start: mov ebx, {count}')}")
    chip = Chip(guest)
    guest.run()
    assert b"".join(chip.pieces) == _counted_down(count)
    assert max(map(len, chip.pieces)) <= PAGE
    assert (code.get("waiting"), code.get("room")) == (0, 0)


def test_the_bus_is_not_asked_for_a_status_that_does_not_change(boot: Boot, unit: Unit) -> None:
    unit("console")
    guest = boot(f"""
    start:
        mov ecx, 1000
    1:  mov dx, {PORT + DATA}
        out dx, al
        mov dx, {PORT + LSR}
        in al, dx
        cmp al, {LSR_IDLE}
        jne 2f
        loop 1b
        END 1
    2:  END 2
    """)
    Chip(guest)
    guest.bus.answers[PORT + LSR] = lambda size: LSR_IDLE
    assert guest.run() == 1
    assert len(guest.bus.seen("port", "read")) < 500


def test_the_ports_are_like_any_other_in_a_machine_without_a_console(boot: Boot) -> None:
    guest = boot(f"{COUNTDOWN.replace('start:', 'start: mov ebx, 100')}")
    guest.run()
    assert bytes(value for _, _, value in guest.bus.seen("port", "write")) == _counted_down(100)


def test_a_chip_that_breaks_ends_the_run(boot: Boot, unit: Unit) -> None:
    unit("console")
    guest = boot(f"{COUNTDOWN.replace('start:', 'start: mov ebx, 100')}")
    chip = Chip(guest)
    chip.faulty = True
    stop = guest.run_to_stop()
    assert stop
    assert stop.reason is Reason.FAILED
    assert "a bug in the chip" in stop.detail
