"""Who carries a request out: the notebook before the start, the microVM after it.

Not started → running ⇄ paused. The microVM ends with the process: there is no way back (api.md §4.1).
"""

from typing import NamedTuple

from hibana.bus.loop import Loop
from hibana.config.resources import Resources
from hibana.config.snapshot import LoadSnapshotConfig
from hibana.devices import boot_timer
from hibana.devices.mmds.store import Store
from hibana.errors import (
    Fatal,
    LoadSnapshotNotHere,
    NoKernelConfigured,
    StartInternalError,
    VmmError,
    VmmFilterError,
)
from hibana.observe import log, metrics
from hibana.seccomp.filters import Choice, Filters
from hibana.seccomp.install import install
from hibana.vmm.blueprint import Blueprint
from hibana.vmm.engines import choose_engine
from hibana.vmm.machine import EXIT_OK, Machine
from hibana.vmm.preboot import PreBoot
from hibana.vmm.running import Running
from hibana.vmm.verbs import Call, perform


class Circumstances(NamedTuple):
    """What the command line decides about every microVM of this process."""

    engine: str
    boot_timer: bool
    filters: Choice


class Controller:
    """One process, one microVM: from wishes to its end."""

    def __init__(self, circumstances: Circumstances, resources: Resources, store: Store, loop: Loop) -> None:
        """Begin in the state `Not started`."""
        self._circumstances = circumstances
        self._resources = resources
        self._store = store
        self._loop = loop
        self.preboot = PreBoot(resources, store, self.start, self._restore)
        self._machine: Machine | None = None
        self._running: Running | None = None

    @property
    def exit_code(self) -> int:
        """What the end of the microVM means for the process."""
        return self._machine.exit_code if self._machine else EXIT_OK

    def perform(self, call: Call) -> object:
        """Carry out a call and give its answer, if it has one. Raises ActionError."""
        # In the reference this is a thread of its own, and its lines in the log say so.
        speaker = log.set_thread_name("main")
        try:
            if self._running is None:
                return self.preboot.perform(call)
            return perform(self._running, call, started=True)
        finally:
            log.set_thread_name(speaker)

    def start(self) -> None:
        """Make a running microVM of what the notebook says (InstanceStart). Raises the inner sentence."""
        started = boot_timer.now()
        from hibana.vmm.assemble import assemble  # not before: it brings every device, and the boot code

        plan = self._plan()
        log.debug("event_start: build microvm for boot")
        engine = choose_engine(self._circumstances.engine)
        filters = self._circumstances.filters(engine.name)
        plan = plan._replace(vcpu_filters=filters.vcpu)
        machine = assemble(plan, engine, self._loop, started, self._guest_ended)
        log.debug("event_end: build microvm for boot")
        log.debug("event_start: boot microvm")
        self._set_going(machine, filters)
        log.debug("event_end: boot microvm")
        self._machine = machine
        self._running = Running(machine, self._resources, self._store)

    def close(self) -> None:
        """End the microVM, if there is one, and close what has been opened for it. Raises VcpusDoNotAnswer."""
        if self._machine is not None:
            log.info("Killing vCPU threads")
            self._machine.close()
            metrics.flush_or_count()
        self._resources.close()

    def _plan(self) -> Blueprint:
        source = self._resources.boot_source
        if source is None:
            raise NoKernelConfigured
        self._resources.refuse_missing_devices()
        machine = self._resources.machine
        return Blueprint(
            vcpu_count=machine.vcpu_count,
            smt=machine.smt,
            mem_size_mib=machine.mem_size_mib,
            huge_pages=machine.huge_pages,
            kernel_fd=source.kernel_fd,
            initrd_fd=source.initrd_fd,
            boot_args=source.boot_args,
            serial=self._resources.serial,
            boot_timer=self._circumstances.boot_timer,
            cpu_template=self._resources.chosen_cpu_template,
            drives=self._resources.drives,
            interfaces=self._resources.nets,
            entropy=self._resources.entropy,
        )

    def _set_going(self, machine: Machine, filters: Filters) -> None:
        """Let a new microVM run; one that cannot leaves nothing behind.

        What comes after the filter may import nothing: it could not be found any more.
        """
        try:
            machine.start()
            metrics.start_timer(self._loop, paused=lambda: machine.paused)
            _confine(filters)
            machine.resume()
        except Fatal:
            raise
        except VmmError as error:
            machine.close()
            raise StartInternalError(cause=error) from error

    def _restore(self, config: LoadSnapshotConfig) -> None:
        raise LoadSnapshotNotHere

    def _guest_ended(self) -> None:
        """Hear, on a vCPU thread, that the guest is at its end."""
        self._loop.call(self._leave)

    def _leave(self) -> None:
        log.info("Vmm is stopping.")
        self._loop.stop()


def _confine(filters: Filters) -> None:
    """Filter the thread of the loop, which is the calling one."""
    try:
        install(filters.loop)
    except VmmError as error:
        raise VmmFilterError(cause=error) from error
