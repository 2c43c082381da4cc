"""Guests that run wild: random bytes as a kernel. A program of its own, because a crash is one possible outcome.

    python wild_guest.py SEED...        prints one line for each seed: the seed, why the run ended, how

A guest must also leave the tables of the engine's accelerations as they promise to be (fast/promises.py).

Half of the bytes are noise, half are instructions that matter to an engine, with operands that hurt. Most guests can
survive their own exceptions, so that they get somewhere: every vector leads to a few lines that pick a new address.
"""

import random
import struct
import sys
import threading
from typing import Final

from hibana.engine.interface import Stop
from hibana.engine.soft.engine import SoftEngine
from hibana.engine.soft.vm import SoftVm
from hibana.engine.state import DescriptorTable, Regs, Segment, VcpuState
from hibana.memory.guest import GuestMemory
from hibana.units import MIB
from tests.unit.engine.soft.fast import promises

RUN_S: Final = 0.1
PATIENCE_S: Final = 20.0

PML4: Final = 0x1000
PDPT: Final = 0x2000
PD: Final = 0x3000
GDT: Final = 0x7000
IDT: Final = 0x8000
TSS: Final = 0x9C00
HANDLER: Final = 0xA000
CODE: Final = 0x10000
CODE_SIZE: Final = 0x20000
STACK: Final = 0x9F000
ERROR_CODE: Final = frozenset((8, 10, 11, 12, 13, 14, 17))

_SYSTEM: Final = """
    0f30 0f32 0f05 480f07 0f07 0f34 0f35 480f35 48cf cf cd80 cc cd08 cd0e f1 ce f4 fa fb f390 9c 9d 0faa
    0f01d8 0f01f9 0f01c8 0f01c9 0f01d0 0f01d1 0f01ca 0f01cb 0f01da 0f01db 0f01dc 0f01dd 0f01de 0f01df 0f01d9
    0f01fa 0f01fb 0f01f8 0f0117 0f011f 0f0010 0f0018 0f00d8 0f00d0 0f06 0f08 0f09 0f0b 0fff 0fb9
    0f20c0 0f22c0 0f22d0 0f22d8 0f22e0 440f22c0 440f20c0 0f23f8 0f23c0 0f2100 8ed0 8ec0 8ee0 8ed8 0fb200 0fb400
    6c 6d 6e 6f f36c f36d f36e f36f e4ff e6ff ec ed ee ef e440 e643 e420 e6a1 e670 e471
    f3a4 f348a5 f3aa f348ab f3a6 f3ae f2ae c8ffff1f c9 0fae00 0fae08 0fae10 0fae18 0fae20 0fae28
    480fc708 0fc708 0fc7f0 0fc7f8 f0480fc708 f00fc708 f048ff00 f0ff00 0fa2 0f31 0f33 0f01f9 0f77 dd20 dd38 d9d0 dbe3
    ff28 ff18 48ff28 c5f877 62f17c48 c4e2 660f3a0fc001 0f3800c0 67e300 8f00 a0 a1 a2 a3 48a1 48a3
"""
SYSTEM: Final = [bytes.fromhex(text) for text in _SYSTEM.split()]
MSRS: Final = (
    *(0x10, 0x1B, 0x3B, 0x8B, 0x174, 0x175, 0x176, 0x17A, 0x1A0, 0x200, 0x201, 0x277, 0x2FF, 0x400, 0x6E0, 0x800),
    *(0xC0000080, 0xC0000081, 0xC0000082, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102, 0xC0010117),
)
ADDRESSES: Final = (0xFEE00000, 0xFEE00300, 0xFEE00380, 0xFEC00000, 0xC0000000, 0x100000000, 0x1000, 0x8000, 0x9000)
CONTROLS: Final = (0x11, 0x10, 0x80000011, 0x80050033, 0x6, 0x6F0, 0x4500, 0xC4500, 0xD01)


class NoDevices:
    """A bus on which nobody answers."""

    def mmio_read(self, addr: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def mmio_write(self, addr: int, size: int, value: int) -> None:
        pass

    def port_read(self, port: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def port_write(self, port: int, size: int, value: int) -> None:
        pass


def wild_code(dice: random.Random) -> bytes:
    """Write a program that nobody would."""
    code = bytearray()
    noise = dice.random() < 0.3
    while len(code) < CODE_SIZE:
        choice = dice.random()
        if noise:
            code += dice.randbytes(64)
        elif choice < 0.35:
            code += dice.choice(SYSTEM)
        elif choice < 0.50:
            code += b"\xb9" + struct.pack("<I", dice.choice((*MSRS, dice.getrandbits(32))))  # mov ecx
        elif choice < 0.65:
            value = dice.choice((*ADDRESSES[:5], *CONTROLS, dice.getrandbits(32), dice.getrandbits(12)))
            code += bytes((0xB8 | dice.randrange(8),)) + struct.pack("<I", value & 0xFFFFFFFF)  # mov r32
        elif choice < 0.70:
            value = dice.choice((*ADDRESSES, dice.getrandbits(64), dice.getrandbits(40), 0xFFFFFFFF80000000))
            code += bytes((0x48, 0xB8 | dice.randrange(8))) + struct.pack("<Q", value)  # mov r64
        elif choice < 0.80:
            code += bytes(
                (dice.choice((0x89, 0x8B, 0x01, 0x31, 0x87, 0x88, 0x8A, 0xFF, 0xC7, 0xF7)), dice.randrange(256))
            )
        else:
            code += dice.randbytes(dice.randrange(1, 8))
    return bytes(code[:CODE_SIZE])


def write_tables(memory: GuestMemory, dice: random.Random, long_mode: bool) -> None:
    """Map 4 GiB one to one, with some damage, and let every vector lead somewhere."""
    damaged = dice.random() < 0.5

    def entries(first: list[int], bits: int) -> bytes:
        rest = [dice.getrandbits(bits) | 1 if damaged else 0 for _ in range(512 - len(first))]
        return struct.pack("<512Q", *first, *rest)

    memory.write(PML4, entries([PDPT | 7], 64))
    memory.write(PDPT, entries([PD + 0x1000 * index | 7 for index in range(4)], 52))
    pages = [page << 21 | 0x87 | (dice.getrandbits(63) if dice.random() < 0.05 else 0) for page in range(2048)]
    memory.write(PD, struct.pack("<2048Q", *pages))

    recovers = long_mode and dice.random() < 0.7
    memory.write(HANDLER, _recovery(b""))
    memory.write(HANDLER + 0x800, _recovery(bytes.fromhex("4883c408")))  # add rsp, 8: past the error code
    for vector in range(256):
        target = HANDLER + (0x800 if vector in ERROR_CODE else 0) if recovers else CODE + dice.randrange(CODE_SIZE)
        gate = 0x8E01 if recovers else dice.choice((0x8E00, 0x8F00, 0xEE00, 0xEF01, dice.getrandbits(16)))
        if long_mode:
            memory.write(IDT + 16 * vector, struct.pack("<HHHHQ", target & 0xFFFF, 8, gate, target >> 16, 0))
        else:
            memory.write(IDT + 8 * vector, struct.pack("<HHHH", target & 0xFFFF, 8, gate & 0xFF00, target >> 16))
    code = 0x00AF9B000000FFFF if long_mode else 0x00CF9B000000FFFF
    sane = [0, code, 0x00CF93000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF]
    memory.write(GDT, struct.pack("<26Q", *sane, *(dice.getrandbits(64) for _ in range(20))))
    memory.write(TSS, dice.randbytes(104))
    memory.write(TSS + 4, struct.pack("<3Q", *[STACK - 0x800] * 3))
    memory.write(TSS + 36, struct.pack("<7Q", *[STACK - 0x1000] * 7))


def _recovery(start: bytes) -> bytes:
    """Go on one byte further, somewhere inside the code, in ring 0 on the first stack."""
    return start + b"".join(
        (
            bytes.fromhex("48ff0424"),  # inc qword [rsp]
            bytes.fromhex("48812424") + struct.pack("<I", CODE_SIZE - 1),  # and qword [rsp], ...
            bytes.fromhex("48810c24") + struct.pack("<I", CODE),  # or qword [rsp], ...
            *(
                bytes.fromhex("48c74424") + struct.pack("<BI", at, value)  # mov qword [rsp + at], value
                for at, value in ((8, 8), (16, 0x202), (24, STACK), (32, 16))
            ),
            bytes.fromhex("48cf"),  # iretq
        )
    )


def wild_state(state: VcpuState, dice: random.Random, bits: int) -> VcpuState:
    """Begin the code in 64-bit, 32-bit or 16-bit mode."""
    state.regs = Regs(*(dice.choice((dice.getrandbits(64), dice.getrandbits(20))) for _ in range(16)))
    state.regs.rip, state.regs.rsp = CODE, STACK
    state.regs.rflags = 2 | dice.choice((0, 0x200, 0x100, 0x3200))
    sregs = state.sregs
    if bits == 16:
        state.regs.rip, state.regs.rsp = 0, 0xF000
        sregs.cs = Segment(CODE, 0xFFFF, CODE >> 4, 11)
        sregs.ds = sregs.es = sregs.ss = Segment(0x1000, 0xFFFF, 0x100, 3)
        sregs.cr0, sregs.idt = 0x10, DescriptorTable(IDT, 0x3FF)
        return state
    long_mode = bits == 64
    sregs.cs = Segment(0, 0xFFFFFFFF, 8, 11, db=int(not long_mode), l=int(long_mode), g=1)
    flat = Segment(0, 0xFFFFFFFF, 16, 3, db=1, g=1)
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat
    sregs.tr = Segment(TSS, 0x67, 24, 11, s=0)
    sregs.gdt, sregs.idt = DescriptorTable(GDT, 0xFFF), DescriptorTable(IDT, 0xFFF)
    if long_mode:
        sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = 0x80050033, PML4, 0x6F0, 0xD01
    else:
        sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = dice.choice((0x11, 0x80000011)), PD, 0x10, 0
    return state


def run_wild(seed: int) -> Stop | None:
    """Run one guest for a moment and kick it; None when it does not listen or leaves a table in disorder."""
    dice = random.Random(seed)
    memory = GuestMemory(dice.choice((2, 4, 16)) * MIB)
    vm: SoftVm = SoftEngine().create_vm(memory, dice.choice((1, 1, 2)), NoDevices())
    bits = dice.choice((64, 64, 64, 32, 16))
    write_tables(memory, dice, bits == 64)
    memory.write(CODE, wild_code(dice))
    vm.vcpus[0].load(wild_state(vm.vcpus[0].save(), dice, bits))
    stops: list[Stop] = []
    thread = threading.Thread(target=lambda: stops.append(vm.runners[0].run()), daemon=True)
    thread.start()
    thread.join(RUN_S)
    vm.runners[0].kick()
    thread.join(PATIENCE_S)
    if not stops:
        return None
    if disorder := promises.broken(vm._processor, memory):
        print(*disorder, sep="; ", end=" ")
        return None
    vm.close()
    memory.close()
    return stops[0]


if __name__ == "__main__":
    for number in map(int, sys.argv[1:]):
        print(number, file=sys.stderr, flush=True)  # whose crash it is
        stop = run_wild(number)
        print(number, stop.reason.name if stop else "HANGS", stop.detail.replace("\n", " ") if stop else "", flush=True)
        if stop is None:
            sys.exit(1)
