"""The thread that runs guest code: all vCPUs in turn on one CPU.

    look: kicked? failed? timers due? → choose a vCPU → enter the library → why did it come back? → look

Nothing interrupts this loop. A kick, a timer, a device that pulses a line of a sleeping vCPU: each sets a flag that
`look` reads and makes the library return, which takes a few translation blocks. The library comes back by itself at
HLT and, when another vCPU could use the time, at PAUSE, because a CPU that spins waits for one that does not run.
A vCPU keeps the CPU until it halts, spins, or its slice ends; with nobody else waiting there are no slices.

`wanted_exit` is cleared before the flags are read, and whoever sets a flag sets `wanted_exit` after it. So whatever
happens between the two is seen in the next round at the latest.
"""

import _thread
import sys
from collections.abc import Sequence
from typing import Final

from hibana.engine.interface import KICKED, SHUTDOWN, Reason, Stop
from hibana.engine.soft import alarm, clock
from hibana.engine.soft.alarm import Alarm
from hibana.engine.soft.fast.console import Console
from hibana.engine.soft.interrupts import Interrupts
from hibana.engine.soft.processor import Processor
from hibana.engine.soft.vcpu import INTERRUPT_FLAG, SoftVcpu
from hibana.engine.state import HALTED, INIT_RECEIVED, RUNNABLE, UNINITIALIZED
from hibana.observe.failure import described

SLICE_NS: Final = 2_000_000

_LEAVE_BLOCK: Final = 0xFFFF
_SAME_TSC: Final = 1 << 32


class SoftRunner:
    """Runs all vCPUs of a VM; what the interrupt chips call `Cpus`."""

    def __init__(self, processor: Processor, vcpus: Sequence[SoftVcpu]) -> None:
        self._processor = processor
        self._vcpus = vcpus
        self.current = vcpus[0]
        self.interrupts = Interrupts(len(vcpus), self, clock.now)
        code = processor.code
        self._wanted_exit = code.byte("wanted_exit")
        self._wanted_interrupt = code.byte("wanted_interrupt")
        self._wanted_nmi = code.byte("wanted_nmi")
        self._others_runnable = code.byte("others_runnable")
        self._alarm: Alarm | None = None
        self._alarm_thread = 0
        self._thread = 0
        """The thread inside `run`; 0 while there is none."""
        self._kicked = False
        self._failure = ""
        self._gives_way = False
        """The current vCPU has nothing to do, or has had its slice."""
        self._slice_end = 0
        self._tsc_offset = 0
        self.console: Console | None = None
        """Where bytes may be waiting on their way to a serial port; not between two runs."""

    # --- what the VMM asks --------------------------------------------------------------------------------------------

    def run(self) -> Stop:
        """Run guest code until only the VMM can go on; a halted guest waits inside."""
        if why := self._processor.why_not():
            return self._cannot_go_on(why)
        thread = _thread.get_native_id()
        if thread != self._alarm_thread:
            self._attach(thread)
        self._thread = thread
        try:
            return self._loop()
        finally:
            self._thread = 0

    def kick(self) -> None:
        """Make `run` return KICKED soon. Safe from any thread, any number of times."""
        self._kicked = True
        thread = self._thread
        if thread:
            alarm.poke(thread)

    def close(self) -> None:
        """Give the timer back."""
        if self._alarm:
            self._alarm.close()
            self._alarm = None

    def _attach(self, thread: int) -> None:
        """Point the timer at the thread that runs now; after a fork, too, there is no timer yet."""
        self.close()
        alarm.admit()
        self._alarm = Alarm(thread)
        self._alarm_thread = thread

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _loop(self) -> Stop:
        assert self._alarm
        while True:
            self._wanted_exit.value = 0
            if self._failure:
                failure, self._failure = self._failure, ""
                return Stop(Reason.FAILED, failure)
            if self._kicked:
                self._kicked = False
                return KICKED
            now = clock.now()
            if self._alarm.due and self._alarm.due <= now:
                self._alarm.due = None  # it has rung
            self.interrupts.expire()
            if self.current.restarted:
                self.current.restarted = False
                self._processor.set_image(self.current.image)
            vcpu = self._choose(now)
            self._set_alarm()
            if not vcpu:
                alarm.wait(self._wanted_exit)
            elif stop := self._enter(vcpu):
                return stop

    def _choose(self, now: int) -> SoftVcpu | None:
        """Pick the vCPU that goes on: the current one until it gives way, then the next in the circle."""
        current = self.current
        runnable = [vcpu for vcpu in self._vcpus if self._can_run(vcpu)]
        crowded = len(runnable) > 1
        self._others_runnable.value = crowded
        if not crowded:
            return runnable[0] if runnable else None
        if current in runnable and not self._gives_way and now < self._slice_end:
            return current
        self._slice_end = now + SLICE_NS
        return next((vcpu for vcpu in runnable if vcpu.index > current.index), runnable[0])

    def _can_run(self, vcpu: SoftVcpu) -> bool:
        if vcpu.mp_state == HALTED:
            return self.nmi_pending(vcpu) or (vcpu.listens and self.interrupts.pending(vcpu.index))
        return vcpu.mp_state == RUNNABLE

    def _enter(self, vcpu: SoftVcpu) -> Stop | None:
        """Run one vCPU until the library comes back; say so if it cannot be entered again."""
        processor = self._processor
        if vcpu is not self.current:
            self._switch(vcpu)
        vcpu.mp_state = RUNNABLE
        self._gives_way = False
        self._wanted_interrupt.value = self.interrupts.pending(vcpu.index)
        error = processor.start(processor.handle, processor.eip.value, 0, 0, 0)
        self.settle()
        if why := processor.why_not(error):
            return self._cannot_go_on(why)
        if processor.halted.value:
            processor.halted.value = 0
            vcpu.listens = processor.eflags.value & INTERRUPT_FLAG != 0
            if vcpu.mp_state == RUNNABLE:  # it may have received INIT just before
                vcpu.mp_state = HALTED
            self._gives_way = True
        elif processor.stopped.value:
            return SHUTDOWN
        elif not self._wanted_exit.value:
            self._gives_way = True  # PAUSE
        return None

    def _cannot_go_on(self, why: str) -> Stop:
        rip = self._processor.eip.value
        return Stop(Reason.FAILED, f"vCPU {self.current.index} cannot go on at RIP {rip:#x}: {why}.")

    def _switch(self, vcpu: SoftVcpu) -> None:
        leaving = self.current
        leaving.nmi = self._wanted_nmi.value != 0
        self._wanted_nmi.value = vcpu.nmi
        self._processor.swap(leaving.image, vcpu.image)
        self.current = vcpu

    def _set_alarm(self) -> None:
        """Let the timer ring at the next deadline of a chip or at the end of the slice."""
        due = self.interrupts.next_deadline()
        if self._others_runnable.value:
            due = self._slice_end if due is None else min(due, self._slice_end)
        if self.console and self.console.due:
            due = self.console.due if due is None else min(due, self.console.due)
        if self._alarm and due != self._alarm.due:
            self._alarm.set(due)

    # --- what happens while guest code runs, always on this thread ----------------------------------------------------

    def fail(self) -> None:
        """End `run` with FAILED because of the exception being handled: a device broke."""
        error = sys.exception()
        assert error
        self._failure = self._failure or described(error)
        self._leave()

    def printed(self, port: int) -> None:
        """Let further bytes wait for each other, if this port is the console's."""
        if self.console and port == self.console.data_port and self.console.begin():
            self._set_alarm()

    def settle(self) -> None:
        """Let nothing wait: every byte that the guest has printed is with the chip."""
        console = self.console
        if console and console.due:
            try:
                console.end()
            except BaseException:
                self.fail()

    def _leave(self) -> None:
        self._wanted_exit.value = 1
        self._processor.kick_word.value = _LEAVE_BLOCK

    def pick(self) -> int:
        """Take the vector that the current vCPU is to serve now; -1 if there is none after all."""
        index = self.current.index
        vector = self.interrupts.acknowledge(index)
        self._wanted_interrupt.value = self.interrupts.pending(index)
        return vector

    def interrupt(self, index: int) -> None:
        """Make vCPU `index` look at its local APIC, waking it if it is halted."""
        vcpu = self._vcpus[index]
        if vcpu is self.current:
            self._wanted_interrupt.value = self.interrupts.pending(index)
            self._processor.kick_word.value = _LEAVE_BLOCK
        elif vcpu.mp_state == HALTED:
            self._leave()

    def nmi(self, index: int) -> None:
        """Deliver a non-maskable interrupt."""
        vcpu = self._vcpus[index]
        if vcpu is self.current:
            self._wanted_nmi.value = 1
            self._processor.kick_word.value = _LEAVE_BLOCK
        else:
            vcpu.nmi = True
            self._leave()

    def init(self, index: int) -> None:
        """Stop a vCPU until a start-up message comes."""
        vcpu = self._vcpus[index]
        vcpu.mp_state = INIT_RECEIVED
        self.set_nmi_pending(vcpu, False)
        self._leave()

    def start_up(self, index: int, vector: int) -> None:
        """Start a waiting vCPU in real mode at `vector` << 12."""
        vcpu = self._vcpus[index]
        if vcpu.mp_state in (INIT_RECEIVED, UNINITIALIZED):
            vcpu.restart(self._processor.reset_image, vector, self._tsc_offset)
            vcpu.restarted = vcpu is self.current
            self._leave()

    def timer_changed(self) -> None:
        """Follow a deadline that moved."""
        if self._thread:
            self._set_alarm()

    # --- registers, while nothing runs --------------------------------------------------------------------------------

    def nmi_pending(self, vcpu: SoftVcpu) -> bool:
        """Tell whether an NMI waits for a vCPU."""
        return self._wanted_nmi.value != 0 if vcpu is self.current else vcpu.nmi

    def set_nmi_pending(self, vcpu: SoftVcpu, pending: bool) -> None:
        """Replace that."""
        if vcpu is self.current:
            self._wanted_nmi.value = pending
        else:
            vcpu.nmi = pending

    def agree_on_tsc(self, offset: int) -> int:
        """Give the offset of the time-stamp counter for a vCPU that wants one close to the others'.

        vCPUs are saved and loaded one after the other, each with its counter at that moment; a guest must not see one
        ahead of another. As KVM does: values less than about a second apart mean the same.
        """
        apart = (offset - self._tsc_offset + (1 << 63)) % (1 << 64) - (1 << 63)
        if abs(apart) > _SAME_TSC:
            self._tsc_offset = offset
        return self._tsc_offset

    def registers(self, vcpu: SoftVcpu) -> bytes:
        """Copy the registers of a vCPU."""
        return (self._processor.new_image() if vcpu is self.current else vcpu.image).raw

    def set_registers(self, vcpu: SoftVcpu, content: bytes | bytearray) -> None:
        """Replace the registers of a vCPU."""
        processor, image = self._processor, vcpu.image
        image.raw = bytes(content)
        vcpu.restarted = False
        if vcpu is self.current:
            processor.set_image(image)
            processor.derive()
        else:
            processor.swap(self.current.image, image)
            processor.derive()
            processor.swap(image, self.current.image)
