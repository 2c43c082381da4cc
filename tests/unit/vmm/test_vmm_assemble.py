"""Putting a microVM together: what lives where, what is said when it cannot be done, and that nothing stays behind."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hibana.bus.loop import Loop
from hibana.config.cpu import CpuidLeafModifier, CustomCpuTemplate
from hibana.config.rate_limit import TokenBucketConfig
from hibana.config.serial import SerialConfig
from hibana.devices.boot_timer import Moment
from hibana.engine.interface import PLAIN, Bus, CpuModel, Engine
from hibana.engine.soft.engine import SoftEngine
from hibana.errors import EngineError, VmmError
from hibana.memory import layout
from hibana.memory.guest import GuestMemory
from hibana.observe.metrics_groups import METRICS
from hibana.testing.engine import FakeEngine, FakeVm, Step
from hibana.units import MIB
from hibana.vmm.assemble import assemble
from hibana.vmm.blueprint import Blueprint
from hibana.vmm.machine import EXIT_OK, Machine
from tests.unit.boot.images import ENTRY, Load, bzimage, close_files, elf, elf_header, file_of, pvh_note
from tests.unit.vmm.footprint import LARGE, nothing_stays

PATIENCE_S = 30.0
STARTED = Moment(0, 0)
KERNEL = elf(Load(ENTRY, b"\xeb\xfe"))


class Site:
    """Where a microVM is put together from a plan, for guests that are lists of steps."""

    def __init__(self, folder: Path) -> None:
        self.serial = folder / "serial"
        self.loop = Loop()
        self.ended = threading.Event()
        self.machines: list[Machine] = []
        self.engine = FakeEngine()

    def plan(self, **differences: Any) -> Blueprint:
        plan = Blueprint(
            vcpu_count=1,
            smt=False,
            mem_size_mib=32,
            huge_pages="None",
            kernel_fd=-1,
            initrd_fd=None,
            boot_args="console=ttyS0",
            serial=SerialConfig(serial_out_path=str(self.serial)),
            boot_timer=False,
        )._replace(**differences)
        return plan if plan.kernel_fd >= 0 else plan._replace(kernel_fd=file_of(KERNEL))

    def assemble(self, *guest: Step, **differences: Any) -> Machine:
        self.engine = FakeEngine(guest)
        machine = assemble(self.plan(**differences), self.engine, self.loop, STARTED, self.ended.set)
        self.machines.append(machine)
        return machine

    def run(self, *guest: Step, **differences: Any) -> FakeVm:
        """Let a guest take its steps, the last of which is a reset."""
        machine = self.assemble(*guest, reset, **differences)
        machine.start()
        machine.resume()
        assert self.ended.wait(PATIENCE_S)
        machine.pause()
        assert machine.exit_code == EXIT_OK
        return self.engine.vms[-1]

    def refused(self, engine: Engine | None = None, **differences: Any) -> str:
        """Try to put a microVM together, in vain and without a trace."""
        plan = self.plan(**{"mem_size_mib": 2 * LARGE // MIB, **differences})
        with nothing_stays():
            return self._refusal(plan, engine or FakeEngine())

    def _refusal(self, plan: Blueprint, engine: Engine) -> str:
        # Not pytest.raises, which keeps the error, whose traceback would keep memory: here it must go without help.
        try:
            assemble(plan, engine, self.loop, STARTED, self.ended.set)
        except VmmError as error:
            return str(error)
        pytest.fail("the plan was carried out")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    for machine in site.machines:
        machine.close()
    site.loop.close()
    close_files()


def reset(bus: Bus) -> None:
    bus.port_write(0x64, 1, 0xFE)


def out(port: int, *values: int) -> Step:
    def write(bus: Bus) -> None:
        for value in values:
            bus.port_write(port, 1, value)

    return write


class Reads:
    """Steps that read, and what they found."""

    def __init__(self) -> None:
        self.found: list[int] = []

    def port(self, port: int) -> Step:
        return lambda bus: self.found.append(bus.port_read(port, 1))

    def mmio(self, addr: int) -> Step:
        return lambda bus: self.found.append(bus.mmio_read(addr, 4))


# --- what lives where -------------------------------------------------------------------------------------------------


def test_what_the_guest_says_on_the_serial_port_is_in_the_file(site: Site) -> None:
    site.run(out(0x3F8, *b"hello\n"))
    assert site.serial.read_bytes() == b"hello\n"


@pytest.mark.parametrize(
    ("size", "refill_time", "said"),
    [(2, 1 << 40, b"he"), (0, 1000, b"hello"), (2, 0, b"hello"), (2, 1 << 63, b"hello")],
)
def test_a_limit_on_the_serial_port_counts_unless_it_limits_nothing(
    size: int, refill_time: int, said: bytes, site: Site
) -> None:
    bucket = TokenBucketConfig(size=size, refill_time=refill_time)
    site.run(out(0x3F8, *b"hello"), serial=SerialConfig(serial_out_path=str(site.serial), rate_limiter=bucket))
    assert site.serial.read_bytes() == said


def test_bytes_come_together_unless_it_counts_when_each_of_them_was_printed(site: Site) -> None:
    """A bucket of 100 bytes a millisecond lets 400 pass in four, but not at once."""
    site.assemble()
    assert site.engine.vms[-1].coalesced == [(0x3F8, 0x3FD)]
    limited = SerialConfig(serial_out_path=str(site.serial), rate_limiter=TokenBucketConfig(size=100, refill_time=1))
    site.assemble(serial=limited)
    assert site.engine.vms[-1].coalesced == []


def test_the_chips_are_at_their_ports_and_nothing_is_beside_them(site: Site) -> None:
    reads = Reads()
    site.run(*(reads.port(port) for port in (0x3FD, 0x64, 0x3F7, 0x400, 0x65, 0x5F)))
    assert reads.found == [0x60, 0x10, 0, 0, 0, 0]


def test_the_serial_port_has_line_4_and_the_keyboard_line_1(site: Site) -> None:
    vm = site.run(out(0x3F9, 0x02), out(0x3F8, 0x41))
    assert vm.pulses == [4]
    site.machines[-1].send_ctrl_alt_del()
    assert vm.pulses == [4, 1, 1, 1]


def test_the_boot_timer_is_there_only_if_it_is_wanted(
    site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(METRICS.vcpu, "exit_mmio_write", 0)

    def report(bus: Bus) -> None:
        bus.mmio_write(0xC0000000, 1, 123)

    site.run(report, boot_timer=True)
    assert "Guest-boot-time = " in capfd.readouterr().out
    site.ended.clear()
    site.run(report)
    assert "Guest-boot-time" not in capfd.readouterr().out
    assert METRICS.vcpu.exit_mmio_write == 2


def test_every_vcpu_stands_at_the_kernels_entry(site: Site) -> None:
    site.assemble(vcpu_count=4)
    states = [vcpu.state for vcpu in site.engine.vms[0].vcpus]
    assert [state.regs.rip for state in states] == [ENTRY] * 4
    assert all(state.sregs.cr3 == layout.PML4 for state in states)


def test_a_kernel_with_a_pvh_entry_is_entered_there(site: Site) -> None:
    kernel = elf(Load(ENTRY, b"\xf4"), notes=pvh_note(ENTRY + 1))
    site.assemble(kernel_fd=file_of(kernel))
    state = site.engine.vms[0].vcpus[0].state
    assert (state.regs.rip, state.regs.rbx, state.sregs.cr3) == (ENTRY + 1, layout.PVH_INFO, 0)


def ram(machine: Machine) -> GuestMemory:
    return machine._memory


def test_kernel_initrd_and_command_line_are_in_memory(site: Site) -> None:
    machine = site.assemble(initrd_fd=file_of(b"initrd"), boot_args="root=/dev/vda -- single")
    memory = ram(machine)
    assert memory.read(ENTRY, 2) == b"\xeb\xfe"
    assert memory.read((32 << 20) - 4096, 6) == b"initrd"
    assert memory.read(layout.CMDLINE, 64).partition(b"\0")[0] == b"root=/dev/vda pci=off -- single"


def test_the_engine_hears_of_all_that_is_written(site: Site) -> None:
    site.assemble()
    assert (ENTRY, 2) in site.engine.vms[0].written


def test_the_host_ends_wait_for_the_start(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start may still fail: until then the terminal is the shell's."""
    read_end, write_end = os.pipe()
    monkeypatch.setattr("hibana.vmm.assemble._STDIN", read_end)
    monkeypatch.setattr("hibana.vmm.assemble._STDOUT", write_end)
    machine = site.assemble(serial=SerialConfig())
    assert os.get_blocking(write_end)
    machine.start()
    assert not os.get_blocking(write_end)
    machine.close()
    site.machines.clear()
    assert os.get_blocking(write_end)
    site.loop.forget(read_end)
    os.close(read_end)
    os.close(write_end)


# --- what cannot be done ----------------------------------------------------------------------------------------------

KERNEL_ERROR = (
    "System configuration error: Cannot load kernel due to invalid memory configuration or invalid kernel image:"
    " Kernel Loader: failed to load {} kernel image: Kernel Loader: {}"
)


@pytest.mark.parametrize(
    ("image", "kind", "sentence"),
    [
        (b"", "ELF", "Unable to read elf header"),
        (KERNEL[:40], "ELF", "Unable to read elf header"),
        (b"random bytes" * 999, "ELF", "Invalid Elf magic number"),
        (KERNEL[:80], "ELF", "Unable to read program header"),
        (KERNEL[:-1], "ELF", "Unable to read kernel image"),
        (elf_header(ENTRY, 1, data=2), "ELF", "Trying to load big-endian binary on little-endian machine"),
        (elf_header(ENTRY, 1, phentsize=32).ljust(999, b"\0"), "ELF", "Invalid program header size"),
        (elf(Load(0x100000, b"\xf4"), entry=0x8000), "ELF", "Invalid entry address"),
        (elf(Load(3 << 30, b"\xf4")), "ELF", "Unable to read kernel image"),
        (bzimage(b"", loadflags=0), "bzImage", "Invalid bzImage"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_kernel_that_is_none_is_refused(site: Site, image: bytes, kind: str, sentence: str) -> None:
    assert site.refused(kernel_fd=file_of(image)) == KERNEL_ERROR.format(kind, sentence)


@pytest.mark.parametrize(
    ("differences", "sentence"),
    [
        (
            {"mem_size_mib": 1 << 40},
            "Invalid Memory Configuration: Cannot create mmap region: Out of memory (os error 12)",
        ),
        ({"mem_size_mib": 1 << 50}, "Invalid Memory Configuration: Cannot create mmap region:"),
        ({"mem_size_mib": 8}, KERNEL_ERROR.format("ELF", "Unable to read kernel image")),
        (
            {"boot_args": "x" * 2044},
            "Invalid kernel command line: Inserting string would make command line too long.",
        ),
        ({"boot_args": "x" * 2048}, "Invalid kernel command line: Invalid cmdline capacity provided."),
        (
            {"boot_args": "a\0b"},
            "System configuration error: Cannot load command line string: Null terminator detected in the command line"
            " structure.",
        ),
        (
            {"serial": SerialConfig(serial_out_path="/nowhere/serial")},
            "Failed to create device manager: Error with EventFd: No such file or directory (os error 2)",
        ),
        (
            {"cpu_template": "T2"},
            "Failed to get CPU template: The soft engine has one fixed CPU and takes no CPU template.",
        ),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(site: Site, differences: dict[str, Any], sentence: str) -> None:
    assert site.refused(**differences).startswith(sentence)


@pytest.mark.parametrize("size_mib", [33, 1 << 20])
def test_an_initrd_that_does_not_fit_is_refused(site: Site, size_mib: int) -> None:
    initrd = file_of(b"")
    os.ftruncate(initrd, size_mib << 20)
    assert site.refused(initrd_fd=initrd, mem_size_mib=32) == (
        "Error with initrd initialization: Failed to compute the initrd address.."
    )


def test_a_kernel_that_cannot_be_read_is_refused(site: Site, tmp_path: Path) -> None:
    for make in (os.mkdir, os.mkfifo):
        path = str(tmp_path / make.__name__)
        make(path)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        assert site.refused(kernel_fd=fd) == KERNEL_ERROR.format("ELF", "Unable to read elf header")
        os.close(fd)


class NoEngine(FakeEngine):
    """An engine that cannot make a VM after all."""

    def create_vm(self, memory: GuestMemory, vcpu_count: int, bus: Bus, model: CpuModel = PLAIN) -> FakeVm:
        raise EngineError(cause="no.")


def test_an_engine_may_have_no_vm_to_give(site: Site) -> None:
    assert site.refused(NoEngine()) == "Kvm error: no."


class ShapingEngine(FakeEngine):
    """An engine that takes CPU templates, but not every one."""

    takes_cpu_templates = True
    model = PLAIN

    def create_vm(self, memory: GuestMemory, vcpu_count: int, bus: Bus, model: CpuModel = PLAIN) -> FakeVm:
        self.model = model
        if model.template:
            model.template.cpuid([])
        return super().create_vm(memory, vcpu_count, bus, model)


def test_the_engine_is_told_what_cpus_to_make(site: Site) -> None:
    site.engine = ShapingEngine()
    site.machines.append(assemble(site.plan(smt=True, vcpu_count=2), site.engine, site.loop, STARTED, site.ended.set))
    assert site.engine.model == CpuModel(smt=True)


def test_a_template_that_the_engine_cannot_apply_is_refused(site: Site) -> None:
    modifier = CpuidLeafModifier(0xABC, 1, 0, [])
    assert site.refused(ShapingEngine(), cpu_template=CustomCpuTemplate(cpuid_modifiers=[modifier])) == (
        "System configuration error: Failed to create guest config: Template changes a CPUID entry not supported"
        " by KVM: Leaf: abc, Subleaf: 1"
    )


def test_a_second_try_finds_everything_as_it_was(site: Site) -> None:
    kernel = file_of(KERNEL)
    site.refused(kernel_fd=kernel, serial=SerialConfig(serial_out_path="/nowhere/serial"))
    site.run(out(0x3F8, *b"ok"), kernel_fd=kernel)
    assert site.serial.read_bytes() == b"ok"


def test_the_soft_engine_too_can_be_tried_again(site: Site) -> None:
    engine = SoftEngine()
    if reason := engine.missing():
        pytest.skip(reason)
    assemble(site.plan(), engine, site.loop, STARTED, site.ended.set).close()  # the library and a thread of its stay
    for _ in range(2):
        assert "No such file" in site.refused(engine, serial=SerialConfig(serial_out_path="/nowhere/serial"))
    assemble(site.plan(), engine, site.loop, STARTED, site.ended.set).close()
