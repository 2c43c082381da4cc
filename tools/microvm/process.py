"""A firecracker process and the few calls that boot a microVM in it."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

from hibana.config.boot_source import BootSourceConfig
from hibana.config.drive import BlockDeviceConfig
from hibana.config.machine import MachineConfig
from hibana.config.net import NetworkInterfaceConfig
from hibana.sdk.machine import Machine

CMDLINE: Final = (
    "console=ttyS0 reboot=k panic=1 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd "
    "swiotlb=noforce random.trust_cpu=on"
)
DIES_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")
"""In front of a command: it ends when the thread that started it does, whatever ended that."""
_POLL: Final = 0.002
_LAST_BREATH: Final = 10.0


class VmmDied(Exception):
    """The process ended where it should have gone on; the text is what it said."""


class Wanted(NamedTuple):
    """What to boot."""

    kernel: Path
    initrd: Path | None
    cmdline: str = CMDLINE
    vcpus: int = 1
    mem_mib: int = 512
    rootfs: Path | None = None
    """An image that the guest may change."""
    interface: NetworkInterfaceConfig | None = None
    smt: bool = False


class Firecracker:
    """One VMM. Its socket and log are in `folder`; its console is `stdin` and `stdout`.

    `launcher` is what to start instead of the program, if the program is to be started by something else.
    """

    def __init__(self, program: Path, folder: Path, *options: str, launcher: Sequence[str] = ()) -> None:
        self._socket = folder / "api.socket"
        self.log = folder / "log"
        begin = launcher or (str(program),)
        command = [*begin, "--api-sock", str(self._socket), "--log-path", str(self.log), *options]
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        assert self.process.stdin
        assert self.process.stdout
        self.stdin: IO[bytes] = self.process.stdin
        self.stdout: IO[bytes] = self.process.stdout
        self._api: Machine | None = None

    @property
    def api(self) -> Machine:
        """The API, as soon as the process listens. Raises VmmDied."""
        while self._api is None:
            api = Machine(str(self._socket))
            try:
                api.get_instance_info()
                self._api = api
            except (FileNotFoundError, ConnectionRefusedError):
                if self.process.poll() is not None:
                    raise VmmDied(self.last_words()) from None
                time.sleep(_POLL)
        return self._api

    def boot(self, wanted: Wanted) -> None:
        """Start a microVM. Raises VmmDied."""
        initrd = str(wanted.initrd) if wanted.initrd else None
        try:
            machine = MachineConfig(vcpu_count=wanted.vcpus, mem_size_mib=wanted.mem_mib, smt=wanted.smt)
            self.api.put_machine_config(machine)
            self.api.put_boot_source(BootSourceConfig(str(wanted.kernel), initrd, wanted.cmdline))
            if wanted.rootfs:
                drive = BlockDeviceConfig(drive_id="rootfs", is_root_device=True, path_on_host=str(wanted.rootfs))
                self.api.put_drive(drive)
            if wanted.interface:
                self.api.put_network_interface(wanted.interface)
            self.api.start_instance()
        except ConnectionError as error:
            self.process.wait(_LAST_BREATH)
            raise VmmDied(self.last_words()) from error

    def last_words(self) -> str:
        """Collect what a dead process left behind."""
        assert self.process.stderr
        log = self.log.read_text() if self.log.exists() else ""
        said = self.process.stderr.read().decode() + "".join(log.splitlines(keepends=True)[-5:])
        return f"firecracker ended with exit code {self.process.returncode}:\n{said}"

    def stop(self) -> None:
        """End the process, however it is."""
        if self._api:
            self._api.close()
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream
            stream.close()
