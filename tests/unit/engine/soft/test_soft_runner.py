"""The runner under fire: nothing lost, nothing done twice, one machine after another."""

import ctypes
import threading
import time

import pytest

from hibana.engine.interface import Reason
from hibana.engine.soft import alarm, runner
from hibana.engine.soft.engine import SoftEngine
from hibana.engine.soft.offsets import UC
from hibana.engine.soft.runner import SoftRunner
from hibana.engine.soft.vm import SoftVm
from hibana.engine.state import RUNNABLE, UNINITIALIZED, Fpu, Regs
from hibana.errors import EngineError
from hibana.memory.guest import GuestMemory
from hibana.memory.layout import RAM_ABOVE_4G
from hibana.units import GIB, MIB
from tests.contract.engine import guests
from tests.contract.engine.harness import Boot, Guest


class Nothing:
    """A bus without devices."""

    def mmio_read(self, addr: int, size: int) -> int:
        return 0

    def mmio_write(self, addr: int, size: int, value: int) -> None:
        pass

    def port_read(self, port: int, size: int) -> int:
        return 0

    def port_write(self, port: int, size: int, value: int) -> None:
        pass


def runner_of(guest: Guest) -> SoftRunner:
    """Give the only runner of a guest on this engine."""
    assert isinstance(guest.vm, SoftVm)
    return guest.vm.runners[0]


def test_kicks_neither_repeat_nor_lose_a_read_modify_write(boot: Boot) -> None:
    """A register counts what memory counts; an instruction executed twice would set them apart."""
    guest = boot("""
    start:
        mov ecx, 2000000
    1:  add qword ptr [HEAP], 1
        lock add qword ptr [HEAP + 8], 1
        inc qword ptr [HEAP + 16]
        push rcx
        pop rdx
        xadd [HEAP + 24], rcx
        mov rcx, rdx
        dec ecx
        jnz 1b
        END
    """)
    with guest.kicked_often():
        guest.run()
    assert guest.numbers(guests.HEAP, 3) == [2_000_000] * 3
    assert guest.number(guests.HEAP + 24) == sum(range(1, 2_000_001))
    assert guest.kicked > 0


def test_string_instructions_survive_kicks(boot: Boot) -> None:
    guest = boot("""
    start:
        mov r8d, 40
    1:  mov esi, HEAP
        mov edi, HEAP + 0x100000
        mov ecx, 0x8000
        rep movsb
        mov edi, HEAP + 0x100000
        mov ecx, 0x8000
        xor eax, eax
        repe scasb
        jne bad
        dec r8d
        jnz 1b
        END 1
    bad:
        END 2
    """)
    with guest.kicked_often():
        assert guest.run() == 1


def test_a_kick_wakes_a_guest_that_sleeps_for_ever(boot: Boot) -> None:
    guest = boot("start: cli\n1: hlt\n jmp 1b")
    threading.Timer(0.05, runner_of(guest).kick).start()
    assert guest.run_once().reason is Reason.KICKED


def test_a_kick_from_inside_a_device_ends_the_run(boot: Boot) -> None:
    guest = boot("start: out 0x99, al\n1: jmp 1b")
    guest.bus.reactions[0x99] = lambda value: runner_of(guest).kick()
    assert guest.run_once().reason is Reason.KICKED


def test_a_late_signal_is_only_a_reason_to_look(boot: Boot) -> None:
    """Signals that belong to no kick do not end `run`."""
    guest = boot("start: mov ecx, 3000000\n1: dec ecx\n jnz 1b\n END 7")
    over = threading.Event()

    def storm() -> None:
        while not over.is_set():
            thread = runner_of(guest)._thread
            if thread:
                alarm.poke(thread)
            time.sleep(0.0001)

    thread = threading.Thread(target=storm, daemon=True)
    thread.start()
    assert guest.run() == 7
    over.set()
    thread.join()
    assert guest.kicked <= 1


def test_a_spinning_cpu_hands_over_at_pause(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two CPUs pass a ball, and a slice has no end."""
    monkeypatch.setattr(runner, "SLICE_NS", 1 << 60)
    guest = boot(
        """
    start:
        START_APS
        mov ecx, 500
    1:  mov dword ptr [ball], 1
    2:  pause
        cmp dword ptr [ball], 0
        jne 2b
        dec ecx
        jnz 1b
        END 1
    ap_start:
    3:  pause
        cmp dword ptr [ball], 1
        jne 3b
        mov dword ptr [ball], 0
        jmp 3b
    ball: .long 0
    """,
        vcpus=2,
    )
    assert guest.run() == 1


def test_cpus_that_never_pause_share_by_slices(boot: Boot) -> None:
    guest = boot(
        """
    start:
        START_APS
    1:  inc qword ptr [HEAP]
        cmp qword ptr [HEAP + 8], 100000
        jb 1b
        END 1
    ap_start:
    2:  inc qword ptr [HEAP + 8]
        jmp 2b
    """,
        vcpus=2,
    )
    assert guest.run() == 1
    assert guest.number(guests.HEAP) > 0


@pytest.mark.parametrize("vcpus", [1, 2, 8, 32])
def test_all_but_the_first_cpu_wait_for_a_start_up_message(vcpus: int, engine: SoftEngine, memory: GuestMemory) -> None:
    vm = engine.create_vm(memory, vcpus, Nothing())
    assert [vcpu.mp_state for vcpu in vm.vcpus] == [RUNNABLE] + [UNINITIALIZED] * (vcpus - 1)
    vm.close()


def test_a_running_guest_does_not_notice_being_saved_wiped_and_loaded(boot: Boot) -> None:
    guest = boot("""
    start:
        fninit
        fld1
        mov rax, 0x0123456789abcdef
        movq xmm7, rax
        mov ecx, 4000000
        xor ebx, ebx
    1:  add rbx, rcx
        fld1
        faddp
        dec ecx
        jnz 1b
        fistp qword ptr [HEAP]
        movq [HEAP + 8], xmm7
        mov [HEAP + 16], rbx
        END
    """)
    rounds = 0
    garbage = guest.vm.vcpus[0].save()
    garbage.regs = Regs(*range(1, 17))
    garbage.fpu = Fpu(fpr=[b"\x55" * 10 + bytes(6)] * 8, fsw=0x3800, ftwx=0x55, xmm=[b"\xaa" * 16] * 16, mxcsr=0x7F80)
    garbage.sregs.cr3, garbage.sregs.efer = 0x5000, 0

    def wipe(_: object) -> None:
        nonlocal rounds
        rounds += 1
        vcpu = guest.vm.vcpus[0]
        before = vcpu.save()
        vcpu.load(garbage)
        vcpu.load(before)
        after = vcpu.save()
        del before.msrs[0x10], after.msrs[0x10]  # the time-stamp counter goes on
        assert after == before

    guest.between_runs = wipe
    with guest.kicked_often():
        guest.run()
    assert rounds > 0
    assert guest.numbers(guests.HEAP, 3) == [4_000_001, 0x0123456789ABCDEF, sum(range(4_000_001))]


def test_machines_follow_each_other_in_one_process(engine: SoftEngine) -> None:
    for size in (2, 8, 3, 16):
        memory = GuestMemory(size * MIB)
        vm = engine.create_vm(memory, 1, Nothing())
        vm.close()
        memory.close()


def test_a_second_machine_beside_the_first_is_refused(engine: SoftEngine, memory: GuestMemory) -> None:
    vm = engine.create_vm(memory, 1, Nothing())
    with pytest.raises(EngineError, match="one microVM in a process, and this one has its microVM already"):
        engine.create_vm(memory, 1, Nothing())
    vm.close()
    engine.create_vm(memory, 1, Nothing()).close()


def test_ram_on_both_sides_of_the_hole_is_ram(boot: Boot) -> None:
    guest = boot(
        """
    start:
        mov rbx, 0x100000000
        mov rax, 0x1122334455667788
        mov [rbx], rax
        mov [rbx + 0x3fffff8], rax
        mov rcx, [rbx]
        mov [HEAP], rcx
        mov dword ptr [rbx + 0x1000], 0xc3c3c3c3    # and code runs there
        lea rdx, [rbx + 0x1000]
        call rdx
        END 5
    """,
        memory_mib=3 * 1024 + 64,
    )
    assert guest.run() == 5
    assert guest.number(guests.HEAP) == 0x1122334455667788
    assert guest.memory.read(RAM_ABOVE_4G + 64 * MIB - 8, 8) == bytes.fromhex("8877665544332211")
    assert guest.bus.seen("mmio", "write") == []


def test_code_above_4_gib_that_a_device_changes_is_noticed(boot: Boot) -> None:
    guest = boot(
        """
    start:
        mov rbx, 0x100000000
        mov word ptr [rbx], 0x01b0      # mov al, 1
        mov byte ptr [rbx + 2], 0xc3    # ret
        xor eax, eax
        call rbx
        mov r8d, eax
        ACT
        call rbx
        shl r8d, 8
        or eax, r8d
        out 0xf4, eax
    1:  jmp 1b
    """,
        memory_mib=3 * 1024 + 64,
    )
    guest.bus.reactions[guests.PORT_ACT] = lambda value: guest.memory.write(4 * GIB + 1, b"\x02")
    assert guest.run() == 0x102


def test_a_library_that_gives_up_ends_the_run_and_not_the_process(boot: Boot) -> None:
    """A privilege change with a task-state segment that is none: on this library, abort()."""
    guest = boot("start: ENTER_USER user; user: ud2")
    state = guest.vm.vcpus[0].save()
    state.sregs.tr.present, state.sregs.tr.unusable = 0, 1
    guest.vm.vcpus[0].load(state)
    stop = guest.run_to_stop()
    assert stop and stop.reason is Reason.FAILED
    assert "the library gave up at libunicorn.so.2+0x" in stop.detail


def test_an_access_beyond_every_address_ends_the_run_with_a_sentence(boot: Boot) -> None:
    guest = boot("start: mov eax, 0xe0000000; jmp rax")
    stop = guest.run_to_stop()
    assert stop and stop.reason is Reason.FAILED
    assert "vCPU 0 cannot go on at RIP 0xe0000000" in stop.detail and "guest-physical address 0xe0000000" in stop.detail


def test_linear_address_zero_is_an_address_like_any_other(boot: Boot) -> None:
    """It is the library's default for "until here"."""
    guest = boot("start: mov dword ptr [0], 0xfeebf4e6; mov eax, 3; xor edx, edx; jmp rdx")
    assert guest.run() == 3


def test_the_kick_check_is_at_block_starts_only(boot: Boot) -> None:
    guest = boot("start: END")
    vm = guest.vm
    assert isinstance(vm, SoftVm)
    assert ctypes.c_uint8.from_address(vm._processor.handle + UC.no_exit_request).value == 1
