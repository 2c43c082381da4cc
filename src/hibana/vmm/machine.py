"""The running microVM: vCPU threads, engine, memory and devices as one thing that can be paused, resumed and ended."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from hibana.config.drive import BlockDeviceUpdateConfig
from hibana.config.net import NetworkInterfaceUpdateConfig
from hibana.engine.interface import Reason, Stop, Vm
from hibana.memory.guest import GuestMemory
from hibana.observe import log
from hibana.observe.failure import described
from hibana.observe.metrics_groups import METRICS
from hibana.vmm.vcpu_thread import VcpuThread

T = TypeVar("T")

EXIT_OK: Final = 0
EXIT_GENERIC: Final = 1

EndHandler = Callable[[], None]
"""Told that the guest has ended; called on a vCPU thread, perhaps more than once, must not block."""


Ask = Callable[[Callable[[], None]], None]
"""Runs a function where devices live and waits until it has; its exceptions come out."""


class DeviceThread(Protocol):
    """Where devices live: a vCPU's thread on soft, the loop's on kvm."""

    def post(self, task: Callable[[], None]) -> None: ...

    def ask(self, question: Callable[[], T]) -> T: ...


class Keyboard(Protocol):
    """What the API wants of the keyboard controller."""

    def send_ctrl_alt_del(self) -> None: ...


class ChangeableDrive(Protocol):
    """What the API wants of a drive."""

    def patch(self, change: BlockDeviceUpdateConfig, ask: Ask) -> None: ...


class ChangeableInterface(Protocol):
    """What the API wants of a network interface."""

    def patch(self, change: NetworkInterfaceUpdateConfig, ask: Ask) -> None: ...


class Machine:
    """A microVM whose parts have been put together; it starts paused."""

    def __init__(
        self,
        vm: Vm,
        memory: GuestMemory,
        on_end: EndHandler,
        confine: Callable[[], None],
        devices: DeviceThread | None = None,
    ) -> None:
        """Take over the engine's VM and the RAM.

        Each vCPU thread begins with `confine`; devices live on the first runner's thread if they have no other.
        """
        self._vm = vm
        self._memory = memory
        self._on_end = on_end
        self._starters: list[Callable[[], None]] = []
        self._closers: list[Callable[[], None]] = []
        self.keyboard: Keyboard
        self.drives: dict[str, ChangeableDrive] = {}
        self.interfaces: dict[str, ChangeableInterface] = {}
        self.paused = True
        self.exit_code = EXIT_OK
        """What the guest's end means for the VMM; certain once the microVM is closed."""
        self._devices_rest = True
        self._kept: list[Callable[[], None]] = []
        """What was posted to devices while they rest; both live where the devices do."""
        self.threads: Sequence[VcpuThread] = [
            VcpuThread(index, runner, self._stopped, confine) for index, runner in enumerate(vm.runners)
        ]
        self._devices: DeviceThread = devices or self.threads[0]

    def post_to_devices(self, task: Callable[[], None]) -> None:
        """Run a task where devices live, once the guest runs: while it is paused, its devices rest (api.md §4.3)."""
        self._devices.post(lambda: self._run_or_keep(task))

    def visit_devices(self, task: Callable[[], None]) -> None:
        """Do so at once, on the loop's thread where devices live there."""
        self._devices.ask(lambda: self._run_or_keep(task))

    def ask_devices(self, question: Callable[[], T]) -> T:
        """Run a function where devices live, paused or not, and give its answer. Raises what it raises."""
        return self._devices.ask(question)

    def on_start(self, starter: Callable[[], None]) -> None:
        """Call `starter` on the loop's thread right before the guest first runs."""
        self._starters.append(starter)

    def on_close(self, closer: Callable[[], None]) -> None:
        """Call `closer` when the microVM is closed, in reverse order of registration."""
        self._closers.append(closer)

    def start(self) -> None:
        """Start the vCPU threads and connect the host ends; the guest stays paused.

        Raises VcpuThreadError, VcpuFilterError.
        """
        for thread in self.threads:
            thread.start()
        for starter in self._starters:
            starter()

    def pause(self) -> None:
        """Stop all vCPUs between two instructions. Raises VcpusDoNotAnswer."""
        for thread in self.threads:
            thread.pause()
        self.ask_devices(self._rest)
        if not self.paused:
            self._vm.note_pause()
        self.paused = True

    def resume(self) -> None:
        """Let all vCPUs run. Raises VcpusDoNotAnswer."""
        self.ask_devices(self._wake)
        for thread in self.threads:
            thread.resume()
        self.paused = False

    def send_ctrl_alt_del(self) -> None:
        """Press the three keys. Raises I8042BufferFull, VcpusDoNotAnswer."""
        self.ask_devices(self.keyboard.send_ctrl_alt_del)

    def end(self, code: int) -> None:
        """Stop the guest for good, from inside a device: `code` becomes the exit code of the VMM."""
        if code:  # several vCPUs may end at once, and a failure among them must not be lost
            self.exit_code = code
        for thread in self.threads:
            thread.halt()
        self._on_end()

    def close(self) -> None:
        """End the threads, then free devices, engine and memory in this order. Raises VcpusDoNotAnswer."""
        for thread in self.threads:
            thread.finish()
        for closer in reversed(self._closers):
            closer()
        self._vm.close()
        self._memory.close()

    def _run_or_keep(self, task: Callable[[], None]) -> None:
        if self._devices_rest:
            self._kept.append(task)
        else:
            self._run(task)

    def _run(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # ours: a device has a bug, and its microVM ends in order
            self._stopped(Stop(Reason.FAILED, described(error)))

    def _rest(self) -> None:
        self._devices_rest = True

    def _wake(self) -> None:
        self._devices_rest = False
        kept, self._kept = self._kept, []
        for task in kept:
            self._run(task)

    def _stopped(self, stop: Stop) -> None:
        if stop.reason is Reason.POWERED_OFF:
            self.end(EXIT_OK)
            return
        METRICS.vcpu.failures += 1
        if stop.reason is Reason.SHUTDOWN:
            log.error("Unexpected exit reason on vcpu run: Shutdown")
        elif stop.reason is Reason.ABORTED:
            log.error(stop.detail)
        else:
            log.error(f"Failure during vcpu run: {stop.detail}")
        self.end(EXIT_GENERIC)
