"""The thread that runs one vCPU: into KVM_RUN, and out again whenever the guest wants something of a device.

    KVM_RUN → why did it come back? → carry the access to the bus, the answer into the shared page → KVM_RUN

An access is finished by the next KVM_RUN, before anything else: only then the guest's registers are those after the
instruction. That is why `run` returns KICKED only when KVM_RUN has said EINTR: it has finished what was under way, and
registers may be saved. A kick sets `immediate_exit` first, which makes the kernel say so before it enters the guest,
and then signals the thread, which makes it say so if it has entered already; so no kick is lost. A signal whose kick
has been answered already finds the byte clear, and changes nothing.

The bus is called directly, and with as little around it as possible, because on this path every microsecond counts. The
interpreter lock is released inside KVM_RUN. One more lock is held while a runner is on the bus: devices are called by
one thread at a time, by this one or by the loop's.
"""

import _thread
import mmap
from errno import EAGAIN, EINTR, ENOSYS
from fcntl import ioctl
from threading import Lock
from typing import Final

from hibana.engine.interface import KICKED, SHUTDOWN, Bus, Reason, Stop
from hibana.engine.kvm import abi, kick
from hibana.errors import os_text
from hibana.observe import log

_io_exit: Final = abi.EXIT_IO.unpack_from
_mmio_exit: Final = abi.EXIT_MMIO.unpack_from
_MASKS: Final = {size: (1 << 8 * size) - 1 for size in (1, 2, 4, 8)}
_EXIT_REASON: Final = abi.RUN_EXIT_REASON // 4
_UNION: Final = abi.RUN_UNION
_MMIO_DATA: Final = abi.RUN_MMIO_DATA
_EXIT_NAMES: Final = {
    0: "Unknown",
    1: "Exception",
    3: "Hypercall",
    4: "Debug",
    5: "Hlt",
    7: "IrqWindowOpen",
    11: "SetTpr",
    12: "TprAccess",
    16: "Nmi",
    21: "Watchdog",
    26: "IoapicEoi",
    29: "X86Rdmsr",
    30: "X86Wrmsr",
}
"""What else the kernel may come back with, as the reference writes it; with its chips in the kernel, never does."""
_ENDINGS: Final = (abi.KVM_SYSTEM_EVENT_SHUTDOWN, abi.KVM_SYSTEM_EVENT_RESET)


class KvmRunner:
    """Runs one vCPU on the thread that calls `run`."""

    def __init__(self, fd: int, page_size: int, bus: Bus, lock: Lock) -> None:
        """Map the page that the kernel shares with us; hold `lock` while on the bus. Raises OSError."""
        self._fd = fd
        self._bus = bus
        self._lock = lock
        self._page = mmap.mmap(fd, page_size)
        self._bytes = memoryview(self._page)
        self._words = self._bytes.cast("I")
        shorts, longs = self._bytes.cast("H"), self._bytes.cast("Q")
        self._views = {1: self._bytes, 2: shorts, 4: self._words, 8: longs}
        """Bytes in an access → the page in numbers of that size."""
        self._thread = 0
        """The thread inside `run`; 0 while there is none."""

    def run(self) -> Stop:
        """Run guest code until only the VMM can go on; a halted guest waits inside."""
        self._thread = _thread.get_native_id()
        try:
            return self._loop()
        except Exception:
            from traceback import format_exc  # 7 ms that nobody else has to wait for

            return Stop(Reason.FAILED, format_exc())
        finally:
            self._thread = 0

    def kick(self) -> None:
        """Make `run` return KICKED soon. Safe from any thread, any number of times, even after `close`."""
        try:
            self._bytes[abi.RUN_IMMEDIATE_EXIT] = 1
        except ValueError:  # released: nobody runs any more
            return
        thread = self._thread
        if thread:
            kick.poke(thread)

    def close(self) -> None:
        """Give the page back."""
        for view in reversed(self._views.values()):
            view.release()
        self._page.close()

    def _loop(self) -> Stop:
        fd, words, lock = self._fd, self._words, self._lock
        run, port, mmio = abi.KVM_RUN, self._port, self._mmio
        while True:
            try:
                ioctl(fd, run, 0)
            except OSError as error:
                if stop := self._interrupted(error):
                    return stop
                continue
            reason = words[_EXIT_REASON]
            if reason == abi.KVM_EXIT_IO:
                with lock:
                    port()
            elif reason == abi.KVM_EXIT_MMIO:
                with lock:
                    mmio()
            elif stop := self._rare(reason):
                return stop

    def _port(self) -> None:
        """Carry out IN or OUT; string instructions bring several elements at once."""
        direction, size, port, count, offset = _io_exit(self._bytes, _UNION)
        if direction and size == count == 1:  # a console: nothing else is as frequent
            self._bus.port_write(port, 1, self._bytes[offset])
            return
        view = self._views[size]
        at = offset // size
        while count:
            if direction:
                self._bus.port_write(port, size, view[at])
            else:
                view[at] = self._bus.port_read(port, size) & _MASKS[size]
            at += 1
            count -= 1

    def _mmio(self) -> None:
        """Carry out a read or a write of memory that is not RAM."""
        addr, size, is_write = _mmio_exit(self._bytes, _UNION)
        view = self._views.get(size)
        if view is None:
            self._odd_mmio(addr, size, is_write)
        elif is_write:
            self._bus.mmio_write(addr, size, view[_MMIO_DATA // size])
        else:
            view[_MMIO_DATA // size] = self._bus.mmio_read(addr, size) & _MASKS[size]

    def _odd_mmio(self, addr: int, size: int, is_write: int) -> None:
        """Carry out part of an access that crosses a page, 3 or 5 to 7 bytes long: byte by byte."""
        for index in range(size):
            if is_write:
                self._bus.mmio_write(addr + index, 1, self._bytes[_MMIO_DATA + index])
            else:
                self._bytes[_MMIO_DATA + index] = self._bus.mmio_read(addr + index, 1) & 0xFF

    def _interrupted(self, error: OSError) -> Stop | None:
        """Say why KVM_RUN failed, unless it only wants to be called again."""
        if error.errno == EINTR:
            if not self._bytes[abi.RUN_IMMEDIATE_EXIT]:
                return None
            self._bytes[abi.RUN_IMMEDIATE_EXIT] = 0
            return KICKED
        if error.errno == EAGAIN:  # a CPU that has just got its INIT or SIPI
            return None
        if error.errno == ENOSYS:
            return Stop(Reason.ABORTED, "Received ENOSYS error because KVM failed to emulate an instruction.")
        return Stop(Reason.FAILED, os_text(error))

    def _rare(self, reason: int) -> Stop | None:
        """Say what ended the guest (machine.md §4.5)."""
        if reason == abi.KVM_EXIT_INTR:
            return None
        if reason == abi.KVM_EXIT_SHUTDOWN:
            return SHUTDOWN
        if reason == abi.KVM_EXIT_SYSTEM_EVENT:
            (event,) = abi.EXIT_SYSTEM_EVENT.unpack_from(self._page, _UNION)
            log.info(f"Received KVM_SYSTEM_EVENT: type: {reason}, event: [{event}]")
            return Stop(Reason.POWERED_OFF) if event in _ENDINGS else _unexpected("SystemEvent")
        if reason == abi.KVM_EXIT_FAIL_ENTRY:
            why, cpu = abi.EXIT_FAIL_ENTRY.unpack_from(self._page, _UNION)
            return Stop(Reason.ABORTED, f"Received KVM_EXIT_FAIL_ENTRY signal: {why} on cpu {cpu}")
        if reason == abi.KVM_EXIT_INTERNAL_ERROR:
            return Stop(Reason.ABORTED, "Received KVM_EXIT_INTERNAL_ERROR signal")
        return _unexpected(_EXIT_NAMES.get(reason, f"Unsupported({reason})"))


def _unexpected(name: str) -> Stop:
    return Stop(Reason.ABORTED, f"Unexpected exit reason on vcpu run: {name}")
