"""Dirty tracking: the table knows which pages hold code, and only stores to those ask."""

import ctypes
from collections.abc import Callable

import pytest

from hibana.engine.soft import machine_code
from hibana.engine.soft.machine_code import MachineCode
from hibana.engine.soft.offsets import TLBE
from hibana.units import GIB, PAGE
from tests.contract.engine import guests
from tests.contract.engine.guests import HEAP, PRESENT, WRITABLE
from tests.contract.engine.harness import Boot, Guest
from tests.unit.engine.soft.fast import promises

Unit = Callable[[str], MachineCode]


def _holds_code(offset: int) -> bool:
    plain = machine_code.load()[1]
    return ctypes.c_uint8.from_address(plain.get("holds_code") + offset // PAGE).value != 0


def _asks(guest: Guest, page: int) -> list[bool]:
    """Tell for each TLB entry that may write to a page whether a store asks."""
    entries = promises.tlb(guest.vm._processor)  # type: ignore[attr-defined]
    return [bool(entry.write & TLBE.NOTDIRTY) for entry in entries if entry.write & ~promises.FLAGS == page]


def test_a_page_that_has_run_holds_code_and_a_page_of_data_does_not(boot: Boot) -> None:
    guest = boot("start: mov dword ptr [HEAP], 1; mov eax, [HEAP + 0x1000]; END")
    guest.run()
    assert _holds_code(guest.label("start"))
    assert not _holds_code(HEAP)
    assert not _holds_code(HEAP + PAGE)


def test_both_pages_of_a_block_that_spans_two_hold_code(boot: Boot) -> None:
    guest = boot(f"""
    start:
        mov edi, HEAP + {PAGE - 2:#x}
        mov dword ptr [rdi], 0x0000b8           # mov eax, 0x1230000; ret
        mov dword ptr [rdi + 1], 0x12300
        mov word ptr [rdi + 4], 0xc301
        call rdi
        END
    """)
    guest.run()
    assert _holds_code(HEAP)
    assert _holds_code(HEAP + PAGE)


@pytest.mark.parametrize("size", [1, PAGE])
def test_a_page_whose_only_code_a_device_overwrites_holds_none(boot: Boot, size: int) -> None:
    guest = boot("start: mov edi, HEAP; mov byte ptr [rdi], 0xc3; call rdi; ACT; END")
    seen: list[bool] = []

    def overwrite(value: int) -> None:
        seen.append(_holds_code(HEAP))
        guest.memory.write(HEAP, bytes(size))
        seen.append(_holds_code(HEAP))

    guest.bus.reactions[guests.PORT_ACT] = overwrite
    guest.run()
    assert seen == [True, False]


def test_code_above_the_hole_is_counted_by_its_place_in_the_reservation(boot: Boot) -> None:
    guest = boot("start: mov rdi, 4 << 30; mov byte ptr [rdi], 0xc3; call rdi; END", memory_mib=5 * 1024)
    guest.run()
    assert _holds_code(3 * GIB)


def test_an_executable_page_without_code_stops_asking(boot: Boot, unit: Unit) -> None:
    """The first store brings the page into the TLB; the second one asks, and is the last to do so."""
    unit("dirty")
    guest = boot("start: mov [HEAP], eax; ACT; mov [HEAP], eax; ACT; END")
    seen: list[list[bool]] = []
    guest.bus.reactions[guests.PORT_ACT] = lambda value: seen.append(_asks(guest, HEAP))
    guest.run()
    assert seen == [[True], [False]]


@pytest.mark.parametrize(
    "store",
    [
        "mov [rdi], bl",
        "mov [rdi + 0xffe], bx",
        "mov [rdi + 0xffc], ebx",
        "mov [rdi + 0xff8], rbx",
        "mov [rdi + 3], rbx",
    ],
)
def test_a_store_within_the_page_that_asks_is_the_last_and_is_done(boot: Boot, unit: Unit, store: str) -> None:
    unit("dirty")
    guest = boot(f"start: mov edi, HEAP; mov [rdi], rcx; mov rbx, 0x1122334455667788; {store}; ACT; END")
    seen: list[list[bool]] = []
    guest.bus.reactions[guests.PORT_ACT] = lambda value: seen.append(_asks(guest, HEAP))
    guest.run()
    assert seen == [[False]]
    assert guest.memory.read(HEAP, PAGE).strip(b"\0") in bytes.fromhex("8877665544332211")


def test_a_store_across_two_pages_reaches_both(boot: Boot) -> None:
    guest = boot(f"start: mov rax, 0x1122334455667788; mov [HEAP + {PAGE - 3:#x}], rax; END")
    guest.run()
    assert guest.memory.read(HEAP + PAGE - 3, 8) == bytes.fromhex("8877665544332211")


def test_every_mapping_asks_again_once_the_page_holds_code(boot: Boot) -> None:
    guest = boot("""
    start:
        mov edi, HEAP
        mov esi, PAGES
        mov r8d, USER + HEAP
        mov byte ptr [rdi], 0xc3
        mov byte ptr [rsi], 0xc3
        mov byte ptr [r8], 0xc3
        call rdi
        ACT
        END
    """)
    guests.write_page(guest.memory, 0, HEAP | PRESENT | WRITABLE | guests.NO_EXECUTE)
    seen: list[bool] = []
    pages = (HEAP, guests.PAGES, guests.USER + HEAP)
    guest.bus.reactions[guests.PORT_ACT] = lambda value: seen.extend(x for page in pages for x in _asks(guest, page))
    guest.run()
    assert seen == [True] * 3


TWO_FUNCTIONS = """
    start:
        mov edi, HEAP
        mov byte ptr [rdi], 0xc3
        mov byte ptr [rdi + 0x800], 0xc3
        call rdi
        add edi, 0x800
        call rdi
        mov byte ptr [PAGES], 0xc3              # the other function stays
        ACT
        END
"""


def _disorder(guest: Guest) -> list[str]:
    guests.write_page(guest.memory, 0, HEAP | PRESENT | WRITABLE | guests.NO_EXECUTE)
    found: list[str] = []
    processor = guest.vm._processor  # type: ignore[attr-defined]
    guest.bus.reactions[guests.PORT_ACT] = lambda value: found.extend(promises.broken(processor, guest.memory))
    guest.run()
    return found


def test_a_mapping_that_cannot_be_executed_asks_while_the_page_holds_code(boot: Boot) -> None:
    assert _disorder(boot(TWO_FUNCTIONS)) == []


def test_the_library_alone_would_let_the_next_store_through(boot: Boot, own: Callable[[str], None]) -> None:
    """The reason for one of the thunks; and what the promises say when it is missing."""
    guest = boot(TWO_FUNCTIONS)
    own("tlb_set_dirty")
    assert _disorder(guest) == [f"{guests.PAGES:#x} is writable without asking, and its page holds code"]
