"""Which verb is legal when, and in which words its failures reach the client (api.md §2).

A verb is the name of a method. Whoever carries verbs out (the notebook before the start, the machine after it) is an
object with such methods, each taking what `Call.arguments` holds; `perform` stands between it and the API.
"""

from typing import Final, NamedTuple

from hibana.errors import (
    ActionError,
    BalloonError,
    BalloonUpdateError,
    BootSourceError,
    CreateSnapshotError,
    DriveError,
    EntropyError,
    Fatal,
    InternalVmmError,
    LoadSnapshotError,
    LoggerError,
    MachineConfigError,
    MemoryHotplugError,
    MemoryHotplugUpdateError,
    MetricsError,
    MmdsConfigError,
    MmdsDoesNotFit,
    MmdsError,
    MmdsLimitError,
    NetworkError,
    NotAfterStart,
    NotBeforeStart,
    PmemError,
    StartError,
    VmmError,
    VsockError,
)

Wrapper = type[VmmError]
NO: Final = None
PLAIN: Final = ActionError
"""Legal, and cannot fail with anything that needs wrapping."""


class Call(NamedTuple):
    """A request that has been understood."""

    verb: str
    arguments: tuple[object, ...] = ()


class Rule(NamedTuple):
    """When a verb is legal: the wrapper of its failures, or NO."""

    before: Wrapper | None
    after: Wrapper | None
    boots: bool = False
    """Asking for it, even in vain, means to boot a microVM: no snapshot may be loaded any more (api.md §4.2)."""


RULES: Final[dict[str, Rule]] = {
    # verb                        before start        after start
    "get_instance_info": Rule(PLAIN, PLAIN),
    "get_version": Rule(PLAIN, PLAIN),
    "get_vm_config": Rule(PLAIN, PLAIN),
    "start_instance": Rule(StartError, NO),
    "flush_metrics": Rule(NO, InternalVmmError),
    "send_ctrl_alt_del": Rule(NO, InternalVmmError),
    "pause_vm": Rule(NO, InternalVmmError),
    "resume_vm": Rule(NO, InternalVmmError),
    "get_machine_config": Rule(PLAIN, PLAIN),
    "put_machine_config": Rule(MachineConfigError, NO, boots=True),
    "patch_machine_config": Rule(MachineConfigError, NO, boots=True),
    "put_cpu_config": Rule(PLAIN, NO),
    "put_boot_source": Rule(BootSourceError, NO, boots=True),
    "put_drive": Rule(DriveError, DriveError, boots=True),
    "patch_drive": Rule(NO, DriveError),
    "delete_drive": Rule(NO, PLAIN),
    "put_network_interface": Rule(NetworkError, NetworkError, boots=True),
    "patch_network_interface": Rule(NO, NetworkError),
    "delete_network_interface": Rule(NO, PLAIN),
    "put_pmem": Rule(PmemError, PmemError, boots=True),
    "patch_pmem": Rule(NO, PmemError),
    "delete_pmem": Rule(NO, PLAIN),
    "put_vsock": Rule(VsockError, NO, boots=True),
    "put_entropy": Rule(EntropyError, NO, boots=True),
    "put_serial": Rule(PLAIN, NO),
    "get_balloon": Rule(BalloonError, InternalVmmError),
    "put_balloon": Rule(BalloonError, NO, boots=True),
    "patch_balloon": Rule(NO, BalloonUpdateError),
    "get_balloon_statistics": Rule(NO, InternalVmmError),
    "patch_balloon_statistics": Rule(NO, BalloonUpdateError),
    "start_balloon_hinting": Rule(NO, BalloonUpdateError),
    "get_balloon_hinting": Rule(NO, BalloonUpdateError),
    "stop_balloon_hinting": Rule(NO, BalloonUpdateError),
    "get_memory_hotplug": Rule(NO, InternalVmmError),
    "put_memory_hotplug": Rule(MemoryHotplugError, NO, boots=True),
    "patch_memory_hotplug": Rule(NO, MemoryHotplugUpdateError),
    "put_logger": Rule(LoggerError, NO),
    "put_metrics": Rule(MetricsError, NO),
    "get_mmds": Rule(MmdsError, MmdsError),
    "put_mmds": Rule(MmdsError, MmdsError),
    "patch_mmds": Rule(MmdsError, MmdsError),
    "put_mmds_config": Rule(MmdsConfigError, NO, boots=True),
    "create_snapshot": Rule(NO, CreateSnapshotError),
    "load_snapshot": Rule(LoadSnapshotError, NO),
}


def perform(actor: object, call: Call, started: bool) -> object:
    """Let `actor` carry out a call and give its answer, if it has one.

    Raises ActionError: NotBeforeStart, NotAfterStart, or the verb's wrapper around the failure; or Fatal.
    """
    rule = RULES[call.verb]
    wrapper = rule.after if started else rule.before
    if wrapper is None:
        raise NotAfterStart if started else NotBeforeStart
    method = getattr(actor, call.verb)
    try:
        answer: object = method(*call.arguments)
        return answer
    except (ActionError, Fatal):
        raise
    except MmdsDoesNotFit as error:
        raise MmdsLimitError(cause=error) from error  # has a status of its own
    except VmmError as error:
        raise wrapper(cause=error) from error
