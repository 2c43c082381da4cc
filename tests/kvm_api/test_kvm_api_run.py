"""KVM_RUN by hand: what the kernel comes back with, and what it wants before it goes on."""

import errno
import struct
import threading

import pytest

from hibana.engine.kvm import abi, kick
from hibana.engine.state import Regs
from tests.contract.engine.guests import DEVICE
from tests.kvm_api import machine
from tests.kvm_api.conftest import Boot
from tests.kvm_api.machine import PortAccess, Run, later

CAP_X86_USER_SPACE_MSR = 188
ANY_MSR = 7  # inval, unknown, filter
NOBODYS_MSR = 0x4F000000
DEBUG_ENABLE = 0x1
DEBUG_SINGLE_STEP = 0x2


@pytest.mark.parametrize(("register", "size"), [("al", 1), ("ax", 2), ("eax", 4)])
def test_out_brings_its_value(boot: Boot, register: str, size: int) -> None:
    with Run(boot(f"start: mov eax, 0x44332211; mov dx, 0x3f8; out dx, {register}").vcpu.fd) as run:
        assert run.enter() == abi.KVM_EXIT_IO
        assert run.port() == PortAccess(abi.KVM_EXIT_IO_OUT, size, 0x3F8, 1, b"\x11\x22\x33\x44"[:size])


def test_in_takes_its_value_from_the_shared_page(boot: Boot) -> None:
    guest = boot("start: in ax, 0x60; movzx eax, ax; STOP")
    with Run(guest.vcpu.fd) as run:
        assert run.enter() == abi.KVM_EXIT_IO
        assert run.port()[:4] == (0, 2, 0x60, 1)
        (offset,) = struct.unpack_from("<Q", run.page, abi.RUN_UNION + 8)
        run.page[offset : offset + 2] = b"\xcd\xab"
        assert run.until_said() == 0xABCD


def test_a_string_of_outs_brings_every_byte_in_order(boot: Boot) -> None:
    guest = boot("""
    start: mov esi, offset text; mov ecx, 8; mov dx, 0x3f8; rep outsb; STOP
    text: .ascii "ABCDEFGH"
    """)
    got = b""
    with Run(guest.vcpu.fd) as run:
        while len(got) < 8:
            assert run.enter() == abi.KVM_EXIT_IO
            access = run.port()
            assert len(access.content) == access.count * access.size
            got += access.content
    assert got == b"ABCDEFGH"


def test_a_read_of_nothing_takes_its_value_from_the_shared_page(boot: Boot) -> None:
    guest = boot("start: mov edi, DEVICE; mov eax, [rdi + 4]; STOP")
    with Run(guest.vcpu.fd) as run:
        assert run.enter() == abi.KVM_EXIT_MMIO
        addr, size, is_write = abi.EXIT_MMIO.unpack_from(run.page, abi.RUN_UNION)
        assert (addr, size, is_write) == (DEVICE + 4, 4, 0)
        run.page[abi.RUN_MMIO_DATA : abi.RUN_MMIO_DATA + 4] = b"\x78\x56\x34\x12"
        assert run.until_said() == 0x12345678


def test_a_write_to_nothing_brings_its_value(boot: Boot) -> None:
    guest = boot("start: mov edi, DEVICE; mov word ptr [rdi + 2], 0xbeef; STOP")
    with Run(guest.vcpu.fd) as run:
        assert run.enter() == abi.KVM_EXIT_MMIO
        addr, size, is_write = abi.EXIT_MMIO.unpack_from(run.page, abi.RUN_UNION)
        content = run.page[abi.RUN_MMIO_DATA : abi.RUN_MMIO_DATA + 2]
    assert (addr, content, size, is_write) == (DEVICE + 2, b"\xef\xbe", 2, 1)


def test_immediate_exit_lets_no_instruction_run(boot: Boot) -> None:
    guest = boot("start: jmp start")
    with Run(guest.vcpu.fd) as run:
        run.page[abi.RUN_IMMEDIATE_EXIT] = 1
        assert run.enter() == -errno.EINTR
    assert guest.vcpu.save().regs.rip == guest.label("start")


@pytest.mark.parametrize("code", ["1: jmp 1b", "cli; 1: hlt; jmp 1b", "sti; 1: hlt; jmp 1b"])
def test_a_signal_brings_a_thread_out_of_the_guest(boot: Boot, code: str) -> None:
    thread = threading.get_native_id()
    with Run(boot(f"start: {code}").vcpu.fd) as run:
        poking = later(lambda: kick.poke(thread))
        assert run.enter() == -errno.EINTR
        poking.join()


def test_a_triple_fault_is_a_shutdown(boot: Boot) -> None:
    guest = boot("start: lidt [nowhere]; ud2; nowhere: .word 0; .quad 0")
    with Run(guest.vcpu.fd) as run:
        assert run.enter() == abi.KVM_EXIT_SHUTDOWN


def test_an_unknown_msr_can_be_answered_by_us(boot: Boot) -> None:
    guest = boot(f"start: mov ecx, {NOBODYS_MSR:#x}; rdmsr; STOP")
    args = (CAP_X86_USER_SPACE_MSR, 0, ANY_MSR, 0, 0, 0)
    abi.put(guest.kvm.fd, machine.KVM_ENABLE_CAP, machine.ENABLE_CAP, *args)
    with Run(guest.vcpu.fd) as run:
        assert run.enter() == machine.EXIT_RDMSR
        _error, _reason, index = struct.unpack_from("<B7xII", run.page, abi.RUN_UNION)[:3]
        assert index == NOBODYS_MSR
        struct.pack_into("<Q", run.page, abi.RUN_UNION + 16, 0x1234)
        assert run.until_said() == 0x1234


def test_a_single_step_is_one_instruction(boot: Boot) -> None:
    guest = boot("start: nop; mov eax, 5; STOP")
    control = DEBUG_ENABLE | DEBUG_SINGLE_STEP
    abi.put(guest.vcpu.fd, machine.KVM_SET_GUEST_DEBUG, machine.GUEST_DEBUG, control, *[0] * 9)
    start = guest.label("start")
    with Run(guest.vcpu.fd) as run:
        for rip, rax in ((start + 1, 0), (start + 6, 5)):
            assert run.enter() == machine.EXIT_DEBUG
            regs = Regs(*abi.get(guest.vcpu.fd, abi.KVM_GET_REGS, abi.REGS))
            assert (regs.rip, regs.rax) == (rip, rax)


def test_two_cpus_run_at_the_same_time(boot: Boot) -> None:
    guest = boot(
        """
    start:
        START_APS
    1:  pause
        cmp dword ptr [hello], 0
        je 1b
        mov dword ptr [answer], 1
    2:  pause
        cmp dword ptr [answer], 2
        jne 2b
        END 3
    ap_start:
        mov dword ptr [hello], 1
    1:  pause
        cmp dword ptr [answer], 1
        jne 1b
        mov dword ptr [answer], 2
        cli
    2:  hlt
        jmp 2b
    hello: .long 0
    answer: .long 0
    """,
        vcpus=2,
    )
    assert guest.run() == 3
