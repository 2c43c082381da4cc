"""Runs guests made of random bytes; a process of its own, because the question is whether it survives.

python -m tests.contract.engine.wild_child ENGINE FIRST_SEED COUNT → a line for each seed, exit status 0
"""

import random
import sys
import threading
from typing import Final

from hibana.engine.interface import Reason, Stop
from hibana.engine.state import Segment, VcpuState
from tests.contract.engine import guests
from tests.contract.engine.engines import find
from tests.contract.engine.harness import Guest

RUN_S: Final = 0.12
JUNGLE: Final = 0x8000
"""Bytes of random code."""

# Every trap continues at a random place of the jungle, so that a run goes on for longer than its first #UD.
SOURCE: Final = f"""
    astray:
        mov rax, [seed]
        mov rcx, 6364136223846793005
        imul rax, rcx
        inc rax
        mov [seed], rax
        shr rax, 33
        and eax, {JUNGLE - 1}
        add eax, offset start
        test byte ptr [rdi + 24], 3
        jz 1f
        add eax, USER
    1:  mov [rdi + 16], rax
        and qword ptr [rdi + 32], ~0x100
        mov dword ptr [log_count], 0
        ret
    seed: .quad 1
        .balign 4096
    ap_start:
    start:
        .skip {JUNGLE}
"""


def _somewhere(chance: random.Random, guest: Guest) -> int:
    """Give a number such as confuses: an address that means something, or anything."""
    return chance.choice(
        [
            chance.getrandbits(64),
            chance.getrandbits(20),
            guest.label("start") + chance.getrandbits(14),
            guests.HEAP + chance.getrandbits(16),
            guests.DEVICE + chance.getrandbits(12),
            guests.PAGES + chance.getrandbits(12),
            0xFEE00000 + 16 * chance.getrandbits(6),
            0xFEC00000 + 16 * chance.getrandbits(1),
            guests.PT,
            (1 << 47) - chance.getrandbits(3),
        ]
    )


def _long_mode(state: VcpuState) -> None:
    """Stay in 64-bit ring 0, where the harness has put the CPU."""


def _user_mode(state: VcpuState) -> None:
    state.sregs.cs = Segment(limit=0xFFFFFFFF, selector=guests.USER_CODE, type=0xB, dpl=3, l=1, g=1)
    state.sregs.ss = Segment(limit=0xFFFFFFFF, selector=guests.USER_DATA, type=3, dpl=3, db=1, g=1)
    state.regs.rip += guests.USER
    state.regs.rsp = guests.USER + guests.USER_STACK
    state.regs.rflags |= 0x200


def _without_idt(state: VcpuState) -> None:
    state.sregs.idt.limit = 0


def _protected_mode(state: VcpuState) -> None:
    state.sregs.cr0, state.sregs.cr4, state.sregs.efer = 0x33, 0x600, 0
    state.sregs.cs = Segment(limit=0xFFFFFFFF, selector=guests.KERNEL_CODE_32, type=0xB, db=1, g=1)


def _real_mode(state: VcpuState) -> None:
    state.sregs.cr0, state.sregs.cr4, state.sregs.efer = 0x10, 0, 0
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        setattr(state.sregs, name, Segment(base=0x100000 if name == "cs" else 0, type=0xB if name == "cs" else 3))
    state.regs.rip &= 0xFFFF
    state.regs.rsp = 0x8000


MODES: Final = [_long_mode, _user_mode, _without_idt, _protected_mode, _real_mode]


def _run_wild(engine_name: str, seed: int) -> str:
    chance = random.Random(seed)
    engine, reason = find(engine_name)
    if engine is None:
        raise SystemExit(reason)
    guest = Guest(engine, SOURCE, vcpus=chance.choice([1, 1, 4]))
    guest.memory.write(guest.label("start"), chance.randbytes(JUNGLE))
    guest.memory.write(guests.HEAP, chance.randbytes(JUNGLE))
    guest.memory.write(guest.label("seed"), chance.randbytes(8))
    guest.memory.write(guests.HANDLERS, guest.label("astray").to_bytes(8, "little") * 256)
    vcpu = guest.vm.vcpus[0]
    state = vcpu.save()
    for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{n}" for n in range(8, 16))):
        setattr(state.regs, name, _somewhere(chance, guest))
    mode = MODES[seed % len(MODES)]
    mode(state)
    vcpu.load(state)
    threading.Timer(RUN_S, guest.bus.reactions[guests.PORT_END], (0,)).start()
    if chance.getrandbits(1):
        guest.between_runs = lambda runner: vcpu.load(vcpu.save())
        with guest.kicked_often():
            stop = guest.run_to_stop()
    else:
        stop = guest.run_to_stop()
    stop = stop or Stop(Reason.KICKED)
    for each in guest.vm.vcpus:
        each.load(each.save())
    guest.close()
    return f"{mode.__name__.strip('_')}: {stop.reason.value}, {len(guest.bus.log)} accesses {stop.detail[-400:]}"


if __name__ == "__main__":
    first, count = int(sys.argv[2]), int(sys.argv[3])
    for each_seed in range(first, first + count):
        print(f"seed {each_seed}", end=", ", flush=True)
        print(_run_wild(sys.argv[1], each_seed), flush=True)
