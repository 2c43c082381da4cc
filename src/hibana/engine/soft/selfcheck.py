"""A tiny guest, run in the VM's own machine and memory before anything else: does the rebuilt CPU work?

The engine stands on internals of one library. The probe has shown that they are where they should be; this shows that
they do what they should: exceptions and a SYSCALL reach the guest's handlers, an interrupt comes when IF allows it,
interrupting the guest neither loses nor repeats an instruction, flags are what they should be, and changed code is
noticed whoever changed it.
What was in the memory it borrows is put back. `selfcheck.S` is the guest's half.
"""

import _thread
import ctypes
from struct import pack, unpack
from typing import Final

from hibana.engine.soft import clock, cpu_state
from hibana.engine.soft.alarm import Alarm
from hibana.engine.soft.library import PICK
from hibana.engine.soft.offsets import UC
from hibana.engine.soft.processor import Processor
from hibana.engine.soft.selfcheck_code import CODE, LABELS
from hibana.engine.state import DebugRegs, DescriptorTable, Fpu, Regs, Segment, Sregs, VcpuEvents, VcpuState
from hibana.memory.guest import GuestMemory
from hibana.units import PAGE

_PML4: Final = 0x1000
_PDPT: Final = 0x2000
_PD: Final = 0x3000
_PT: Final = 0x4000
_HIGH: Final = 0x5000
_CODE: Final = 0x6000
_STACK_TOP: Final = 0x9000
_RESULTS: Final = 0x9000
_STOP: Final = _RESULTS + 0x60
_GDT: Final = 0x9400
_IDT: Final = 0x9800
_TARGET: Final = 0xA000
_ALIAS: Final = 0xC000
_FRAMES: Final = 0xD000
_END: Final = 0xF000
_LAST_ENTRY: Final = 8 * 511

_USABLE: Final = 7  # page table entry: present, writable, user
_NO_EXECUTE: Final = 1 << 63
_GATE: Final = 0x8E00  # present, DPL 0, 64-bit interrupt gate
_CODE_SELECTOR: Final = 0x08
_DESCRIPTORS: Final = (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF)
_VECTOR: Final = 0x20
_HANDLERS: Final = {3: "breakpoint", 6: "undefined_instruction", 14: "page_fault", _VECTOR: "interrupt"}

_UNMAPPED: Final = 0x40000000
_BELOW: Final = 0x87  # SF PF CF and the bit that is always set
_EQUAL: Final = 0x40  # ZF
_KICKS: Final = 16
_KICK_NS: Final = 100_000
_PATIENCE_NS: Final = 10_000_000_000
_FIRST: Final = bytes.fromhex("b8 03000000 c3")  # mov eax, 3; ret
_SECOND: Final = bytes.fromhex("b8 04000000 c3")


def broken(processor: Processor, memory: GuestMemory) -> str:
    """Run the guest. Name something that does not work; empty when everything does."""
    before, pick = memory.read(0, _END), processor.code.get("pick")
    try:
        memory.write(0, _image())
        return next(iter(_Check(processor, memory).findings()), "")
    finally:
        memory.write(0, before)
        processor.code.set("pick", pick)
        processor.set_image(processor.reset_image)


def _image() -> bytes:
    """Build the guest's memory."""
    image = bytearray(_END)
    for table, entry in ((_PML4, _PDPT), (_PDPT, _PD), (_PD, _PT)):
        image[table : table + 8] = pack("<Q", entry | _USABLE)
    # One page is all tables of the highest addresses at once: its last entry leads back to it.
    for table in (_PML4, _HIGH):
        image[table + _LAST_ENTRY : table + PAGE] = pack("<Q", _HIGH | _USABLE)
    image[_FRAMES], image[_FRAMES + PAGE] = 1, 2
    pages = [page << 12 | _USABLE for page in range(_END // PAGE)]
    pages[_ALIAS // PAGE] = _TARGET | _USABLE | _NO_EXECUTE
    image[_PT : _PT + 8 * len(pages)] = pack(f"<{len(pages)}Q", *pages)
    for vector, handler in _HANDLERS.items():
        at = _IDT + 16 * vector
        image[at : at + 8] = pack("<HHHH", _CODE + LABELS[handler], _CODE_SELECTOR, _GATE, 0)
    image[_GDT : _GDT + 24] = pack("<3Q", *_DESCRIPTORS)
    image[_CODE : _CODE + len(CODE)] = CODE
    return bytes(image)


def _state() -> VcpuState:
    """Describe a CPU in 64-bit mode at the guest's first instruction."""
    code = Segment(0, 0xFFFFFFFF, _CODE_SELECTOR, 11, l=1, g=1)
    flat = Segment(0, 0xFFFFFFFF, 0x10, 3, db=1, g=1)
    none = Segment(present=0, unusable=1)
    sregs = Sregs(
        cs=code, ds=flat, es=flat, fs=flat, gs=flat, ss=flat, tr=none, ldt=none,
        gdt=DescriptorTable(_GDT, 23), idt=DescriptorTable(_IDT, 16 * (_VECTOR + 1) - 1),
        cr0=0x80000011, cr3=_PML4, cr4=0x20, efer=0xD01,
    )  # fmt: skip
    regs = Regs(rip=_CODE, rsp=_STACK_TOP)
    return VcpuState(regs, sregs, Fpu(), DebugRegs(), VcpuEvents(), {}, b"")


class _Check:
    """The parts of the check, in the order of the guest's code."""

    def __init__(self, processor: Processor, memory: GuestMemory) -> None:
        self._processor = processor
        self._memory = memory
        self._wanted_exit = processor.code.byte("wanted_exit")
        self._wanted_interrupt = processor.code.byte("wanted_interrupt")
        self._nested_level = ctypes.c_int32.from_address(processor.handle + UC.nested_level)
        self._depth = 0
        self._alarm = Alarm(_thread.get_native_id())
        processor.set_callback("pick", PICK(self._pick))
        image = bytearray(processor.reset_image.raw)
        cpu_state.import_state(image, _state(), 0)
        start = processor.new_image()
        start.raw = bytes(image)
        processor.set_image(start)
        processor.derive()

    def findings(self) -> list[str]:
        """Run everything; say what is wrong."""
        try:
            return (
                self._events()
                or self._kicks()
                or self._flags()
                or self._aliases()
                or self._rewritten()
                or self._host_writes()
                or self._address_spaces()
            )
        finally:
            self._alarm.close()
            self._wanted_exit.value = self._wanted_interrupt.value = 0

    def _pick(self) -> int:
        self._depth = self._nested_level.value
        self._wanted_interrupt.value = 0
        return _VECTOR

    def _run(self, label: str) -> bool:
        """Run from a label to HLT. False: it did not get there."""
        self._processor.eip.value = _CODE + LABELS[label]
        return self._go_on(_PATIENCE_NS)

    def _go_on(self, limit_ns: int) -> bool:
        """Run for some time at most; tell whether the guest has halted."""
        processor = self._processor
        self._wanted_exit.value = 0
        self._alarm.set(clock.now() + limit_ns)
        error = processor.start(processor.handle, processor.eip.value, 0, 0, 0)
        halted = not error and processor.halted.value != 0
        processor.halted.value = 0
        return halted

    def _results(self) -> tuple[int, ...]:
        return unpack("<12Q", self._memory.read(_RESULTS, 96))

    def _events(self) -> list[str]:
        """Exceptions, SYSCALL and SYSRET, an interrupt after STI."""
        self._wanted_interrupt.value = 1
        arrived = self._run("start")
        (undefined, fault_code, fault_addr, trap_rip, user_cs, flags, rcx, r11, kernel_cs, _, interrupts, fault_rip) = (
            self._results()
        )
        findings = {
            "an undefined instruction does not reach the guest": undefined == 1,
            "a page fault does not reach the guest": (fault_addr, fault_code) == (_UNMAPPED, 0)
            and fault_rip == _CODE + LABELS["faulting"],
            "a breakpoint does not reach the guest": trap_rip == _CODE + LABELS["behind_breakpoint"],
            "SYSRET does not reach user mode": user_cs == 0x2B,
            "SYSCALL does not save the user's registers": (rcx, r11 & 0xED7)
            == (_CODE + LABELS["behind_system_call"], 0x403),
            "SYSCALL does not reach the kernel": (kernel_cs, flags & 0x401) == (_CODE_SELECTOR, 1),
            "an interrupt does not arrive after STI": interrupts == 1,
            "HLT does not halt": arrived,
            "the library does not count its own calls": (self._depth, self._nested_level.value) == (1, 0),
        }
        return [what for what, fine in findings.items() if not fine]

    def _kicks(self) -> list[str]:
        """Count under fire: with an instruction repeated, memory is ahead of the register."""
        self._processor.eip.value = _CODE + LABELS["count"]
        for _ in range(_KICKS):
            self._go_on(_KICK_NS)
        self._memory.write(_STOP, b"\1")
        self._go_on(_PATIENCE_NS)
        counted = self._results()[9]
        fine = counted == self._processor.regs[1] > 0
        return [] if fine else ["interrupting the guest repeats or loses instructions"]

    def _flags(self) -> list[str]:
        """Look at flags that the translator knows and the CPU does not."""
        self._run("flags")
        fine = (self._processor.regs[0], self._processor.regs[3]) == (_BELOW, _BELOW | _EQUAL)
        return [] if fine else ["flags do not survive LOOPNE and CMPXCHG16B"]

    def _aliases(self) -> list[str]:
        """Execute code that was changed through another mapping."""
        self._run("alias")
        rax, rbx = self._processor.regs[0], self._processor.regs[3]
        return [] if (rbx, rax) == (1, 2) else ["code that changes through another mapping is not noticed"]

    def _rewritten(self) -> list[str]:
        """Execute code that is rewritten again and again, in its own page, in the next, and beside other functions."""
        arrived = self._run("rewrite")
        rounds, wrong = self._processor.regs[3], self._processor.regs[5]
        return [] if arrived and rounds and not wrong else ["code that rewrites code is not noticed"]

    def _address_spaces(self) -> list[str]:
        """Change mappings by a write of CR3, through tables that lead back to themselves."""
        arrived = self._run("address_spaces")
        rounds, wrong = self._processor.regs[3], self._processor.regs[5]
        return [] if arrived and rounds and not wrong else ["a write of CR3 leaves old mappings behind"]

    def _host_writes(self) -> list[str]:
        """Execute code that the host has changed."""
        seen = []
        for code in (_FIRST, _SECOND):
            self._memory.write(_TARGET, code)
            self._run("dma")
            seen.append(self._processor.regs[0])
        return [] if seen == [3, 4] else ["code that a device changes is not noticed"]
