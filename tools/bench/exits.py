"""What an exit costs on the kvm engine: from the guest's instruction through engine and bus to a device, and back.

Its floor is exit_floor.c, which runs the same guest program and has no devices.
"""

import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from hibana.bus.guest_bus import GuestBus
from hibana.engine.interface import KICKED, Runner
from hibana.engine.kvm.engine import KvmEngine
from hibana.engine.state import RUNNABLE, VcpuState
from hibana.memory.guest import GuestMemory
from hibana.units import KIB, MIB
from tools.dev.say import Failure

ROUNDS: Final = 5000
"""Exits of one run of a program."""
START: Final = 0x1000
"""Where programs are, in memory and in the first segment."""
_PORT: Final = 0x80
_END: Final = 0xF4
_MMIO: Final = 0xD000_0000
_COUNT: Final = b"\x66\xb9" + struct.pack("<I", ROUNDS)  # mov ecx, ROUNDS
_OUT: Final = bytes.fromhex("e680 6649 75fa")  # 1: out 0x80, al; dec ecx; jnz 1b
_STORE: Final = b"\x66\xbb" + struct.pack("<I", _MMIO) + bytes.fromhex("678803 6649 75f9")  # 1: mov [ebx], al; …
_SAY_END: Final = bytes.fromhex("e6f4 f4")  # out 0xf4, al; hlt
PROGRAMS: Final[Mapping[str, bytes]] = {
    "port exit": _COUNT + _OUT + _SAY_END,
    "MMIO exit": _COUNT + _STORE + _SAY_END,
}
"""Real-mode code whose data segment reaches over 4 GiB."""


class Cost(NamedTuple):
    """Nanoseconds per exit."""

    engine: float
    floor: float


def measure(code: bytes, floor: Path, n: int) -> Cost:
    """Run a program on both sides, in turn."""
    pairs = [(_on_engine(code), _on_floor(code, floor)) for _ in range(n)]
    return Cost(median(ours for ours, _ in pairs), median(theirs for _, theirs in pairs))


class Register:
    """The least that can be called a device."""

    def __init__(self) -> None:
        self.value = 0

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.value = value


class _End(Register):
    """Ends the run of the guest that writes to it."""

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self._runner = runner

    def write(self, offset: int, size: int, value: int) -> None:
        self._runner.kick()


def _on_engine(code: bytes) -> float:
    bus = GuestBus()
    memory = GuestMemory(MIB)
    memory.write(START, code)
    vm = KvmEngine().create_vm(memory, 1, bus)
    try:
        bus.ports.insert(_PORT, 1, Register())
        bus.ports.insert(_END, 1, _End(vm.runners[0]))
        bus.mmio.insert(_MMIO, 4 * KIB, Register())
        vm.vcpus[0].load(started(vm.vcpus[0].save()))
        began = time.perf_counter_ns()
        stop = vm.runners[0].run()
        took = time.perf_counter_ns() - began
    finally:
        vm.close()
        memory.close()
    if stop is not KICKED:
        raise Failure(f"the kvm engine ended the program: {stop}")
    return took / (ROUNDS + 1)


def started(state: VcpuState, at: int = START) -> VcpuState:
    """Let a CPU after reset go on at the program, with a data segment of 4 GiB; no CPU waits for SIPI."""
    state.mp_state = RUNNABLE
    state.regs.rip = at
    state.sregs.cs.base = state.sregs.cs.selector = 0
    state.sregs.ds.limit = 0xFFFFFFFF
    state.sregs.ds.g = 1
    return state


def _on_floor(code: bytes, floor: Path) -> float:
    done = subprocess.run([floor, code.hex(), str(_END)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"{floor.name}: {done.stderr.strip()}")
    return float(done.stdout)
