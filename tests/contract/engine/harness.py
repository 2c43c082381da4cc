"""A guest that lives for one test: its memory, its bus, its threads, and a watchdog."""

import contextlib
import os
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

import pytest

from hibana.engine.interface import Engine, Reason, Runner, Stop
from hibana.memory.guest import GuestMemory
from hibana.units import MIB
from tests.contract.engine import guests
from tests.contract.engine.assembler import Program, assemble
from tests.contract.engine.engines import emulates

PATIENCE_S: Final = 120.0 if "HIBANA_BOX" in os.environ else 30.0
_ARRIVAL_S: Final = 0.003
_LAST_WORDS_S: Final = 5.0


class Access(NamedTuple):
    """One call of the bus."""

    space: str  # "port" or "mmio"
    verb: str  # "read" or "write"
    addr: int
    size: int
    value: int


class GuestBus:
    """Records every access, answers with what the test prepared, and knows when the guest ends."""

    def __init__(self, end: Callable[[int], None]) -> None:
        self.log: list[Access] = []
        self.device = bytearray(0x10000)
        self.answers: dict[int, Callable[[int], int]] = {}
        """Port → what a read of so many bytes gives."""
        self.reactions: dict[int, Callable[[int], None]] = {guests.PORT_END: end}
        """Port → what happens when a value is written."""
        self.on_mmio_write: Callable[[int], None] = lambda value: None
        """What happens when a value is written anywhere by MMIO."""
        self.faulty = False
        """True: every access of MMIO raises, as a device with a bug would."""

    def said(self) -> list[int]:
        """Give the numbers the guest has said."""
        return [a.value for a in self.log if a[:3] == ("port", "write", guests.PORT_SAY)]

    def seen(self, space: str, verb: str) -> list[tuple[int, int, int]]:
        """Give (address, size, value) of every access of a kind, without the guest's end."""
        return [a[2:] for a in self.log if a[:2] == (space, verb) and a.addr != guests.PORT_END]

    def port_read(self, port: int, size: int) -> int:
        answer = self.answers.get(port)
        value = answer(size) if answer else (1 << 8 * size) - 1
        self.log.append(Access("port", "read", port, size, value))
        return value

    def port_write(self, port: int, size: int, value: int) -> None:
        self.log.append(Access("port", "write", port, size, value))
        reaction = self.reactions.get(port)
        if reaction:
            reaction(value)

    def mmio_read(self, addr: int, size: int) -> int:
        self._fail_if_faulty()
        at = addr - guests.DEVICE
        inside = 0 <= at <= len(self.device) - size
        value = int.from_bytes(self.device[at : at + size], "little") if inside else (1 << 8 * size) - 1
        self.log.append(Access("mmio", "read", addr, size, value))
        return value

    def mmio_write(self, addr: int, size: int, value: int) -> None:
        self._fail_if_faulty()
        self.log.append(Access("mmio", "write", addr, size, value))
        at = addr - guests.DEVICE
        if 0 <= at <= len(self.device) - size:
            self.device[at : at + size] = value.to_bytes(size, "little")
        self.on_mmio_write(value)

    def _fail_if_faulty(self) -> None:
        if self.faulty:
            raise ZeroDivisionError("a bug in a device")


class Guest:
    """One virtual machine with one tiny program, which begins at its label `start`."""

    def __init__(self, engine: Engine, source: str, *, memory_mib: int = 16, vcpus: int = 1) -> None:
        self.engine = engine
        self.program: Program = assemble(guests.PRELUDE + source, guests.PROGRAM)
        self.memory = GuestMemory(memory_mib * MIB)
        self.bus = GuestBus(self._end)
        self.result = -1
        self.stop: Stop | None = None
        """Why a runner came back for another reason than a kick."""
        self.kicked = 0
        """How often `run` has returned KICKED."""
        self.between_runs: Callable[[Runner], None] = lambda runner: None
        """Called on the runner's thread whenever `run` has returned KICKED and will be entered again."""
        self._lines: dict[int, Callable[[], None]] = {}
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._fill_memory(vcpus)
        self.vm = engine.create_vm(self.memory, vcpus, self.bus)
        boot = self.vm.vcpus[0]
        boot.load(guests.boot_state(boot.save(), self.label("start")))

    def label(self, name: str) -> int:
        """Give the address of a label of the program."""
        return self.program.labels[name]

    def numbers(self, where: str | int, count: int = 1, size: int = 8) -> list[int]:
        """Read little-endian numbers at a label or an address."""
        addr = self.label(where) if isinstance(where, str) else where
        return list(struct.unpack(f"<{count}{'?BH?I???Q'[size]}", self.memory.read(addr, count * size)))

    def number(self, where: str | int, size: int = 8) -> int:
        """Read one number at a label or an address."""
        return self.numbers(where, 1, size)[0]

    def pulse(self, gsi: int) -> None:
        """Raise and lower an interrupt line of the present virtual machine."""
        line = self._lines.get(gsi)
        if line is None:
            line = self._lines[gsi] = self.vm.line(gsi)
        line()

    def pulse_and_wait(self, gsi: int) -> None:
        """Raise and lower a line, and give the interrupt time to arrive: on kvm the kernel has a work queue for it."""
        self.pulse(gsi)
        if self.vm.bus_lock is not None:
            time.sleep(_ARRIVAL_S)

    def traps(self) -> list[guests.Trap]:
        """Read the trap log."""
        count = min(self.number(guests.LOG_COUNT), guests.LOG_RECORDS)
        return [guests.Trap(*self.numbers(guests.LOG + 64 * index, 8)) for index in range(count)]

    def run(self, patience_s: float = PATIENCE_S) -> int:
        """Run all CPUs until the guest ends itself; may be repeated. Gives the guest's result."""
        stop = self.run_to_stop(patience_s)
        if stop is not None:
            self._excuse(stop)
            pytest.fail(f"run() returned {stop}\n{self.describe()}")
        return self.result

    def run_to_stop(self, patience_s: float = PATIENCE_S) -> Stop | None:
        """Run until the guest ends itself (None) or a runner returns for another reason than a kick."""
        self._ended.clear()
        self.stop = None
        threads = [threading.Thread(target=self._drive, args=(r,), daemon=True) for r in self.vm.runners]
        for thread in threads:
            thread.start()
        in_time = self._ended.wait(patience_s)
        self._bring_home(threads)
        if self._error is not None:
            raise self._error
        if not in_time:
            pytest.fail(f"the guest did not end in {patience_s} s\n{self.describe()}")
        return self.stop

    def run_once(self, patience_s: float = PATIENCE_S) -> Stop:
        """Enter `run` of the only runner once, on a thread as ever, and give what it returns."""
        stops: list[Stop] = []
        thread = threading.Thread(target=lambda: stops.append(self.vm.runners[0].run()), daemon=True)
        thread.start()
        thread.join(patience_s)
        if thread.is_alive():
            self._bring_home([thread])
            pytest.fail(f"run() did not return in {patience_s} s\n{self.describe()}")
        return stops[0]

    def _excuse(self, stop: Stop) -> None:
        """Blame an emulator in the host's kernel for an instruction that it does not know; real KVM has no excuse."""
        if "INTERNAL_ERROR" in stop.detail and emulates(self.engine.name):
            pytest.xfail("this host's KVM emulates guest code, and does not know an instruction of this guest")

    @contextlib.contextmanager
    def kicked_often(self) -> Iterator[None]:
        """Kick all runners from another thread, at random moments, until the block ends."""
        over = threading.Event()
        chance = random.Random(4711)

        def storm() -> None:
            while not over.is_set():
                self.kick()
                time.sleep(chance.choice((0, 0.00005, 0.0001, 0.0004)))

        thread = threading.Thread(target=storm, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def kick(self) -> None:
        """Kick every runner once."""
        for runner in self.vm.runners:
            runner.kick()

    def thaw(self, *, chips_first: bool = True) -> None:
        """Save everything, throw the virtual machine away and go on in a new one over the same memory."""
        chips, states = self.vm.save(), [vcpu.save() for vcpu in self.vm.vcpus]
        self.vm.close()
        self._lines.clear()
        self.vm = self.engine.create_vm(self.memory, len(states), self.bus)
        if chips_first:
            self.vm.load(chips)
        for vcpu, state in zip(self.vm.vcpus, states, strict=True):
            vcpu.load(state)
        if not chips_first:
            self.vm.load(chips)

    def describe(self) -> str:
        """Show registers, traps and the last accesses, for a failed test."""
        lines = []
        for index, vcpu in enumerate(self.vm.vcpus):
            state = vcpu.save()
            words = ", ".join(f"{name}={getattr(state.regs, name):#x}" for name in state.regs.__struct_fields__)
            lines.append(f"cpu {index}: mp_state={state.mp_state}, {words}, cs={state.sregs.cs.selector:#x}")
        lines += [f"trap: {', '.join(f'{k}={v:#x}' for k, v in t._asdict().items())}" for t in self.traps()[-8:]]
        lines += [f"bus: {access}" for access in self.bus.log[-8:]]
        near = sorted((at, name) for name, at in self.program.labels.items())
        return "\n".join([*lines, f"labels: {', '.join(f'{name}={at:#x}' for at, name in near if at > 0x101000)}"])

    def close(self) -> None:
        """Free the virtual machine, then its memory."""
        self.vm.close()
        self.memory.close()

    def _fill_memory(self, vcpus: int) -> None:
        guests.write_tables(self.memory)
        self.memory.write(guests.PROGRAM, self.program.code)
        if vcpus > 1:
            trampoline = assemble("trampoline:" + guests.TRAMPOLINE_SOURCE, guests.TRAMPOLINE)
            self.memory.write(guests.TRAMPOLINE, trampoline.code)
            self.memory.write(guests.AP_ENTRY, struct.pack("<Q", self.label("ap_start")))

    def _end(self, value: int) -> None:
        self.result = value
        self._ended.set()
        self.kick()

    def _drive(self, runner: Runner) -> None:
        try:
            while not self._ended.is_set():
                stop = runner.run()
                if stop.reason is not Reason.KICKED:
                    self.stop = stop
                    return
                self.kicked += 1
                if not self._ended.is_set():
                    self.between_runs(runner)
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def _bring_home(self, threads: list[threading.Thread]) -> None:
        self._ended.set()
        deadline = time.monotonic() + _LAST_WORDS_S
        while any(thread.is_alive() for thread in threads):
            self.kick()
            for thread in threads:
                thread.join(0.02)
            if time.monotonic() > deadline:
                pytest.exit("a runner ignores kicks: nothing can be said about any later test", 3)


class Boot(Protocol):
    """Boots a guest, which is freed when the test is over (the fixture `boot`)."""

    def __call__(self, source: str, *, memory_mib: int = 16, vcpus: int = 1) -> Guest: ...
