"""A microVM on the kvm engine, in a process of its own: how it lives, and the ways in which its CPUs die.

Guests of a few instructions run on every /dev/kvm, also on one that emulates guest code.
"""

import json
import re
import subprocess

import pytest

from hibana.engine.kvm.engine import KvmEngine
from tests.clients.conftest import Start
from tests.clients.process import FLUSH_METRICS, SEND_CTRL_ALT_DEL, SOCKET, START, Vmm, config, interpreted
from tests.clients.tiny_guests import (
    HALT,
    JUMP_TO_NOWHERE,
    RESET,
    SPIN,
    TICK,
    TRIPLE_FAULT,
    WAIT_FOR_KEYS,
    kernel,
    pvh_kernel,
    say,
)

KVM = ("--engine", "kvm")
FAILED = [
    "Vmm is stopping.",
    "Killing vCPU threads",
    "RunWithApiError error: MicroVM stopped with an error: GenericError",
    "Firecracker exiting with error. exit_code=1",
]


@pytest.fixture(autouse=True)
def _kvm() -> None:
    if reason := KvmEngine().missing():
        pytest.skip(reason)


def counted(vmm: Vmm, metric: str) -> int:
    """Add up a metric of the vCPUs over all lines."""
    lines = (vmm.folder / "metrics").read_text().splitlines()
    return sum(json.loads(line)["vcpu"][metric] for line in lines)


def test_a_guest_speaks_and_resets(start: Start) -> None:
    vmm = start(*KVM, guest=say("ok\n") + RESET)
    assert vmm.wait() == 0
    assert "Running guest code on the kvm engine: it was asked for." in vmm.messages
    assert "ok" in re.sub(r"\d{4}-\d\d-\d\dT[^\n]*\n", "", vmm.out)
    assert vmm.messages[-1] == "Firecracker exiting successfully. exit_code=0"


def test_every_vcpu_has_a_thread_of_its_name(start: Start) -> None:
    vmm = start(*KVM, guest=say("!") + SPIN, configuration=config(machine_config={"vcpu_count": 3, "mem_size_mib": 64}))
    vmm.wait_for("!")
    assert vmm.thread_names() == ["firecracker", "fc_vcpu 0", "fc_vcpu 1", "fc_vcpu 2"]


def test_a_triple_fault_is_an_error(start: Start) -> None:
    vmm = start(*KVM, "--metrics-path", "metrics", guest=say("x") + TRIPLE_FAULT)
    assert vmm.wait() == 1
    assert "Unexpected exit reason on vcpu run: Shutdown" in vmm.messages
    assert vmm.messages[-4:] == FAILED
    assert counted(vmm, "failures") == 1


def test_a_cpu_that_the_kernel_cannot_run_any_further_is_an_error(start: Start) -> None:
    """There is no memory where it goes: KVM cannot emulate an instruction that it cannot read."""
    vmm = start(*KVM, "--metrics-path", "metrics")
    (vmm.folder / "kernel").write_bytes(pvh_kernel(JUMP_TO_NOWHERE))
    vmm.boot()
    assert vmm.wait() == 1
    assert "Received KVM_EXIT_INTERNAL_ERROR signal" in vmm.messages
    assert vmm.messages[-4:] == FAILED
    assert counted(vmm, "failures") == 1


def test_one_cpu_that_dies_ends_the_others(start: Start) -> None:
    """They wait for their start inside the kernel."""
    machine_config = {"vcpu_count": 4, "mem_size_mib": 64}
    vmm = start(*KVM, guest=TRIPLE_FAULT, configuration=config(machine_config=machine_config))
    assert vmm.wait() == 1
    assert vmm.messages[-4:] == FAILED


def test_a_bug_in_a_device_ends_the_microvm_in_order(start: Start) -> None:
    prelude = (
        "from hibana.devices.uart16550 import Uart16550\n"
        "def write(self, offset, size, value): raise ZeroDivisionError('in a device')\n"
        "Uart16550.write = write"
    )
    vmm = start(*KVM, guest=say("!") + HALT, program=interpreted(prelude))
    assert vmm.wait() == 1
    assert "ZeroDivisionError: in a device" in vmm.messages
    assert vmm.out.count("Failure during vcpu run: Traceback") == 1


def test_a_bug_in_a_device_that_the_loop_has_called_ends_the_microvm_in_order(start: Start) -> None:
    prelude = (
        "from hibana.devices.uart16550 import Uart16550\n"
        "def receive(self, content): raise ZeroDivisionError('in a device')\n"
        "Uart16550.receive = receive"
    )
    vmm = start(*KVM, guest=say("!") + SPIN, program=interpreted(prelude), stdin=subprocess.PIPE)
    vmm.wait_for("!")
    assert vmm.process.stdin
    vmm.process.stdin.write(b"x")
    vmm.process.stdin.flush()
    assert vmm.wait() == 1
    assert "ZeroDivisionError: in a device" in vmm.messages
    assert vmm.messages[-4:] == FAILED


@pytest.mark.parametrize("code", [SPIN, HALT, TICK], ids=["busy", "halted", "talking"])
def test_a_guest_is_paused_and_resumed_whatever_it_does(code: bytes, start: Start) -> None:
    configuration = config(machine_config={"vcpu_count": 2, "mem_size_mib": 64})
    vmm = start(*KVM, "--metrics-path", "metrics", guest=say("!") + code, configuration=configuration)
    vmm.wait_for("!")
    for _ in range(10):
        vmm.patch("/vm", {"state": "Paused"})
        assert vmm.state == "Paused"
        vmm.patch("/vm", {"state": "Resumed"})
    vmm.put("/actions", FLUSH_METRICS)
    assert counted(vmm, "kvmclock_ctrl_fails") == 20


def test_three_keys_reach_a_guest_that_listens(start: Start) -> None:
    vmm = start(*KVM, guest=WAIT_FOR_KEYS + RESET)
    vmm.put("/actions", SEND_CTRL_ALT_DEL)
    assert vmm.wait() == 0


def test_without_kvm_a_start_is_refused_with_a_way_out(start: Start) -> None:
    prelude = "from hibana.engine.kvm import host\nhost.DEVICE = '/dev/kvm-of-nobody'"
    vmm = start(*KVM, program=interpreted(prelude), api=SOCKET)
    (vmm.folder / "kernel").write_bytes(kernel(RESET))
    vmm.put("/boot-source", {"kernel_image_path": "kernel"})
    assert vmm.fault("PUT", "/actions", START) == (
        "Start microvm error: Kvm error: The kvm engine cannot run here: this host has no /dev/kvm-of-nobody. "
        "Use --engine soft, or leave --engine out."
    )
    assert vmm.state == "Not started"
