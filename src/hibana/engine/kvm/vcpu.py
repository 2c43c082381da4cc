"""A virtual CPU of the kernel's, seen from outside while it does not run: its state, out and in.

The order matters (machine.md §4.8). Out: reading `mp_state` settles INIT and SIPI, which change the local APIC, so it
comes first. In: CPUID is there from the beginning, because it decides what the rest may be; system registers before the
local APIC, which they move; that before the MSRs, of which one is the APIC's timer; general registers before events,
because they cancel exceptions.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import astuple

from hibana.engine.kvm import abi, registers, xsave
from hibana.engine.kvm.cpuid import CpuidEntry
from hibana.engine.kvm.msr import TSC, in_loading_order
from hibana.engine.kvm.tsc import Tsc
from hibana.engine.state import DebugRegs, Fpu, VcpuEvents, VcpuState
from hibana.errors import EngineError
from hibana.observe import log

_XCR0: Final = 0
_TSC_TOLERANCE_PPM: Final = 250
_MOST_MSRS: Final = 256  # in one request
_EVENT_FLAGS_AT: Final = 13  # among the fields of kvm_vcpu_events
_EVENT_FLAGS: Final = abi.KVM_VCPUEVENT_VALID_NMI_PENDING | abi.KVM_VCPUEVENT_VALID_SHADOW | abi.KVM_VCPUEVENT_VALID_SMM


class Common(NamedTuple):
    """What all vCPUs of a virtual machine have in common."""

    msrs: Sequence[int]
    """Those that are saved."""
    xsave_size: int
    tsc: Tsc


class KvmVcpu:
    """State of a vCPU in the kernel, by its descriptor."""

    def __init__(self, fd: int, common: Common) -> None:
        """Use a descriptor, which stays the caller's."""
        self.fd: Final = fd
        self._msrs, self._xsave_size, self._tsc = common

    def set_cpuid(self, leaves: Sequence[CpuidEntry]) -> None:
        """Say what the guest sees of this CPU; only before it has run."""
        content = abi.CPUID2.pack(len(leaves), 0) + b"".join(abi.CPUID_ENTRY2.pack(*leaf) for leaf in leaves)
        abi.call(self.fd, abi.KVM_SET_CPUID2, bytearray(content))

    def save(self) -> VcpuState:
        """Export the complete state, in KVM's terms. Raises EngineError."""
        fd = self.fd
        (mp_state,) = abi.get(fd, abi.KVM_GET_MP_STATE, abi.MP_STATE)
        regs = registers.get_regs(fd)
        sregs = registers.get_sregs(fd)
        fpu, rest = self._save_xsave()
        *db, dr6, dr7, _ = abi.get(fd, abi.KVM_GET_DEBUGREGS, abi.DEBUGREGS)
        (lapic,) = abi.get(fd, abi.KVM_GET_LAPIC, abi.LAPIC_STATE)
        msrs = self._save_msrs(self._msrs)
        events = list(abi.get(fd, abi.KVM_GET_VCPU_EVENTS, abi.VCPU_EVENTS))
        del events[_EVENT_FLAGS_AT]
        return VcpuState(
            *(regs, sregs, fpu, DebugRegs(db, dr6, dr7), VcpuEvents(*events), msrs, lapic),
            xcr0=self._save_xcr0(),
            mp_state=mp_state,
            xsave=rest,
            tsc_khz=self._tsc_khz(),
        )

    def load(self, state: VcpuState) -> None:
        """Replace the complete state. Raises EngineError."""
        fd = self.fd
        self._set_tsc_khz(state.tsc_khz)
        abi.put(fd, abi.KVM_SET_MP_STATE, abi.MP_STATE, state.mp_state)
        registers.put_regs(fd, state.regs)
        registers.put_sregs(fd, state.sregs)
        abi.call(fd, abi.KVM_SET_XSAVE, xsave.join(state.fpu, state.xsave, self._xsave_size))
        self._load_xcr0(state.xcr0)
        debugregs = state.debugregs
        abi.put(fd, abi.KVM_SET_DEBUGREGS, abi.DEBUGREGS, *debugregs.db, debugregs.dr6, debugregs.dr7, 0)
        abi.put(fd, abi.KVM_SET_LAPIC, abi.LAPIC_STATE, state.lapic)
        self._load_msrs(state.msrs)
        events = list(astuple(state.events))
        events.insert(_EVENT_FLAGS_AT, _EVENT_FLAGS)
        abi.put(fd, abi.KVM_SET_VCPU_EVENTS, abi.VCPU_EVENTS, *events)

    def note_pause(self) -> None:
        """Tell the guest's clock that time has passed without it; refused when the guest does not use it."""
        abi.call(self.fd, abi.KVM_KVMCLOCK_CTRL)

    def _tsc_khz(self) -> int:
        try:
            return abi.call(self.fd, abi.KVM_GET_TSC_KHZ)
        except EngineError:
            log.warn("TSC freq not available. Snapshot cannot be loaded on a different CPU model.")
            return 0

    def _set_tsc_khz(self, khz: int) -> None:
        """Make the counter as fast as it was; hosts are never quite equal, and few can be set."""
        if khz and abs(self._tsc_khz() - khz) * 1_000_000 > khz * _TSC_TOLERANCE_PPM:
            abi.call(self.fd, abi.KVM_SET_TSC_KHZ, khz)

    def _save_xsave(self) -> tuple[Fpu, bytes]:
        image = bytearray(self._xsave_size)
        request = abi.KVM_GET_XSAVE if self._xsave_size == abi.XSAVE.size else abi.KVM_GET_XSAVE2
        abi.call(self.fd, request, image)
        return xsave.split(bytes(image))

    def _save_xcr0(self) -> int:
        count, _, entries = abi.get(self.fd, abi.KVM_GET_XCRS, abi.XCRS)
        found = (abi.XCR.unpack_from(entries, abi.XCR.size * index) for index in range(count))
        return next((int(value) for number, _, value in found if number == _XCR0), 1)

    def _load_xcr0(self, xcr0: int) -> None:
        abi.put(self.fd, abi.KVM_SET_XCRS, abi.XCRS, 1, 0, abi.XCR.pack(_XCR0, 0, xcr0))

    def _save_msrs(self, msrs: Sequence[int]) -> dict[int, int]:
        values: dict[int, int] = {}
        for start in range(0, len(msrs), _MOST_MSRS):
            wanted = msrs[start : start + _MOST_MSRS]
            buffer = _msr_list([(msr, 0) for msr in wanted])
            done = abi.call(self.fd, abi.KVM_GET_MSRS, buffer)
            if done < len(wanted):
                raise EngineError(cause=f"Failed to get KVM vcpu msr: {wanted[done]:#x}")
            values.update((msr, value) for msr, _, value in abi.MSR_ENTRY.iter_unpack(buffer[abi.MSRS.size :]))
        return values

    def _load_msrs(self, msrs: dict[int, int]) -> None:
        entries = in_loading_order({msr: value for msr, value in msrs.items() if msr != TSC})
        if TSC in msrs:
            entries = self._tsc.writes(msrs[TSC], self._save_msrs([TSC])[TSC]) + entries
        for start in range(0, len(entries), _MOST_MSRS):
            wanted = entries[start : start + _MOST_MSRS]
            if abi.call(self.fd, abi.KVM_SET_MSRS, _msr_list(wanted)) < len(wanted):
                raise EngineError(cause="Failed to set all KVM MSRs for this vCPU. Only a partial write was done.")


def _msr_list(entries: Sequence[tuple[int, int]]) -> bytearray:
    packed = b"".join(abi.MSR_ENTRY.pack(msr, 0, value) for msr, value in entries)
    return bytearray(abi.MSRS.pack(len(entries), 0) + packed)
