"""A whole microVM whose kernel is a driver of a few instructions: what its virtqueue costs in exits: nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from hibana.bus.loop import Loop
from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.serial import SerialConfig
from hibana.devices import boot_timer
from hibana.engine.interface import PLAIN, Bus, CpuModel
from hibana.engine.kvm.engine import KvmEngine
from hibana.engine.kvm.vm import KvmVm
from hibana.memory.guest import GuestMemory
from hibana.observe.metrics_groups import METRICS
from hibana.vmm.assemble import assemble
from hibana.vmm.blueprint import Blueprint
from hibana.vmm.machine import Machine
from tests.contract.engine.assembler import assemble as assemble_code
from tests.kvm_api.stats import stats
from tests.unit.boot.images import ENTRY, Load, close_files, elf, file_of, pvh_note

REQUESTS: Final = 200
BUFFER: Final = 0x20000
PATIENCE_S: Final = 60
SETUP_WRITES: Final = 14

# A driver of the entropy device at the first slot: it sets queue 0 up, asks for 64 bytes so many times, watching the
# used ring, and resets the machine. It is entered in 32-bit mode without paging.
DRIVER: Final = f"""
.code32
.macro REGISTER offset, value
    mov dword ptr [edi + \\offset], \\value
.endm
start:
    mov edi, 0xc0001000
    REGISTER 0x70, 1
    REGISTER 0x70, 3
    REGISTER 0x24, 1                # features 32-63: VERSION_1
    REGISTER 0x20, 1
    REGISTER 0x70, 11
    REGISTER 0x30, 0
    REGISTER 0x38, 8
    REGISTER 0x80, 0x10000
    REGISTER 0x84, 0
    REGISTER 0x90, 0x11000
    REGISTER 0xa0, 0x12000
    REGISTER 0x44, 1
    mov dword ptr [0x10000], {BUFFER:#x}
    mov dword ptr [0x10008], 64
    mov word ptr [0x1000c], 2       # for the device to write
    REGISTER 0x70, 15
    mov ecx, {REQUESTS}
1:  inc word ptr [0x11002]          # descriptor 0 is available once more
    REGISTER 0x50, 0                # QueueNotify
2:  pause
    mov ax, [0x11002]
    cmp ax, [0x12002]
    jne 2b
    loop 1b
    REGISTER 0x70, 0
    mov al, 0xfe
    out 0x64, al
3:  hlt
    jmp 3b
"""


class WatchedKvm(KvmEngine):
    """The engine, with the virtual machine it has made at hand."""

    vm: KvmVm

    def create_vm(self, memory: GuestMemory, vcpu_count: int, bus: Bus, model: CpuModel = PLAIN) -> KvmVm:
        self.vm = super().create_vm(memory, vcpu_count, bus, model)
        self.memory = memory
        return self.vm


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()
    close_files()


def run_to_its_end(engine: KvmEngine, loop: Loop, folder: Path, vcpus: int) -> Machine:
    code = assemble_code(DRIVER, ENTRY).code
    plan = Blueprint(
        vcpu_count=vcpus,
        smt=False,
        mem_size_mib=128,
        huge_pages="None",
        kernel_fd=file_of(elf(Load(ENTRY, code), notes=pvh_note(ENTRY))),
        initrd_fd=None,
        boot_args="",
        serial=SerialConfig(serial_out_path=str(folder / "console")),
        boot_timer=False,
        entropy=EntropyDeviceConfig(),
    )
    machine = assemble(plan, engine, loop, boot_timer.now(), lambda: loop.call(loop.stop))
    machine.start()
    machine.resume()
    watchdog = loop.after(PATIENCE_S, lambda: pytest.fail("the guest does not come to its end"))
    loop.run()
    watchdog.cancel()
    return machine


@pytest.mark.parametrize("vcpus", [1, 2])
def test_a_virtqueue_is_served_without_a_single_exit(loop: Loop, tmp_path: Path, vcpus: int) -> None:
    engine = WatchedKvm()
    counters = METRICS.vcpu
    before = (counters.exit_mmio_write, counters.exit_mmio_read, METRICS.entropy.entropy_bytes)
    machine = run_to_its_end(engine, loop, tmp_path, vcpus)
    try:
        answered = int.from_bytes(engine.memory.read(0x12002, 2), "little")
        kernel = stats(engine.vm.vcpus[0].fd)
    finally:
        machine.close()
    assert machine.exit_code == 0
    assert answered == REQUESTS
    assert METRICS.entropy.entropy_bytes - before[2] == 64 * REQUESTS
    assert counters.exit_mmio_write - before[0] == SETUP_WRITES
    assert counters.exit_mmio_read == before[1]
    assert kernel["mmio_exits"] == SETUP_WRITES
