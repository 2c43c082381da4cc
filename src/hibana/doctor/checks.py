"""All checks, in the order in which they are printed."""

from collections.abc import Callable, Sequence
from typing import Final

from hibana.doctor import engines, kernel, production, resources
from hibana.doctor.finding import Finding, Host

CHECKS: Final[Sequence[Callable[[Host], Finding]]] = (
    # can guests run?
    kernel.version,
    engines.kvm,
    engines.engine,
    kernel.seccomp,
    kernel.system_calls,
    # what can they have?
    kernel.tun,
    kernel.io_uring,
    kernel.userfaultfd,
    resources.huge_pages,
    resources.shared_huge_pages,
    resources.cgroups,
    resources.limits,
    # may they be strangers?
    engines.nested,
    production.vulnerabilities,
    production.page_tables,
    production.threads,
    resources.same_pages,
    resources.swap,
    production.microcode,
    production.jail_folder,
    production.running,
    # could they start faster?
    engines.ept,
    engines.msrs,
    engines.timer,
    production.creation,
    production.console,
    resources.mounts,
)


def examine(host: Host) -> list[Finding]:
    """Carry all checks out."""
    return [check(host) for check in CHECKS]
