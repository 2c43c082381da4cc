"""What the tests of a whole microVM share: one whose guest is the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hibana.bus.loop import Loop
from hibana.config.resources import Resources
from hibana.config.serial import SerialConfig
from hibana.devices import boot_timer
from hibana.memory import layout
from hibana.testing.net import open_fake_tap
from hibana.vmm.assemble import assemble
from hibana.vmm.blueprint import Blueprint
from hibana.vmm.machine import Machine
from tests.unit.boot.images import ENTRY, Load, close_files, elf, file_of
from tests.unit.vmm.fake_engine import FakeEngine

KERNEL = elf(Load(ENTRY, b"kernel"))


class Workshop:
    """Puts microVMs together, of what is in the notebook."""

    def __init__(self, folder: Path, engine: FakeEngine) -> None:
        self.folder = folder
        self.resources = Resources(open_fake_tap)
        self.engine = engine
        self.loop = Loop()
        self._machines: list[Machine] = []

    def file(self, name: str, content: bytes) -> str:
        """Make a file; give its path."""
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def assemble(self, boot_args: str = "quiet") -> Machine:
        """Make a paused microVM. Raises VmmError."""
        resources = self.resources
        plan = Blueprint(
            vcpu_count=1,
            smt=False,
            mem_size_mib=128,
            huge_pages="None",
            kernel_fd=file_of(KERNEL),
            initrd_fd=None,
            boot_args=boot_args,
            serial=SerialConfig(serial_out_path=str(self.folder / "console")),
            boot_timer=False,
            drives=resources.drives,
            interfaces=resources.nets,
            entropy=resources.entropy,
        )
        machine = assemble(plan, self.engine, self.loop, boot_timer.now(), lambda *_: None)
        self._machines.append(machine)
        return machine

    def run(self, boot_args: str = "quiet") -> Machine:
        """Make a running microVM."""
        machine = self.assemble(boot_args)
        machine.start()
        machine.resume()
        return machine

    @property
    def cmdline(self) -> str:
        """What the kernel reads as its command line."""
        content = self.engine.vm.memory.read(layout.CMDLINE, layout.CMDLINE_MAX_SIZE)
        return content.partition(b"\0")[0].decode()

    def register(self, addr: int) -> int:
        """Read a register as the guest does."""
        return self.engine.vm.bus.mmio_read(addr, 4)

    def close(self) -> None:
        for machine in self._machines:
            machine.close()
        self.resources.close()
        self.loop.close()


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path, FakeEngine())
    yield workshop
    workshop.close()
    close_files()
