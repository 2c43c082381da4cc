"""Who carries a request out: the notebook before the start, the microVM after it.

Not started → running ⇄ paused. The microVM ends with the process: there is no way back (api.md §4.1).
"""

from typing import NamedTuple

from hibana.bus.loop import Loop
from hibana.config.resources import Resources
from hibana.config.snapshot import LoadSnapshotConfig
from hibana.devices import boot_timer
from hibana.devices.mmds.store import Store
from hibana.errors import LoadSnapshotNotHere, NoKernelConfigured
from hibana.observe import log, metrics
from hibana.vmm.engines import choose_engine
from hibana.vmm.machine import EXIT_OK, Machine
from hibana.vmm.preboot import PreBoot
from hibana.vmm.running import Running
from hibana.vmm.verbs import Call, perform


class Circumstances(NamedTuple):
    """What the command line decides about every microVM of this process."""

    engine: str
    boot_timer: bool


class Controller:
    """One process, one microVM: from wishes to its end."""

    def __init__(self, circumstances: Circumstances, resources: Resources, store: Store, loop: Loop) -> None:
        """Begin in the state `Not started`."""
        self.exit_code = EXIT_OK
        self._circumstances = circumstances
        self._resources = resources
        self._store = store
        self._loop = loop
        self.preboot = PreBoot(resources, store, self.start, self._restore)
        self._machine: Machine | None = None
        self._running: Running | None = None

    def perform(self, call: Call) -> object:
        """Carry out a call and give its answer, if it has one. Raises ActionError."""
        if self._running is None:
            return self.preboot.perform(call)
        return perform(self._running, call, started=True)

    def start(self) -> None:
        """Make a running microVM of what the notebook says (InstanceStart). Raises the inner sentence."""
        started = boot_timer.now()
        from hibana.vmm.assemble import Blueprint, assemble  # not before: it brings every device, and the boot code

        source = self._resources.boot_source
        if source is None:
            raise NoKernelConfigured
        self._resources.refuse_missing_devices()
        log.debug("event_start: build microvm for boot")
        machine_config = self._resources.machine
        plan = Blueprint(
            vcpu_count=machine_config.vcpu_count,
            mem_size_mib=machine_config.mem_size_mib,
            huge_pages=machine_config.huge_pages,
            has_cpu_template=bool(machine_config.cpu_template or self._resources.cpu_template),
            kernel_fd=source.kernel_fd,
            initrd_fd=source.initrd_fd,
            boot_args=source.boot_args,
            serial_out_path=self._resources.serial.serial_out_path,
            boot_timer=self._circumstances.boot_timer,
            drives=self._resources.drives,
            interfaces=self._resources.nets,
            entropy=self._resources.entropy,
        )
        engine = choose_engine(self._circumstances.engine)
        machine = assemble(plan, engine, self._loop, started, self._guest_ended)
        log.debug("event_end: build microvm for boot")
        log.debug("event_start: boot microvm")
        machine.start()
        machine.resume()
        log.debug("event_end: boot microvm")
        self._machine = machine
        self._running = Running(machine, self._resources, self._store)
        metrics.start_timer(self._loop, paused=lambda: machine.paused)

    def close(self) -> None:
        """End the microVM, if there is one, and close what has been opened for it."""
        if self._machine is not None:
            self._machine.close()
        self._resources.close()

    def _restore(self, config: LoadSnapshotConfig) -> None:
        raise LoadSnapshotNotHere

    def _guest_ended(self, code: int) -> None:
        """Hear, on a vCPU thread, that the guest is at its end."""
        self._loop.call(lambda: self._leave(code))

    def _leave(self, code: int) -> None:
        # Several vCPUs may end at once, and a failure among them must not be lost.
        self.exit_code = self.exit_code or code
        log.info("Vmm is stopping.")
        self._loop.stop()
