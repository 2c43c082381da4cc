"""The one x86 CPU of the library: opened, given a feature set and an address space, started and stopped.

A register of the running vCPU is a place in memory (`ENV`); a vCPU that does not run is a copy of all of them, an
image. Everything here belongs to the thread that runs the guest, or to whoever prepares it before that thread starts.
"""

import ctypes
from typing import Final

from hibana.engine.interface import SerialPort
from hibana.engine.soft import cpuid, machine_code, probe
from hibana.engine.soft.fast import switch
from hibana.engine.soft.fast.console import Console
from hibana.engine.soft.library import ARCH_X86, HOOK_INSN, HOOK_INTR, MODE_64, PROT_ALL, Library
from hibana.engine.soft.machine_code import MachineCode
from hibana.engine.soft.offsets import CC, CPU, ENV, REGION, UC
from hibana.engine.soft.table import Table
from hibana.errors import EngineError
from hibana.memory.guest import GuestMemory
from hibana.memory.layout import RAM_ABOVE_4G
from hibana.units import PAGE

PHYSICAL_END: Final = 1 << 63
"""Beyond what 64-bit page tables can name, and as far as the library can map."""

_CTL_USE_EXITS_ON: Final = 4 | 1 << 26 | 1 << 30  # UC_CTL_UC_USE_EXITS, one argument, write
_EXTERNAL_INTERRUPT: Final = 2  # CPU_INTERRUPT_HARD
_UNBOUNDED: Final = 1  # a hook that begins behind its end, 0, is for all addresses
_BREAKPOINTS_ENABLED: Final = 0xFF  # DR7
_DR7_CLEAR: Final = 0x400
_FEATURE_WORDS: Final = 34
_XCR0_X87: Final = 1

# Which CPUID register each feature word of the translator is: word → (leaf, register).
_FEATURES: Final = {
    0: (1, 3),
    1: (1, 2),
    2: (7, 1),
    3: (7, 2),
    4: (7, 3),
    6: (0x80000001, 3),
    7: (0x80000001, 2),
    8: (0x80000007, 3),
    9: (0x80000008, 1),
}

Image = ctypes.Array[ctypes.c_char]


class Processor:
    """The library's CPU. One at a time in a process, because the cells of the thunks describe it."""

    def __init__(self) -> None:
        library, self.code = machine_code.load()
        self._accelerations = switch.load()
        self._library = library
        self.handle = _open(library, self.code)
        self.cpu = ctypes.c_uint64.from_address(self.handle + UC.cpu).value
        self.env = self.cpu + CPU.env
        self.regs = (ctypes.c_uint64 * 16).from_address(self.env + ENV.regs)
        self.eip = ctypes.c_uint64.from_address(self.env + ENV.eip)
        self.eflags = ctypes.c_uint64.from_address(self.env + ENV.eflags)
        self.halted = ctypes.c_uint32.from_address(self.cpu + CPU.halted)
        self.stopped = ctypes.c_uint8.from_address(self.cpu + CPU.stopped)
        self._invalid_addr = ctypes.c_uint64.from_address(self.handle + UC.invalid_addr)
        self._gave_up = ctypes.c_uint64.from_address(self.code.cell("gave_up"))
        self._dr7 = ctypes.c_uint64.from_address(self.env + ENV.dr + 8 * 7)
        self.kick_word = ctypes.c_uint16.from_address(self._kick_address())
        self.start = library.uc_emu_start
        """(handle, eip, 0, 0, 0) → error: run until something wants the CPU back."""

        self._tlb_flush = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(self._accelerations.address("tlb_flush"))
        self._invalidate = library.function(
            "tb_invalidate_phys_range", None, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64
        )
        self._update_dr7 = library.function("cpu_x86_update_dr7", None, ctypes.c_uint64, ctypes.c_uint32)
        self._update_fp_status = library.function("update_fp_status", None, ctypes.c_uint64)
        self._update_mxcsr_status = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(self.code.entry("update_mxcsr_status"))
        self._regions: tuple[tuple[int, int, int], ...] = ()
        self._pages: Table | None = None
        """Which pages of RAM hold translated code."""
        self._callbacks: list[object] = []

        self._set_features()
        self.reset_image = self._reset()
        """The registers after RESET and, for want of a difference that matters, after INIT."""
        self._install()

    def _kick_address(self) -> int:
        return ctypes.c_uint64.from_address(self.cpu + CPU.icount_decr_ptr).value + CPU.kick

    def _set_features(self) -> None:
        """Teach the translator which instructions exist: exactly those that CPUID announces."""
        words = (ctypes.c_uint64 * _FEATURE_WORDS).from_address(self.env + ENV.features)
        for word in range(_FEATURE_WORDS):
            leaf, register = _FEATURES.get(word, (0, 0))
            words[word] = cpuid.answer(leaf, 0, 0, 1, 0)[register] if leaf else 0

    def _reset(self) -> Image:
        """Reset the CPU and copy its registers."""
        self._library.function("cpu_reset", None, ctypes.c_uint64)(self.cpu)
        self._library.function("cpu_x86_update_cr4", None, ctypes.c_uint64, ctypes.c_uint32)(self.env, 0)
        ctypes.c_uint64.from_address(self.env + ENV.xcr0).value = _XCR0_X87
        self.regs[2] = cpuid.answer(1, 0, 0, 1, 0)[0]  # RDX holds the CPU's signature
        return self.new_image()

    def _install(self) -> None:
        """Put the thunks into the CPU's own places."""
        code, place = self.code, ctypes.c_uint64.from_address
        classes = place(self.cpu + CPU.cc).value
        place(self.handle + UC.stop_interrupt).value = 0  # #UD goes to the guest like any other exception
        place(self.handle + UC.memory_mapping).value = code.entry("memory_mapping")
        place(classes + CC.cpu_exec_interrupt).value = code.entry("cpu_exec_interrupt")
        place(classes + CC.cpu_exec_exit).value = code.entry("cpu_exec_exit")
        # With this off, a kick between the load and the store of one instruction executes the load again.
        ctypes.c_uint8.from_address(self.handle + UC.no_exit_request).value = 1
        # Always set, so that the library asks `cpu_exec_interrupt`, which knows, each time it could deliver one.
        ctypes.c_uint32.from_address(self.cpu + CPU.interrupt_request).value = _EXTERNAL_INTERRUPT
        # Without this, reaching linear address 0, the value of "until", would end a run.
        self._library.function("uc_ctl", ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int)(
            self.handle, _CTL_USE_EXITS_ON, 1
        )
        self._hook(HOOK_INTR, code.entry("deliver_exception"), 0)
        code.set("kick_word", self._kick_address())
        code.set("cpu", self.cpu)

    # --- address space ------------------------------------------------------------------------------------------------

    def map_ram(self, memory: GuestMemory) -> None:
        """Map guest RAM, in the order of its regions, and invalidate translations when the host writes to it."""
        for region in memory.regions:
            self._check(
                "map RAM",
                self._library.uc_mem_map_ptr(
                    self.handle, region.start, region.size, PROT_ALL, memory.host_addr + region.offset
                ),
            )
        self._regions = tuple((region.start, region.end, region.offset - region.start) for region in memory.regions)
        code = self.code
        for region in memory.regions:
            name = {0: "low_ram", RAM_ABOVE_4G: "high_ram"}.get(region.start)
            if name:
                code.set(f"{name}_region", self._region(region.start))
                code.set(f"{name}_size", region.size)
        self._pages = Table(memory.size // PAGE)
        code.set("holds_code", self._pages.addr)
        code.set("ram", memory.host_addr)
        code.set("ram_size", memory.size)
        self._accelerations.attach()
        memory.on_write = self.invalidate

    def map_mmio(self, start: int, end: int, read: object, write: object) -> None:
        """Let accesses to [start, end) call `read` and `write`, which get `start` and an offset."""
        self._callbacks += (read, write)
        self._check(
            "map MMIO",
            self._library.uc_mmio_map(self.handle, start, end - start, _address(read), start, _address(write), start),
        )
        # As it stands, the library would split 8 bytes into two accesses; a CPU does not.
        operations = ctypes.c_uint64.from_address(self._region(start) + REGION.ops).value
        if ctypes.c_uint64.from_address(operations + REGION.ops_callback).value != _address(read):
            raise EngineError(cause="libunicorn does not keep memory regions where the soft engine expects them.")
        ctypes.c_uint32.from_address(operations + REGION.ops_largest_access).value = 8

    def hook_instruction(self, instruction: int, callback: object) -> None:
        """Call `callback` instead of executing an instruction."""
        self._callbacks.append(callback)
        self._hook(HOOK_INSN, _address(callback), instruction)

    def console(self, data_port: int, status_port: int, chip: SerialPort) -> Console | None:
        """Let bytes for a serial port wait for each other; None where that acceleration is off."""
        code = self._accelerations.on.get("console")
        return Console(code, data_port, status_port, chip) if code else None

    def set_callback(self, cell: str, callback: object) -> None:
        """Let the thunks call a function in Python."""
        self._callbacks.append(callback)
        self.code.set(cell, _address(callback))

    def _region(self, addr: int) -> int:
        """Find the library's record of the region an address lies in."""
        find = self._library.function("find_memory_mapping", ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
        return int(find(self.handle, addr))

    def _hook(self, kind: int, address: int, instruction: int) -> None:
        hook = ctypes.c_size_t()
        self._check(
            "uc_hook_add",
            self._library.uc_hook_add(self.handle, ctypes.byref(hook), kind, address, 0, _UNBOUNDED, 0, instruction),
        )

    def _check(self, what: str, error: int) -> None:
        if error:
            raise EngineError(cause=f"{what}: {self._library.error(error)}")

    def invalidate(self, addr: int, size: int) -> None:
        """Drop what was translated from guest-physical [addr, addr + size)."""
        for start, end, delta in self._regions:
            if start <= addr < end:
                self._invalidate(self.handle, addr + delta, min(addr + size, end) + delta)
                return

    # --- registers ----------------------------------------------------------------------------------------------------

    def new_image(self) -> Image:
        """Copy the registers."""
        image = ctypes.create_string_buffer(ENV.SIZE)
        ctypes.memmove(image, self.env, ENV.SIZE)
        return image

    def swap(self, leaving: Image, entering: Image) -> None:
        """Store the registers in one image and take them from another."""
        dr7 = self._dr7.value
        if dr7 & _BREAKPOINTS_ENABLED:  # breakpoints are kept outside the registers as well, for all vCPUs together
            self._update_dr7(self.env, _DR7_CLEAR)
            self._dr7.value = dr7
        ctypes.memmove(leaving, self.env, ENV.SIZE)
        self.set_image(entering)

    def set_image(self, image: Image) -> None:
        """Replace the registers by ones that came from `swap` or from a state."""
        ctypes.memmove(self.env, image, ENV.SIZE)
        dr7 = self._dr7.value
        if dr7 & _BREAKPOINTS_ENABLED:
            self._dr7.value = _DR7_CLEAR
            self._update_dr7(self.env, dr7)
        self._tlb_flush(self.cpu)

    def derive(self) -> None:
        """Recompute what the library keeps in a second form, after a state was imported."""
        self._update_fp_status(self.env)
        self._update_mxcsr_status(self.env)

    def why_not(self, error: int = 0) -> str:
        """Say why `start` failed, or would; empty when it did not."""
        if place := self._gave_up.value:
            return f"the library gave up at libunicorn.so.2+{place - self._library.base:#x}"
        if error:
            return f"{self._library.error(error)}, guest-physical address {self._invalid_addr.value:#x}"
        return ""

    def close(self) -> None:
        """Free the machine; only while nothing runs."""
        self._regions = ()  # the host may still write to the memory
        machine_code.release(self.code)
        self._accelerations.detach()
        self._library.uc_close(self.handle)
        self._accelerations.free()
        self._pages = None
        self._callbacks.clear()


def _open(library: Library, code: MachineCode) -> int:
    """Create the library's machine and see that it is the one we know."""
    if code.get("cpu"):
        raise EngineError(cause="the soft engine runs one microVM in a process, and this one has its microVM already.")
    handle = ctypes.c_uint64()
    if error := library.uc_open(ARCH_X86, MODE_64, ctypes.byref(handle)):
        raise EngineError(cause=f"uc_open: {library.error(error)}")
    library.uc_reg_read(handle, probe.RIP, ctypes.byref(ctypes.c_uint64()))  # makes the machine exist
    try:
        probe.prove(library, handle.value)
    except EngineError:
        library.uc_close(handle)
        raise
    return handle.value


def _address(callback: object) -> int:
    return ctypes.cast(callback, ctypes.c_void_p).value or 0  # type: ignore[arg-type]
