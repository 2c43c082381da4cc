"""Global pages: what stays in the TLB over a write of CR3, and what may not."""

import ctypes
import struct
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hibana.engine.soft.machine_code import MachineCode
from hibana.engine.soft.offsets import ENV
from hibana.engine.soft.processor import Processor
from hibana.errors import GuestFault
from hibana.memory.guest import GuestMemory
from hibana.units import GIB, MIB, PAGE
from tests.contract.engine import guests
from tests.contract.engine.guests import HEAP, PRESENT, WRITABLE
from tests.contract.engine.harness import Boot, Guest
from tests.unit.engine.soft.fast import promises

Unit = Callable[[str], MachineCode]

GLOBAL: Final = 0x100
HIGH: Final = 0xFFFFFFFF80077000  # nothing else that these guests use shares its place in the TLB
HIGH_TABLES: Final = 0x500000
# The upper half: HIGH is the heap, global; HIGH + 4096 the page behind it, not global. CR4.PGE is on.
PRELUDE: Final = f"""
    .macro RELOAD
        mov rax, cr3
        mov cr3, rax
    .endm
    start:
        mov rax, cr4
        or eax, 0x80
        mov cr4, rax
        mov rdi, {HIGH:#x}
"""


def _boot(boot: Boot, source: str) -> Guest:
    guest = boot(PRELUDE + source)
    tables = [HIGH_TABLES + PAGE * index for index in range(3)]
    for table, index, entry in (
        (guests.PML4, 511, tables[0] | 7),
        (tables[0], 510, tables[1] | 7),
        (tables[1], 0, tables[2] | 7),
        (tables[2], 0x77, HEAP | PRESENT | WRITABLE | GLOBAL),
        (tables[2], 0x78, HEAP + PAGE | PRESENT | WRITABLE),
    ):
        guest.memory.write(table + 8 * index, struct.pack("<Q", entry))
    return guest


def _watch(guest: Guest) -> list[set[int]]:
    """Collect the pages in the TLB whenever the guest asks, and check the promises."""
    processor: Processor = guest.vm._processor  # type: ignore[attr-defined]
    seen: list[set[int]] = []

    def look(value: int) -> None:
        assert promises.broken(processor, guest.memory, tables_unchanged=True) == []
        seen.append({entry.page for entry in promises.tlb(processor)})

    guest.bus.reactions[guests.PORT_ACT] = look
    return seen


def test_a_global_page_stays_and_pages_of_the_lower_half_go(boot: Boot, unit: Unit) -> None:
    unit("global-pages")
    guest = _boot(boot, "mov eax, [rdi]; mov eax, [HEAP]; ACT; RELOAD; ACT; END")
    seen = _watch(guest)
    guest.run()
    assert {HIGH, HEAP} <= seen[0]
    assert HIGH in seen[1]
    assert HEAP not in seen[1]


@pytest.mark.parametrize(
    ("what", "spoil"),
    [
        ("a kernel page above that is not global", "mov eax, [rdi + 0x1000]"),
        ("paging without global pages", "mov rax, cr4; and al, 0x7f; mov cr4, rax"),
        (
            "more pages than are listed",
            "mov ecx, 80; mov esi, HEAP; 1: mov eax, [rsi]; add esi, 0x1000; loop 1b",
        ),
    ],
)
def test_everything_goes_after(boot: Boot, unit: Unit, what: str, spoil: str) -> None:
    unit("global-pages")
    guest = _boot(boot, f"mov eax, [rdi]; {spoil}; RELOAD; ACT; END")
    seen = _watch(guest)
    guest.run()
    assert HIGH not in seen[0]


def test_after_that_global_pages_stay_again(boot: Boot, unit: Unit) -> None:
    unit("global-pages")
    guest = _boot(boot, "mov eax, [rdi + 0x1000]; RELOAD; mov eax, [rdi]; RELOAD; ACT; END")
    seen = _watch(guest)
    guest.run()
    assert HIGH in seen[0]


def test_pages_of_user_mode_go(boot: Boot, unit: Unit) -> None:
    unit("global-pages")
    guest = _boot(
        boot,
        """
        mov eax, [rdi]
        CATCH 1f
        ENTER_USER user
    1:  ACT
        RELOAD
        ACT
        END
    user:
        mov eax, [USER + HEAP]
        hlt
        """,
    )
    seen = _watch(guest)
    guest.run()
    assert guests.USER + HEAP in seen[0]
    assert guests.USER + HEAP not in seen[1]
    assert HIGH in seen[1]


def test_a_remapped_page_is_seen_whatever_kind_it_is(boot: Boot) -> None:
    """200 times: two frames by turns, below, above, and above with INVLPG because it is global."""
    guest = _boot(
        boot,
        f"""
        mov dword ptr [HEAP], 1
        mov dword ptr [HEAP + 0x1000], 2
        mov ebx, 200
    1:  mov ecx, ebx
        and ecx, 1
        shl ecx, 12
        add ecx, HEAP + 3
        mov [{guests.PT:#x}], rcx
        mov [{HIGH_TABLES + 2 * PAGE + 8 * 0x78:#x}], rcx
        or ecx, {GLOBAL}
        mov [{HIGH_TABLES + 2 * PAGE + 8 * 0x77:#x}], rcx
        RELOAD
        invlpg [rdi]
        mov edx, ebx
        and edx, 1
        inc edx
        cmp [PAGES], edx
        jne 2f
        cmp [rdi], edx
        jne 2f
        test ebx, 4                         # not always, so that global pages stay now and then
        jz 3f
        cmp [rdi + 0x1000], edx
        jne 2f
    3:  dec ebx
        jnz 1b
        END 1
    2:  END 2
        """,
    )
    assert guest.run() == 1


def test_code_below_is_found_anew_after_a_write_of_cr3(boot: Boot) -> None:
    """Kernel code in the lower half, in two frames by turns at one address."""
    guest = _boot(
        boot,
        f"""
        mov dword ptr [HEAP], 0x0001b8      # mov eax, 1; ret
        mov word ptr [HEAP + 4], 0xc300
        mov dword ptr [HEAP + 0x1000], 0x0002b8
        mov word ptr [HEAP + 0x1004], 0xc300
        mov ebx, 200
    1:  mov ecx, ebx
        and ecx, 1
        shl ecx, 12
        add ecx, HEAP + 3
        mov [{guests.PT:#x}], rcx
        RELOAD
        mov esi, PAGES
        call rsi
        mov edx, ebx
        and edx, 1
        inc edx
        cmp eax, edx
        jne 2f
        dec ebx
        jnz 1b
        END 1
    2:  END 2
        """,
    )
    assert guest.run() == 1


# --- the walk, by itself ----------------------------------------------------------------------------------------------

LOW_SIZE: Final = 16 * MIB
READ: Final = 1
KERNEL: Final = 2


@pytest.fixture(scope="module")
def machine() -> Iterator[tuple[Processor, GuestMemory]]:
    """Give a machine with RAM on both sides of the hole; only a few pages of it are ever touched."""
    memory = GuestMemory(3 * GIB + LOW_SIZE)
    processor = Processor()
    processor.map_ram(memory)
    yield processor, memory
    processor.close()
    memory.close()


TABLES: Final = (0x1000, 0x2000, 3 * GIB - PAGE, 4 * GIB, 4 * GIB + LOW_SIZE - PAGE)
NOWHERE: Final = (3 * GIB, 4 * GIB - PAGE, 4 * GIB + LOW_SIZE, 0xFEE00000, 1 << 40, 0xFFFFFFFFFF000)
ADDRESSES: Final = st.sampled_from((*TABLES, *TABLES, *NOWHERE))
ENTRIES: Final = st.builds(
    lambda addr, flags, high: addr | flags | high << 52,
    ADDRESSES,
    st.sampled_from((1, 1, 1, 0, 0x80, 0x81, 0x101, 0x101, 0x181, 0xFFF)),
    st.sampled_from((0, 0, 0x800, 0xFFF)),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    root=st.builds(lambda addr, low: addr | low, ADDRESSES, st.sampled_from((0, 0xFFF))),
    tables=st.lists(st.lists(ENTRIES, min_size=2, max_size=2), min_size=len(TABLES), max_size=len(TABLES)),
    path=st.lists(st.integers(0, 1), min_size=4, max_size=4),
)
def test_the_walk_finds_global_pages_and_leads_nowhere_else(
    root: int,
    tables: list[list[int]],
    path: list[int],
    machine: tuple[Processor, GuestMemory],
    unit: Unit,
) -> None:
    """Tables with hostile contents, at both edges of both pieces of RAM and beyond; two entries of each are used."""
    code = unit("global-pages")
    processor, memory = machine
    indices = [256 + path[0], *path[1:]]
    vaddr = 0xFFFF << 48 | indices[0] << 39 | indices[1] << 30 | indices[2] << 21 | indices[3] << 12
    for table, entries in zip(TABLES, tables, strict=True):
        for start in (0, 256):
            memory.write(table + 8 * start, struct.pack("<2Q", *entries))
    cr3 = ctypes.c_uint64.from_address(processor.env + ENV.cr + 8 * 3)
    cr3.value = root
    code.byte("everything").value = 0
    page = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * 7)(code.entry("tlb_set_page_with_attrs"))
    page(processor.cpu, vaddr, 0x5000, 0, READ, KERNEL, PAGE)
    everything = code.byte("everything").value
    processor._tlb_flush(processor.cpu)
    assert (everything == 0) == _reference(memory, root, indices)


def _reference(memory: GuestMemory, table: int, indices: list[int]) -> bool:
    """Walk as the architecture says; False where the walk ends without a global page."""
    for level, index in enumerate(indices):
        try:
            addr = (table & 0x000FFFFFFFFFF000) + 8 * index
            (table,) = struct.unpack("<Q", memory.read(addr, 8))
        except GuestFault:
            return False
        if not table & PRESENT:
            return False
        if level == 3 or table & 0x80:
            break
    return bool(table & GLOBAL)
