"""A microVM from its first request to its end, in a process of its own, with guests of a few instructions."""

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.clients.conftest import Start
from tests.clients.process import (
    FLUSH_METRICS,
    LAUNCHER,
    ROOT,
    SEND_CTRL_ALT_DEL,
    SOCKET,
    START,
    Vmm,
    config,
    interpreted,
)
from tests.clients.tiny_guests import (
    ECHO,
    HALT,
    REPORT_BOOT,
    RESET,
    SPIN,
    TICK,
    TRIPLE_FAULT,
    WAIT_FOR_KEYS,
    kernel,
    pvh_kernel,
    say,
)

A01 = "The requested operation is not supported before starting the microVM."
A02 = "The requested operation is not supported after starting the microVM."
LAST_WORDS = ["Vmm is stopping.", "Killing vCPU threads", "Firecracker exiting successfully. exit_code=0"]


@pytest.fixture
def images(tmp_path: Path) -> None:
    """Put kernels where the processes find them by relative names."""
    for name, code in {"kernel": say("ok\n") + RESET, "halt": say("!") + HALT, "keys": WAIT_FOR_KEYS + RESET}.items():
        (tmp_path / name).write_bytes(kernel(code))
    (tmp_path / "initrd").write_bytes(b"initrd")


# --- the start --------------------------------------------------------------------------------------------------------


def test_four_calls_boot_a_guest_whose_console_is_standard_output(start: Start, images: None) -> None:
    vmm = start("--id", "my-id", "--metrics-path", "metrics")
    assert vmm.get("/") == {
        "id": "my-id", "state": "Not started", "vmm_version": "1.17.0-dev", "app_name": "Firecracker",
    }  # fmt: skip
    vmm.put("/machine-config", {"vcpu_count": 2, "mem_size_mib": 64})
    vmm.put("/boot-source", {"kernel_image_path": "kernel", "initrd_path": "initrd", "boot_args": "console=ttyS0"})
    vmm.put("/actions", START)
    assert vmm.wait() == 0
    lines = vmm.out.splitlines()
    assert "ok" in vmm.console.splitlines()
    assert vmm.messages[-3:] == LAST_WORDS
    assert all(" [my-id:main] " in line for line in lines[-3:])
    assert vmm.err == ""
    assert len((vmm.folder / "metrics").read_text().splitlines()) == 2  # after the boot, and at the end


def test_the_log_tells_the_story_of_a_boot(start: Start) -> None:
    vmm = start("--level", "Debug", guest=RESET, api=None)
    assert vmm.wait() == 0
    story = [
        "Running Firecracker v1.17.0-dev",
        "event_start: build microvm for boot",
        "Running guest code on the soft engine: this build has no kvm engine yet.",
        "Kernel loaded using Linux 64-bit boot protocol",
        "event_end: build microvm for boot",
        "event_start: boot microvm",
        "event_end: boot microvm",
        "Successfully started microvm that was configured from one single json",
        *LAST_WORDS,
    ]
    assert vmm.messages == story


def test_the_api_threads_lines_and_the_vmms_own_are_told_apart(start: Start) -> None:
    vmm = start(guest=HALT)
    vmm.patch("/vm", {"state": "Paused"})
    assert re.search(r":fc_api\] The API server received a Patch request on \"/vm\"", vmm.out)
    assert re.search(r":main\] 'pause vm' VMM action took \d+ us\.", vmm.out)
    assert re.search(r":fc_api\] 'pause vm' API request took \d+ us\.", vmm.out)


def test_a_wrong_order_is_refused_and_does_no_harm(start: Start, images: None) -> None:
    vmm = start()
    assert vmm.fault("PUT", "/actions", START) == (
        "Start microvm error: Cannot start microvm without kernel configuration."
    )
    assert vmm.fault("PUT", "/actions", SEND_CTRL_ALT_DEL) == A01
    assert vmm.fault("PATCH", "/vm", {"state": "Paused"}) == A01
    vmm.boot("halt")
    for path, body in (
        ("/actions", START),
        ("/boot-source", {"kernel_image_path": "halt"}),
        ("/machine-config", {"vcpu_count": 1, "mem_size_mib": 64}),
        ("/logger", {}),
    ):
        assert vmm.fault("PUT", path, body) == A02
    assert vmm.state == "Running"


def test_a_start_that_failed_can_be_tried_again(start: Start, images: None) -> None:
    vmm = start()
    (vmm.folder / "truncated").write_bytes(kernel(say("ok\n") + RESET)[:-1])
    vmm.put("/boot-source", {"kernel_image_path": "truncated"})
    descriptors: list[list[str]] = []
    for _ in range(3):
        assert vmm.fault("PUT", "/actions", START).endswith("Kernel Loader: Unable to read kernel image")
        assert vmm.state == "Not started"
        descriptors.append(os.listdir(f"/proc/{vmm.process.pid}/fd"))
    assert descriptors[1] == descriptors[2]  # the first try loads the engine, which stays
    vmm.boot("kernel")
    assert vmm.wait() == 0
    assert "ok" in vmm.messages


def test_a_configuration_file_boots_before_requests_are_answered(start: Start) -> None:
    vmm = start(guest=say("!") + HALT)
    assert vmm.state == "Running"
    assert vmm.fault("PUT", "/actions", START) == A02
    assert vmm.get("/vm/config")["boot-source"]["kernel_image_path"] == "kernel"
    assert "API server started." in vmm.messages
    assert vmm.thread_names() == ["firecracker", "fc_vcpu 0"]


def test_without_an_api_there_is_no_socket(start: Start) -> None:
    vmm = start(guest=say("!") + HALT, api=None)
    vmm.wait_for("!")
    assert not [path.name for path in vmm.folder.iterdir() if path.is_socket()]
    assert not [message for message in vmm.messages if "API" in message]


def test_paths_may_be_relative_and_stay_so(start: Start, images: None, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "kernel").write_bytes(kernel(say("!") + HALT))
    vmm = start("--log-path", "sub/log", "--metrics-path", "sub/metrics")
    vmm.put("/serial", {"serial_out_path": "sub/serial"})
    vmm.boot("sub/kernel")
    vmm.wait_for("!", "sub/serial")
    assert vmm.get("/vm/config")["boot-source"]["kernel_image_path"] == "sub/kernel"
    assert "Running Firecracker" in (tmp_path / "sub" / "log").read_text()
    assert (tmp_path / "sub" / "metrics").read_text().count("\n") == 1
    assert vmm.out == ""


def test_an_embedders_own_process_is_called_firecracker_too(start: Start) -> None:
    vmm = start(guest=say("!") + HALT, program=interpreted())
    vmm.wait_for("!")
    assert vmm.comm() == "firecracker"


@pytest.mark.skipif(not LAUNCHER.exists(), reason="build/bin/firecracker is not there: run tools/devtool build")
def test_clients_find_the_process_by_its_name_from_the_beginning(start: Start) -> None:
    vmm = start()
    vmm.get("/")
    assert vmm.comm() == "firecracker"


def test_the_boot_timer_reports(start: Start, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(pvh_kernel(REPORT_BOOT + RESET))
    vmm = start("--boot-timer", configuration=config())
    assert vmm.wait() == 0
    assert [message for message in vmm.messages if message.startswith("Guest-boot-time = ")]


# --- pause and resume -------------------------------------------------------------------------------------------------


def test_a_paused_guest_says_nothing_and_then_goes_on(start: Start) -> None:
    vmm = start("--log-path", "log", guest=TICK)
    vmm.wait_for("..")
    for _ in range(3):
        vmm.patch("/vm", {"state": "Paused"})
        assert vmm.state == "Paused"
        said = vmm.out
        time.sleep(0.05)
        assert vmm.out == said
        vmm.patch("/vm", {"state": "Resumed"})
        assert vmm.state == "Running"
        vmm.wait_for(f"{said}..")


def test_everything_but_the_guest_works_while_it_is_paused(start: Start) -> None:
    vmm = start("--metrics-path", "metrics", guest=TICK)
    vmm.patch("/vm", {"state": "Paused"})
    vmm.put("/actions", FLUSH_METRICS)
    assert (vmm.folder / "metrics").read_text().count("\n") == 2
    assert vmm.get("/machine-config")["mem_size_mib"] == 128
    vmm.put("/actions", SEND_CTRL_ALT_DEL)


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api", "sentence"),
    [
        (SOCKET, "RunWithApiError error: MicroVM stopped with an error: GenericError"),
        (None, "RunWithoutApiError error: MicroVMStopped without an error: GenericError"),
    ],
)
def test_a_triple_fault_is_an_error(api: str | None, sentence: str, start: Start) -> None:
    vmm = start(guest=say("x") + TRIPLE_FAULT, api=api)
    assert vmm.wait() == 1
    assert "Unexpected exit reason on vcpu run: Shutdown" in vmm.messages
    assert vmm.messages[-4:] == [
        "Vmm is stopping.",
        "Killing vCPU threads",
        sentence,
        "Firecracker exiting with error. exit_code=1",
    ]
    assert vmm.err == f"Error: {sentence}\n"


def test_three_keys_end_a_guest_that_listens_and_the_request_is_answered_first(start: Start) -> None:
    vmm = start(guest=WAIT_FOR_KEYS + RESET)
    vmm.put("/actions", SEND_CTRL_ALT_DEL)
    assert vmm.wait() == 0


def test_a_guest_may_end_while_it_is_being_talked_to(start: Start) -> None:
    """Then the connection ends, between two answers."""
    vmm = start(guest=ECHO, stdin=subprocess.PIPE)
    assert vmm.state == "Running"
    type_in(vmm, "q")
    with pytest.raises(ConnectionError):
        while vmm.state == "Running":
            pass
    assert vmm.wait() == 0


@pytest.mark.parametrize("seed", range(6))
def test_a_kernel_of_random_bytes_harms_only_itself(seed: int, start: Start) -> None:
    """It may stop, with success or not, or run for ever; the API answers as long as it runs, and it can be stopped."""
    vmm = start("--log-path", "log", guest=random.Random(seed).randbytes(20_000))
    try:
        for _ in range(20):
            assert vmm.state == "Running"
            vmm.patch("/vm", {"state": "Paused"})
            vmm.patch("/vm", {"state": "Resumed"})
    except (AssertionError, ConnectionError):
        assert vmm.wait() in (0, 1)
    else:
        vmm.process.terminate()
        assert vmm.wait() in (0, 1, -signal.SIGTERM)


@pytest.mark.parametrize("code", [SPIN, HALT], ids=["busy", "halted"])
def test_a_guest_can_always_be_stopped_by_a_signal(code: bytes, start: Start) -> None:
    vmm = start(guest=say("!") + code, api=None)
    vmm.wait_for("!")
    vmm.process.terminate()
    assert vmm.wait() == -signal.SIGTERM


# --- bugs of ours -----------------------------------------------------------------------------------------------------


def test_a_bug_in_a_handler_aborts_in_order(start: Start) -> None:
    """The terminal is covered by the tests of streams; here: log, traceback, metrics, abort, and nothing after it."""
    prelude = "from hibana.vmm.running import Running\nRunning.get_version = lambda self: 1 // 0"
    vmm = start("--metrics-path", "metrics", guest=say("!") + HALT, program=interpreted(prelude))
    vmm.wait_for("!")
    with pytest.raises(ConnectionError):
        vmm.ask("GET", "/version")
    assert vmm.wait() == -signal.SIGABRT
    assert vmm.messages[-2].startswith("Firecracker panicked at ")
    assert vmm.messages[-1] == "integer division or modulo by zero"
    assert "ZeroDivisionError" in vmm.err
    assert '"panic_count":1' in (vmm.folder / "metrics").read_text().splitlines()[-1]


def test_a_bug_in_a_device_ends_the_microvm_in_order(start: Start) -> None:
    prelude = (
        "from hibana.devices.uart16550 import Uart16550\n"
        "def write(self, offset, size, value): raise ZeroDivisionError('in a device')\n"
        "Uart16550.write = write"
    )
    vmm = start("--metrics-path", "metrics", guest=say("!") + HALT, program=interpreted(prelude))
    assert vmm.wait() == 1
    assert "ZeroDivisionError: in a device" in vmm.messages
    assert vmm.messages[-1] == "Firecracker exiting with error. exit_code=1"
    assert vmm.out.count("Failure during vcpu run: Traceback") == 1


# --- a real guest -----------------------------------------------------------------------------------------------------

GUEST = ROOT / "build/guest"


@pytest.mark.skipif(not (GUEST / "vmlinux").exists(), reason="build/guest is not there: run tools/devtool guest")
def test_debian_boots_and_its_reboot_ends_the_process(start: Start) -> None:
    vmm = start("--log-path", "log", stdin=subprocess.PIPE)
    vmm.put("/machine-config", {"vcpu_count": 2, "mem_size_mib": 256})
    boot_args = "console=ttyS0 reboot=k panic=1 quiet 8250.nr_uarts=1"
    paths = {"kernel_image_path": f"{GUEST}/vmlinux", "initrd_path": f"{GUEST}/initrd.cpio"}
    vmm.put("/boot-source", {**paths, "boot_args": boot_args})
    vmm.put("/actions", START)
    vmm.wait_for("hibana:/# ")
    type_in(vmm, "reboot -f\n")
    assert vmm.wait() == 0


def type_in(vmm: Vmm, text: str) -> None:
    assert vmm.process.stdin
    vmm.process.stdin.write(text.encode())
    vmm.process.stdin.flush()
