"""The exit check: in the block instead of a call, and whole even when a translation is given up."""

import ctypes
from collections.abc import Callable

from hibana.engine.soft import machine_code
from hibana.engine.soft.machine_code import MachineCode
from hibana.engine.soft.offsets import TB
from tests.contract.engine import guests
from tests.contract.engine.guests import HEAP, PRESENT, WRITABLE
from tests.contract.engine.harness import Boot, Guest
from tests.unit.engine.soft.fast import promises

Unit = Callable[[str], MachineCode]


def _calls_the_helper(guest: Guest) -> list[bool]:
    """Tell for each block in the caches whether its code contains the helper's address, absolute or relative."""
    helper = machine_code.load()[0].address("helper_check_exit_request")
    found = []
    for block in promises.blocks(guest.vm._processor):  # type: ignore[attr-defined]
        start, size = (ctypes.c_uint64.from_address(block + at).value for at in (TB.code, TB.code + 8))
        code = ctypes.string_at(start, size)
        relative = any(
            start + at + 4 + int.from_bytes(code[at : at + 4], "little", signed=True) == helper
            for at in range(size - 3)
        )
        found.append(relative or helper.to_bytes(8, "little") in code)
    return found


LOOP = "start: mov ecx, 1000; 1: dec ecx; jnz 1b; call 2f; END; 2: ret"


def test_no_block_calls_the_helper(boot: Boot, unit: Unit) -> None:
    unit("inline-exit")
    guest = boot(LOOP)
    guest.run()
    calls = _calls_the_helper(guest)
    assert len(calls) > 3
    assert not any(calls)


def test_a_label_does_not_outlive_its_block(boot: Boot, unit: Unit) -> None:
    code = unit("inline-exit")
    guest = boot(LOOP)
    guest.run()
    assert code.get("label") == 0


def test_a_translation_that_ends_in_a_page_fault_leaves_nothing_behind(boot: Boot) -> None:
    """The block begins in one page and would go on in the next, which is mapped only after the fault."""
    guest = boot(f"""
    start:
        mov ebx, 100
    1:  mov qword ptr [{guests.PT + 8:#x}], 0
        mov edi, PAGES
        invlpg [rdi + 0x1000]
        add edi, 0xffd
        mov dword ptr [rdi - 1], 0x9090b890
        CATCH 2f
        call rdi
        jmp wrong
    2:  mov qword ptr [{guests.PT + 8:#x}], HEAP + 0x1003
        CATCH wrong
        mov byte ptr [PAGES + 0x1000], bl
        mov dword ptr [PAGES + 0x1001], 0xc3000090
        mov rsp, 0x41000
        call rdi
        shr eax, 16
        cmp al, bl
        jne wrong
        mov rsp, 0x41000
        dec ebx
        jnz 1b
        END 1
    wrong:
        END 2
    """)
    guests.write_page(guest.memory, 0, HEAP | PRESENT | WRITABLE)
    assert guest.run() == 1
    assert {trap.vector for trap in guest.traps()} == {14}
