"""The life of virtual machines: made, used from outside between two runs, and gone without a trace."""

import os
import threading
import time

import pytest

from hibana.engine.interface import KICKED, Engine
from hibana.errors import EngineError
from tests.contract.engine import guests
from tests.contract.engine.guests import HEAP, PRESENT
from tests.contract.engine.harness import Boot, Guest


def test_ram_is_zero_at_first(boot: Boot) -> None:
    guest = boot("""
    start:
        mov edi, HEAP
        mov ecx, 0xc00000 / 8               # from 4 MiB to the end
        xor eax, eax
        repe scasq
        jne dirty
        END 1
    dirty:
        END 2
    """)
    assert guest.run() == 1


def test_what_the_vmm_writes_between_two_runs_is_there(boot: Boot) -> None:
    """Data, and code that has run before."""
    guest = boot("""
    start:
        call function
        add eax, [HEAP]
        STOP
        jmp start
        .balign 4096
    function:
        mov eax, 1
        ret
    """)
    assert guest.run() == 1
    guest.memory.write(HEAP, b"\x10\0\0\0")
    assert guest.run() == 0x11
    guest.memory.write(guest.label("function") + 1, b"\2")
    assert guest.run() == 0x12


def test_a_loaded_cr3_takes_effect(boot: Boot) -> None:
    guest = boot("start: mov eax, [PAGES]; STOP; jmp start")
    guests.write_page(guest.memory, 0, HEAP | PRESENT)
    guest.memory.write(HEAP, b"\1")
    guest.memory.write(HEAP + 0x1000, b"\2")
    # A second set of tables in which the same page shows another frame.
    for source, target in ((guests.PML4, 0), (guests.PDPT, 1), (guests.PD + 0x1000, 2), (guests.PT, 3)):
        guest.memory.write(HEAP + 0x10000 + 0x1000 * target, guest.memory.read(source, 0x1000))
    for table, entry, value in ((0, 0, 1), (1, 1, 2), (2, 511, 3)):
        addr = HEAP + 0x10000 + 0x1000 * table + 8 * entry
        guest.memory.write(addr, (HEAP + 0x10000 + 0x1000 * value | 7).to_bytes(8, "little"))
    guest.memory.write(HEAP + 0x13000, (HEAP + 0x1000 | PRESENT).to_bytes(8, "little"))
    assert guest.run() == 1
    state = guest.vm.vcpus[0].save()
    state.sregs.cr3 = HEAP + 0x10000
    guest.vm.vcpus[0].load(state)
    assert guest.run() == 2


def test_kicks_from_many_threads_at_once_do_no_harm(boot: Boot) -> None:
    guest = boot("start: inc qword ptr [HEAP]; jmp start")

    def kick_a_lot() -> None:
        for _ in range(500):
            guest.kick()

    threads = [threading.Thread(target=kick_a_lot) for _ in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        guest.kick()
        assert guest.run_once() == KICKED
    guest.kick()
    assert guest.run_once() == KICKED


def test_32_cpus_start(boot: Boot) -> None:
    guest = boot(
        """
    start:
        START_APS
    1:  pause
        cmp dword ptr [arrived], 31
        jb 1b
        END
    ap_start:
        lock bts dword ptr [seen], ebx
        lock inc dword ptr [arrived]
        cli
    2:  hlt
        jmp 2b
    arrived: .long 0
    seen: .long 1
    """,
        vcpus=32,
    )
    guest.run()
    assert guest.number("seen", 4) == 0xFFFFFFFF


def test_many_vms_live_one_after_the_other(boot: Boot) -> None:
    guest: Guest = boot("start: END 3")
    for _ in range(10):
        guest.vm.vcpus[0].load(guests.boot_state(guest.vm.vcpus[0].save(), guest.label("start")))
        assert guest.run() == 3
        guest.thaw()


def test_a_closed_vm_leaves_no_thread_and_no_file_open(engine: Engine) -> None:
    def live() -> None:
        guest = Guest(engine, "start: ON 0x40, 1f; ENABLE_APIC; 1: END; ap_start: hlt", vcpus=2)
        guest.run()
        guest.close()

    def held() -> list[int]:
        return [len(os.listdir("/proc/self/fd")), threading.active_count(), len(os.listdir("/proc/self/task"))]

    live()  # whatever is made once for the process
    before = held()
    for _ in range(5):
        live()
    deadline = time.monotonic() + 5
    # A joined thread lingers in /proc for a moment.
    while any(now > then for now, then in zip(held(), before, strict=True)):
        assert time.monotonic() < deadline, (before, held())
        time.sleep(0.01)


def test_a_second_vm_at_the_same_time_works_or_is_refused_and_the_first_is_unharmed(engine: Engine, boot: Boot) -> None:
    guest = boot("start: mov eax, 5; STOP; inc eax; END eax")
    assert guest.run() == 5
    try:
        second = Guest(engine, "start: END 9")
    except EngineError as refusal:
        assert str(refusal)
    else:
        assert second.run() == 9
        second.close()
    assert guest.run() == 6


def test_a_device_with_a_thread_of_its_own_may_pulse_a_line_where_the_engine_allows_it(boot: Boot) -> None:
    guest = boot("""
    start:
        ENABLE_APIC
        PIN 5, 0x45
        ON 0x45, count
    1:  ACT                                 # asks for one pulse, some time
        sti
        hlt
        cli
        cmp dword ptr [interrupts], 30
        jb 1b
        END
    count:
        inc dword ptr [interrupts]
        EOI
        ret
    interrupts: .long 0
    """)
    if guest.vm.bus_lock is None:
        pytest.skip("this engine's devices live on the runner's thread")
    guest.bus.reactions[guests.PORT_ACT] = lambda value: threading.Timer(0.001, guest.pulse, (5,)).start()
    guest.run()
    assert guest.number("interrupts", 4) == 30
