"""One virtual machine in which programs run one after the other, and everything they leave behind.

A new machine costs milliseconds, so there is one for thousands of programs. Between two of them everything is put back
through the engine's own interface: RAM is written, chips and CPU are loaded. An engine that carries something over
from one program to the next is as wrong as any other.
"""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from hibana.engine.interface import KICKED, Engine
from hibana.engine.state import VcpuState
from hibana.memory.guest import GuestMemory
from hibana.units import PAGE
from tests.fuzz import tables, world
from tests.fuzz.generator import Write
from tests.fuzz.program import Program
from tests.fuzz.world import Layout

_TSC: Final = 0x10
_PATIENCE_S: Final = 5.0
_LOOK_S: Final = 1.0
_BETWEEN_KICKS_S: Final = 0.0001
_UNCOMPARED: Final = frozenset((world.ASYNC_STACK,))
_CURRENT_COUNT: Final = slice(0x390, 0x394)  # of the local APIC's timer
_MULTIPLIER: Final = 6364136223846793005
_FIRST_ANSWER: Final = 0x1234567
_U64: Final = (1 << 64) - 1

Access = tuple[str, int, int, int]
"""What the guest did to the bus: verb, address, size, value."""


class Outcome(msgspec.Struct):
    """Everything a program leaves behind."""

    stop: str
    """Why it ended: "end", or why the engine could not go on."""
    state: VcpuState
    frames: dict[int, bytes]
    """Frame → digest, for all that are not as they were."""
    accesses: list[Access]

    def digest(self) -> bytes:
        """Make a few bytes of it."""
        return hashlib.blake2b(msgspec.msgpack.encode(self), digest_size=16).digest()


class _Bus:
    """The devices of the world: they record everything and answer with numbers that follow from those before."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine
        self.accesses: list[Access] = []
        self._answer = _FIRST_ANSWER

    def begin(self) -> None:
        self.accesses = []
        self._answer = _FIRST_ANSWER

    def _next(self, size: int) -> int:
        self._answer = (self._answer * _MULTIPLIER + 1) & _U64
        return self._answer >> 8 & (1 << 8 * size) - 1 if size < 8 else self._answer

    def mmio_read(self, addr: int, size: int) -> int:
        value = self._next(size)
        self.accesses.append(("load", addr, size, value))
        return value

    def mmio_write(self, addr: int, size: int, value: int) -> None:
        self.accesses.append(("store", addr, size, value))
        if addr == world.DEVICE + world.REGISTER_ACT:
            self._machine.act(value)
        elif addr == world.DEVICE + world.REGISTER_END:
            self._machine.end()

    def port_read(self, port: int, size: int) -> int:
        value = self._next(size)
        self.accesses.append(("in", port, size, value))
        return value

    def port_write(self, port: int, size: int, value: int) -> None:
        self.accesses.append(("out", port, size, value))
        if port == world.PORT_ACT:
            self._machine.act(value)
        elif port == world.PORT_PULSE:
            self._machine.vm.line(value)()
        elif port == world.PORT_KICK:
            self._machine.kick()
        elif port == world.PORT_END:
            self._machine.end()


class Machine:
    """Runs programs."""

    def __init__(self, engine: Engine) -> None:
        self.memory = GuestMemory(world.MEMORY_SIZE)
        self._bus = _Bus(self)
        self.vm = engine.create_vm(self.memory, 1, self._bus)
        self._runner = self.vm.runners[0]
        self._reset = self._prepare(self.vm.vcpus[0].save())
        chips = self.vm.save()
        chips.ioapic.redirtbl = list(tables.REDIRECTIONS)
        chips.pic_master.imr = chips.pic_slave.imr = 0xFF
        self._chips = chips
        self._contents: dict[Layout, bytes] = {}
        """What the frames of each layout hold now."""
        self._program: Program | None = None
        self._ended = False
        self._kicker = _Kicker(self.kick)

    @staticmethod
    def _prepare(reset: VcpuState) -> VcpuState:
        """Enable the local APIC and its timer, without PIC."""
        lapic = bytearray(reset.lapic)
        for register, value in ((0xF0, 0x1FF), (0x320, world.TIMER_VECTOR), (0x350, 0x10000), (0x3E0, 0xB)):
            lapic[register : register + 4] = value.to_bytes(4, "little")
        reset.lapic = bytes(lapic)
        return reset

    def run(self, program: Program) -> Outcome:
        """Run one program from beginning to end."""
        self._program = program
        self._write(program.layout, program.image)
        vcpu = self.vm.vcpus[0]
        self.vm.load(self._chips)
        vcpu.load(
            tables.start_state(self._reset, program.layout, program.ring, program.regs, program.cr4, program.msrs)
        )
        self._bus.begin()
        self._ended = False
        self._kicker.be_busy(program.hectic)
        stop = self._run_to_end()
        self._kicker.be_busy(False)
        state = vcpu.save()
        del state.msrs[_TSC]
        lapic = bytearray(state.lapic)
        lapic[_CURRENT_COUNT] = bytes(4)
        state.lapic = bytes(lapic)
        return Outcome(stop, state, self._read(program), self._bus.accesses)

    def _run_to_end(self) -> str:
        deadline = time.monotonic() + _PATIENCE_S
        while not self._ended:
            stop = self._runner.run()
            if stop != KICKED:
                return f"{stop.reason.value} {stop.detail}"
            if time.monotonic() > deadline:
                return "does not end"
        return "end"

    def kick(self) -> None:
        """Kick the runner."""
        self._runner.kick()

    def end(self) -> None:
        """The program has come to its end."""
        self._ended = True
        self._runner.kick()

    def act(self, number: int) -> None:
        """Do what the program has prepared."""
        assert self._program
        action = self._program.actions[number & 0xFFFF]
        ranges = _ranges(self._program.layout, action.writes)
        for addr, content in ranges:
            if action.through_window:
                self.memory.window(addr, len(content))[:] = content
            else:
                self.memory.write(addr, content)
        if action.through_window:
            for addr, content in ranges:
                self.memory.touched(addr, len(content))

    def _halves(self, layout: Layout) -> tuple[tuple[int, int, int], ...]:
        """Give the two halves of a world as (address, first byte, last byte and one) of its image."""
        split = world.SPLIT * PAGE
        return (layout.low, 0, split), (layout.high, split, world.FRAMES * PAGE)

    def _write(self, layout: Layout, image: bytes) -> None:
        """Write the frames that are not what they should be."""
        now = self._contents.get(layout)
        if now is None:
            for addr, start, end in self._halves(layout):
                self.memory.write(addr, image[start:end])
            return
        for frame in range(world.FRAMES):
            start = frame * PAGE
            wanted = image[start : start + PAGE]
            if wanted != now[start : start + PAGE]:
                self.memory.write(layout.gpa(frame), wanted)

    def _read(self, program: Program) -> dict[int, bytes]:
        """Read all frames back; digest those that have changed."""
        layout, image = program.layout, program.image
        now = b"".join(self.memory.read(addr, end - start) for addr, start, end in self._halves(layout))
        self._contents[layout] = now
        changed = {}
        for frame in range(world.FRAMES):
            start = frame * PAGE
            content = now[start : start + PAGE]
            if content != image[start : start + PAGE] and frame not in _UNCOMPARED:
                changed[frame] = hashlib.blake2b(content, digest_size=16).digest()
        return changed

    def content(self, layout: Layout, frame: int) -> bytes:
        """Give what a frame held when the last program of a layout ended."""
        return self._contents[layout][frame * PAGE : (frame + 1) * PAGE]

    def close(self) -> None:
        """Free everything."""
        self._kicker.close()
        self.vm.close()
        self.memory.close()


def _ranges(layout: Layout, writes: Sequence[Write]) -> list[tuple[int, bytes]]:
    """Make as few writes of several as the layout allows."""
    ranges: list[tuple[int, bytes]] = []
    for write in writes:
        addr = layout.gpa(write.frame) + write.offset
        if ranges and ranges[-1][0] + len(ranges[-1][1]) == addr:
            ranges[-1] = ranges[-1][0], ranges[-1][1] + write.content
        else:
            ranges.append((addr, write.content))
    return ranges


class _Kicker:
    """A thread that kicks: now and then to look at the clock, and all the time while it is told to."""

    def __init__(self, kick: Callable[[], None]) -> None:
        self._kick = kick
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def be_busy(self, busy: bool) -> None:
        """Begin or stop to kick at random moments."""
        if busy:
            self._wake.set()
        else:
            self._wake.clear()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wake.set()
        self._thread.join()

    def _loop(self) -> None:
        dice = random.Random()
        while not self._closed:
            if self._wake.wait(_LOOK_S):
                time.sleep(dice.random() * _BETWEEN_KICKS_S)
            self._kick()
