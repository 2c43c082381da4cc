"""The block cache: it remembers, it is emptied when the translation buffer is, and a hit is what memory says."""

import ctypes
from collections.abc import Callable

from hibana.engine.soft.fast import switch
from hibana.engine.soft.machine_code import MachineCode
from hibana.engine.soft.offsets import TB
from hibana.engine.soft.processor import Processor
from tests.contract.engine import guests
from tests.contract.engine.harness import Boot
from tests.unit.engine.soft.fast import promises

Unit = Callable[[str], MachineCode]

# Calls a function, empties the TLB and the library's cache with it, calls again.
CALLS = """
    start:
        mov ebx, 3
    1:  call function
        mov rax, cr3
        mov cr3, rax
        dec ebx
        jnz 1b
        ACT
        call function
        END eax
    function:
        mov eax, 77
        ret
"""


def _remembered(code: MachineCode) -> set[int]:
    """Give the addresses of the blocks in the cache."""
    places = (ctypes.c_uint64 * (2 * code.get("last_pair") + 2)).from_address(code.get("blocks"))
    return {ctypes.c_uint64.from_address(block + TB.pc).value for block in places if block}


def test_blocks_that_run_again_after_a_flush_of_the_tlb_are_remembered(boot: Boot, unit: Unit) -> None:
    code = unit("block-cache")
    guest = boot(CALLS)
    assert guest.run() == 77
    assert guest.label("function") in _remembered(code)


def test_a_new_translation_buffer_empties_the_cache_and_the_guest_goes_on(boot: Boot, unit: Unit) -> None:
    """The library does that when the buffer is full; here it is done between two blocks."""
    code = unit("block-cache")
    guest = boot(CALLS.replace("ACT", "STOP"))
    processor: Processor = guest.vm._processor  # type: ignore[attr-defined]
    flush = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(switch.load().address("tb_flush"))
    guest.run()
    flush(processor.cpu)
    assert _remembered(code) == set()
    assert promises.blocks(processor) == set()
    assert guest.run() == 77
    assert promises.blocks(processor)
    assert promises.broken(processor, guest.memory) == []


def test_an_overwritten_block_is_not_found_again(boot: Boot) -> None:
    guest = boot(CALLS)
    addr = guest.label("function") + 1
    guest.bus.reactions[guests.PORT_ACT] = lambda value: guest.memory.write(addr, (78).to_bytes(4, "little"))
    assert guest.run() == 78


def test_addresses_that_collide_in_the_cache_lead_to_their_own_code(boot: Boot) -> None:
    """64 functions, 32 KiB apart in a place where the cache has as many, called by turns with the TLB emptied."""
    guest = boot("""
    start:
        xor ebx, ebx
        mov edi, HEAP
    1:  mov byte ptr [rdi], 0xb8
        mov [rdi + 1], ebx
        mov byte ptr [rdi + 5], 0xc3
        add edi, 0x8010
        inc ebx
        cmp ebx, 64
        jne 1b
        mov ebp, 8
    2:  xor ebx, ebx
        mov edi, HEAP
    3:  call rdi
        cmp eax, ebx
        jne 4f
        add edi, 0x8010
        inc ebx
        cmp ebx, 64
        jne 3b
        mov rax, cr3
        mov cr3, rax
        dec ebp
        jnz 2b
        END 1
    4:  END 2
    """)
    assert guest.run() == 1
