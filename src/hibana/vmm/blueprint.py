"""What a microVM is made from, in one record: the notebook's pages that the assembly needs."""

from collections.abc import Sequence
from typing import NamedTuple

from hibana.config.cpu import CustomCpuTemplate
from hibana.config.drive import Drive
from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.machine import HugePages
from hibana.config.net import Interface
from hibana.config.serial import SerialConfig


class Blueprint(NamedTuple):
    """What a microVM is made from: everything checked, every file open."""

    vcpu_count: int
    smt: bool
    mem_size_mib: int
    huge_pages: HugePages
    kernel_fd: int
    initrd_fd: int | None
    boot_args: str
    serial: SerialConfig
    boot_timer: bool
    cpu_template: str | CustomCpuTemplate | None = None
    """The name of a static template, or a custom one."""
    drives: Sequence[Drive] = ()
    interfaces: Sequence[Interface] = ()
    entropy: EntropyDeviceConfig | None = None
    vcpu_filters: Sequence[bytes] = ()
