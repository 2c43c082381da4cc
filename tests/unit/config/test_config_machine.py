"""The machine: how many vCPUs, how much memory, and what a change changes."""

import pytest

from hibana.config import machine
from hibana.config.machine import MachineConfig, MachineConfigUpdate
from hibana.errors import (
    InvalidMemorySize,
    InvalidVcpuCount,
)


@pytest.mark.parametrize(("count", "smt"), [(1, False), (1, True), (2, True), (3, False), (32, True), (31, False)])
def test_good_vcpu_counts(count: int, smt: bool) -> None:
    machine.check(MachineConfig(vcpu_count=count, mem_size_mib=128, smt=smt))


@pytest.mark.parametrize(("count", "smt"), [(0, False), (33, False), (255, False), (3, True), (31, True)])
def test_bad_vcpu_counts(count: int, smt: bool) -> None:
    with pytest.raises(InvalidVcpuCount):
        machine.check(MachineConfig(vcpu_count=count, mem_size_mib=128, smt=smt))


def test_huge_pages_want_an_even_number_of_megabytes() -> None:
    machine.check(MachineConfig(vcpu_count=1, mem_size_mib=129))
    for pages in ("Transparent", "2M"):
        machine.check(MachineConfig(vcpu_count=1, mem_size_mib=128, huge_pages=pages))
        with pytest.raises(InvalidMemorySize):
            machine.check(MachineConfig(vcpu_count=1, mem_size_mib=129, huge_pages=pages))


def test_no_memory_is_not_enough() -> None:
    with pytest.raises(InvalidMemorySize):
        machine.check(MachineConfig(vcpu_count=1, mem_size_mib=0))


def test_vcpus_are_checked_before_memory() -> None:
    with pytest.raises(InvalidVcpuCount):
        machine.check(MachineConfig(vcpu_count=0, mem_size_mib=0))


def test_a_change_leaves_alone_what_it_does_not_name() -> None:
    before = MachineConfig(vcpu_count=4, mem_size_mib=256, smt=True, cpu_template="T2", track_dirty_pages=True)
    after = machine.updated(before, MachineConfigUpdate(mem_size_mib=512))
    assert after == MachineConfig(vcpu_count=4, mem_size_mib=512, smt=True, cpu_template="T2", track_dirty_pages=True)


def test_the_template_called_none_removes_the_template() -> None:
    before = MachineConfig(vcpu_count=1, mem_size_mib=128, cpu_template="T2")
    assert machine.updated(before, MachineConfigUpdate(cpu_template="None")) == machine.DEFAULT
