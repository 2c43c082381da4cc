"""Interrupts in and notifications out, without anybody coming back from KVM_RUN."""

import os
from collections.abc import Callable, Iterator
from struct import pack

import pytest

from hibana.engine.kvm import abi
from hibana.engine.kvm.routing import Message
from tests.contract.engine.guests import DEVICE
from tests.kvm_api import machine
from tests.kvm_api.conftest import Boot
from tests.kvm_api.machine import KvmGuest, Run, later

LINE = 5
MSI_GSI = 24
RESAMPLE = 2
IOEVENTFD_PIO = 2
IOEVENTFD_DEASSIGN = 4
FIXED = 0xFEE00000

# Says 1 when it is ready, and the vector of each interrupt it gets.
LISTENER = """
start:
    ENABLE_APIC
    PIN 5, {pin:#x}
    ON 0x45, got
    ON 2, got
    SAY 1
    sti
1:  hlt
    jmp 1b
got:
    SAY [rdi]
    EOI
    ret
"""


@pytest.fixture
def eventfd() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def counted(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def heard(guest: KvmGuest, action: Callable[[], object]) -> int:
    """Give the vector of the interrupt that a listening guest gets when something is done."""
    with Run(guest.vcpu.fd) as run:
        assert run.until_said() == 1
        run.finish_instruction()
        acting = later(action)
        said = run.until_said()
        acting.join()
        return said


def listener(boot: Boot) -> KvmGuest:
    return boot(LISTENER.format(pin=0x45))


def test_our_line_is_an_irqfd(boot: Boot) -> None:
    guest = listener(boot)
    assert heard(guest, guest.kvm.line(LINE)) == 0x45


def test_a_line_can_be_raised_and_lowered_by_a_request(boot: Boot) -> None:
    guest = listener(boot)

    def pulse() -> None:
        for level in (1, 0):
            abi.put(guest.kvm.fd, machine.KVM_IRQ_LINE, machine.IRQ_LEVEL, LINE, level)

    assert heard(guest, pulse) == 0x45


def test_a_level_triggered_line_asks_for_more_when_it_was_served(boot: Boot, eventfd: int) -> None:
    guest = boot(LISTENER.format(pin=0x8045).replace("    EOI\n", "    EOI\n    SAY 2\n"))
    resample = os.eventfd(0, os.EFD_NONBLOCK)
    abi.put(guest.kvm.fd, abi.KVM_IRQFD, abi.IRQFD, eventfd, LINE, RESAMPLE, resample)
    with Run(guest.vcpu.fd) as run:
        assert run.until_said() == 1
        run.finish_instruction()
        acting = later(lambda: os.eventfd_write(eventfd, 1))
        assert run.until_said() == 0x45
        acting.join()
        assert run.until_said() == 2, "it has been served"
    assert counted(resample) == 1
    os.close(resample)


def test_a_line_above_the_pins_sends_a_message(boot: Boot) -> None:
    guest = listener(boot)
    line = guest.kvm.line(MSI_GSI)
    guest.kvm.lines.routing.set_messages({MSI_GSI: Message(FIXED, 0x45)})
    assert heard(guest, line) == 0x45


def test_lines_reach_their_pins_while_there_are_messages(boot: Boot) -> None:
    """And no longer the 8259s, which have not been silenced here and would add an interrupt of their own."""
    guest = boot("""
    start:
        APIC 0xf0, 0x1ff
        PIN 5, 0x45
        ON 0x45, got
        ON 5, got
        SAY 1
        sti
    1:  hlt
        jmp 1b
    got:
        SAY [rdi]
        EOI
        ret
    """)
    line = guest.kvm.line(LINE)
    guest.kvm.lines.routing.set_messages({MSI_GSI: Message(FIXED, 0x46)})
    assert heard(guest, line) == 0x45


def test_a_message_that_was_taken_back_is_not_sent(boot: Boot) -> None:
    guest = listener(boot)
    silent, line = guest.kvm.line(MSI_GSI), guest.kvm.line(LINE)
    guest.kvm.lines.routing.set_messages({MSI_GSI: Message(FIXED, 0x46)})
    guest.kvm.lines.routing.set_messages({})
    assert heard(guest, lambda: (silent(), line())) == 0x45


def test_a_message_can_be_sent_by_a_request(boot: Boot) -> None:
    guest = listener(boot)
    assert heard(guest, lambda: abi.put(guest.kvm.fd, machine.KVM_SIGNAL_MSI, machine.MSI, FIXED, 0, 0x45, 0)) == 0x45


def test_an_nmi_comes_whether_the_guest_listens_or_not(boot: Boot) -> None:
    guest = boot("start: ON 2, got; SAY 1; 1: jmp 1b; got: SAY [rdi]; ret")
    with Run(guest.vcpu.fd) as run:
        assert run.until_said() == 1
        run.finish_instruction()
        abi.call(guest.vcpu.fd, machine.KVM_NMI)
        assert run.until_said() == 2


def test_a_doorbell_counts_the_writes_of_its_value_and_no_others(boot: Boot) -> None:
    guest = boot("""
    start:
        mov edi, DEVICE + 0x50
        mov dword ptr [rdi], 1
        mov dword ptr [rdi], 1
        mov dword ptr [rdi], 2
        mov word ptr [rdi], 1
        mov dword ptr [rdi + 4], 1
        END
    """)
    fd = guest.kvm.doorbell(DEVICE + 0x50, 1)
    guest.run()
    assert counted(fd) == 2
    assert guest.bus.seen("mmio", "write") == [(DEVICE + 0x50, 4, 2), (DEVICE + 0x50, 2, 1), (DEVICE + 0x54, 4, 1)]


def test_doorbells_of_one_address_are_told_apart_by_value(boot: Boot) -> None:
    guest = boot("start: mov edi, DEVICE + 0x50; mov dword ptr [rdi], 1; mov dword ptr [rdi], 0; END")
    first, second = (guest.kvm.doorbell(DEVICE + 0x50, value) for value in (0, 1))
    guest.run()
    assert (counted(first), counted(second)) == (1, 1)
    assert guest.bus.seen("mmio", "write") == []


def test_a_port_can_have_an_eventfd_and_lose_it(boot: Boot, eventfd: int) -> None:
    guest = boot("start: mov eax, 5; out 0x60, eax; STOP; mov eax, 5; out 0x60, eax; END")
    flags = abi.KVM_IOEVENTFD_FLAG_DATAMATCH | IOEVENTFD_PIO
    abi.put(guest.kvm.fd, abi.KVM_IOEVENTFD, abi.IOEVENTFD, 5, 0x60, 4, eventfd, flags)
    guest.run()
    assert (counted(eventfd), guest.bus.seen("port", "write")) == (1, [])
    abi.put(guest.kvm.fd, abi.KVM_IOEVENTFD, abi.IOEVENTFD, 5, 0x60, 4, eventfd, flags | IOEVENTFD_DEASSIGN)
    guest.run()
    assert (counted(eventfd), guest.bus.seen("port", "write")) == (0, [(0x60, 4, 5)])


@pytest.mark.parametrize(
    ("name", "setup"),
    [
        ("the local APIC's timer, once", "APIC 0x3e0, 0xb; APIC 0x320, 0x45; APIC 0x380, 2000000"),
        (
            "its deadline",
            "APIC 0x320, 0x40045; rdtsc; shl rdx, 32; or rax, rdx; add rax, 0x1000000; mov rdx, rax; shr rdx, 32;"
            "mov ecx, 0x6e0; wrmsr",
        ),
        (
            "the 8254",
            "PIN 0, 0x45; PIN 2, 0x45; mov al, 0x34; out 0x43, al; mov al, 0x9c; out 0x40, al; mov al, 0x2e;"
            "out 0x40, al",
        ),
    ],
)
def test_a_timer_of_the_kernel_interrupts(boot: Boot, name: str, setup: str) -> None:
    guest = boot(f"""
    start:
        ENABLE_APIC
        ON 0x45, got
        {setup}
        sti
    1:  hlt
        jmp 1b
    got:
        SAY [rdi]
        EOI
        ret
    """)
    with Run(guest.vcpu.fd) as run:
        assert run.until_said() == 0x45, name


def test_an_eventfd_that_is_no_eventfd_is_refused(boot: Boot) -> None:
    guest = boot("start: END")
    with open(os.devnull) as file:
        record = bytearray(abi.IRQFD.pack(file.fileno(), LINE, 0, 0))
        assert machine.refused(guest.kvm.fd, abi.KVM_IRQFD, record) == "EINVAL"


def test_the_kernel_counts_what_it_does(boot: Boot) -> None:
    """The stream of numbers behind KVM_GET_STATS_FD begins with its own description."""
    fd = abi.call(boot("start: END").vcpu.fd, machine.KVM_GET_STATS_FD)
    header = os.read(fd, 24)
    os.close(fd)
    assert len(header) == 24
    assert header != pack("<24x")
