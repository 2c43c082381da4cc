"""seccomp as users meet it: which threads are filtered when, by whose filters, and what a trapped call looks like."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Start
from tests.clients.process import FLUSH_METRICS, ROOT, SEND_CTRL_ALT_DEL, START, Vmm, config, interpreted
from tests.clients.tiny_guests import HALT, RESET, SPIN, WAIT_FOR_KEYS, kernel, say

ALLOW_ALL: dict[str, Any] = {"default_action": "allow", "filter_action": "trap", "filter": []}


def levels(vmm: Vmm) -> dict[str, tuple[str, str]]:
    """Tell of each thread whether it is filtered (2), and whether it can gain privileges (0)."""
    found = {}
    for task in Path(f"/proc/{vmm.process.pid}/task").iterdir():
        status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        found[status["Name"]] = (status["Seccomp"], status["NoNewPrivs"])
    return found


def compile_filters(folder: Path, *arguments: str, **policy: object) -> str:
    """Compile a policy as users do; categories that are not given allow everything."""
    whole = {"vmm": ALLOW_ALL, "api": ALLOW_ALL, "vcpu": ALLOW_ALL} | policy
    (folder / "policy.json").write_text(json.dumps(whole))
    command = interpreted()
    command[-1] = command[-1].replace("firecracker", "seccompiler")
    subprocess.run(
        [*command, "-t", "x86_64", "-i", "policy.json", "-o", "filters", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT / "src")},
        check=True,
    )
    return "filters"


def trapping(syscall: str, action: str = "trap") -> dict[str, Any]:
    return {"default_action": "allow", "filter_action": action, "filter": [{"syscall": syscall}]}


# --- which threads ----------------------------------------------------------------------------------------------------


def test_every_thread_is_filtered_once_the_guest_runs_and_none_before(start: Start, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(kernel(say("!") + HALT))
    vmm = start()
    assert vmm.state == "Not started"
    assert set(levels(vmm).values()) == {("0", "0")}
    vmm.boot()
    vmm.wait_for("!")
    assert {name.split(" ")[0]: level for name, level in levels(vmm).items()} == {
        vmm.comm(): ("2", "1"),
        "fc_vcpu": ("2", "1"),
    }


def test_no_thread_is_filtered_if_that_is_asked_for(start: Start) -> None:
    vmm = start("--no-seccomp", guest=say("!") + HALT)
    vmm.wait_for("!")
    assert set(levels(vmm).values()) == {("0", "0")}


@pytest.mark.parametrize("api", [None, "api.socket"])
def test_a_guest_runs_under_the_users_own_filters(api: str | None, start: Start, tmp_path: Path) -> None:
    vmm = start("--seccomp-filter", compile_filters(tmp_path), guest=say("!") + HALT, api=api)
    vmm.wait_for("!")
    assert set(levels(vmm).values()) == {("2", "1")}


def test_categories_may_be_written_in_any_case(start: Start, tmp_path: Path) -> None:
    filters = compile_filters(tmp_path)
    (tmp_path / filters).write_bytes((tmp_path / filters).read_bytes().replace(b"vcpu", b"vCPU"))
    assert start("--seccomp-filter", filters, guest=RESET).wait() == 0


# --- everything that the API can ask, filtered ------------------------------------------------------------------------


@pytest.mark.parametrize("io_engine", ["Sync", "Async"])
def test_what_clients_ask_of_a_running_microvm_is_allowed(io_engine: str, start: Start, tmp_path: Path) -> None:
    for name, size in (("one", 1024), ("two", 4096)):
        (tmp_path / name).write_bytes(bytes(size))
    drive = {"drive_id": "d", "path_on_host": "one", "is_root_device": False, "io_engine": io_engine}
    vmm = start(
        "--metrics-path", "metrics", guest=say("!") + WAIT_FOR_KEYS + RESET, configuration=config(drives=[drive])
    )
    vmm.wait_for("!")
    vmm.patch("/drives/d", {"drive_id": "d", "path_on_host": "two"})
    vmm.patch("/drives/d", {"drive_id": "d", "rate_limiter": {"ops": {"size": 1, "refill_time": 100}}})
    assert "os error 2" in vmm.fault("PATCH", "/drives/d", {"drive_id": "d", "path_on_host": "three"})
    vmm.patch("/vm", {"state": "Paused"})
    assert vmm.state == "Paused"
    vmm.patch("/vm", {"state": "Resumed"})
    for path in ("/version", "/vm/config", "/machine-config"):
        vmm.get(path)
    vmm.fault("PUT", "/boot-source", {"kernel_image_path": "kernel"})
    vmm.put("/actions", FLUSH_METRICS)
    vmm.put("/actions", SEND_CTRL_ALT_DEL)
    assert vmm.wait() == 0


# --- a trapped call ---------------------------------------------------------------------------------------------------

ON_THE_LOOP = "from hibana.vmm.running import Running\nimport os\nRunning.get_version = lambda self: {}"
ON_THE_VCPU = f"{ON_THE_LOOP[:-2]}self._machine.ask_devices(lambda: {{}})"


@pytest.mark.parametrize("place", [ON_THE_LOOP, ON_THE_VCPU], ids=["loop", "vcpu"])
@pytest.mark.parametrize("guest", [HALT, SPIN], ids=["halted", "busy"])
@pytest.mark.parametrize(
    ("call", "number"),
    [("os.getppid()", 110), ("os.execv('/bin/true', ['true'])", 59), ("os.mkdir('folder')", 83)],
)
def test_a_trapped_call_is_logged_counted_and_ends_the_process(
    place: str, guest: bytes, call: str, number: int, start: Start
) -> None:
    prelude = place.replace("{}", call, 1)
    vmm = start("--metrics-path", "metrics", guest=say("!") + guest, program=interpreted(prelude))
    vmm.wait_for("!")
    try:
        vmm.ask("GET", "/version")
    except ConnectionError:
        pass
    assert vmm.wait() == 148
    assert vmm.messages[-2:] == [
        "Shutting down VM after intercepting signal 31, code 1.",
        f"Shutting down VM after intercepting a bad syscall ({number}).",
    ]
    assert json.loads((vmm.folder / "metrics").read_text().splitlines()[-1])["seccomp"]["num_faults"] == 1
    assert not (vmm.folder / "folder").exists()


@pytest.mark.parametrize(
    "call", ["threading.Thread(target=print).start()", "os.posix_spawn('/bin/true', ['true'], {})"]
)
def test_what_the_c_library_does_with_all_signals_blocked_kills_at_once(call: str, start: Start) -> None:
    """No handler can run then, so there is no last word; but nor is there a thread or a program."""
    prelude = f"import threading\n{ON_THE_LOOP.replace('{}', call, 1)}"
    vmm = start(guest=say("!") + HALT, program=interpreted(prelude))
    vmm.wait_for("!")
    with pytest.raises(ConnectionError):
        vmm.ask("GET", "/version")
    assert vmm.wait() == -signal.SIGSYS


def test_a_users_filter_traps_what_it_says(start: Start, tmp_path: Path) -> None:
    filters = compile_filters(tmp_path, vcpu=trapping("ppoll"))
    vmm = start("--seccomp-filter", filters, guest=say("!") + HALT)
    assert vmm.wait() == 148
    assert "Shutting down VM after intercepting a bad syscall (271)." in vmm.messages


@pytest.mark.parametrize("category", ["vmm", "api"])
def test_the_thread_of_the_loop_obeys_both_of_its_categories(category: str, start: Start, tmp_path: Path) -> None:
    filters = compile_filters(tmp_path, **{category: trapping("accept4")})
    vmm = start("--seccomp-filter", filters, guest=say("!") + HALT)
    vmm.wait_for("!")
    try:
        vmm.ask("GET", "/")
    except ConnectionError:
        pass
    assert vmm.wait() == 148
    assert vmm.messages[-1] == "Shutting down VM after intercepting a bad syscall (288)."


def test_a_users_filter_may_kill_without_a_word(start: Start, tmp_path: Path) -> None:
    filters = compile_filters(tmp_path, vcpu=trapping("ppoll", "kill_process"))
    vmm = start("--seccomp-filter", filters, guest=say("!") + HALT)
    assert vmm.wait() == -signal.SIGSYS


# --- filters that cannot be used --------------------------------------------------------------------------------------


def too_large(folder: Path) -> str:
    (folder / "filters").write_bytes(bytes(100_001))
    return "filters"


def damaged(folder: Path) -> str:
    filters = compile_filters(folder)
    (folder / filters).write_bytes((folder / filters).read_bytes()[:-1])
    return filters


def from_elsewhere(folder: Path) -> str:
    (folder / "filters").write_bytes(b"\x03\x04vcpu")
    return "filters"


def incomplete(folder: Path) -> str:
    filters = compile_filters(folder)
    (folder / "policy.json").write_text(json.dumps({"vmm": ALLOW_ALL, "api": ALLOW_ALL}))
    return filters


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda _: "nowhere", "Filter file open error: No such file or directory (os error 2)"),
        (lambda _: ".", "Filter deserialization failed: Failed to read input: Is a directory (os error 21)"),
        (too_large, "Filter deserialization failed: Input size 100001 exceeds limit of 100000 bytes"),
        (damaged, "Filter deserialization failed: Bitcode deserialization failed: the file is damaged"),
        (
            from_elsewhere,
            "Filter deserialization failed: Bitcode deserialization failed: it was not written by the seccompiler-bin"
            " that belongs to this program",
        ),
        (lambda folder: compile_filters(folder, disk=ALLOW_ALL, zoo=ALLOW_ALL), "Invalid thread categories: disk,zoo"),
    ],
)
def test_filters_that_cannot_be_used_end_the_process_before_there_is_a_socket(
    make: Callable[[Path], str], sentence: str, start: Start, tmp_path: Path
) -> None:
    vmm = start("--seccomp-filter", make(tmp_path))
    assert vmm.wait() == 1
    assert vmm.messages[-2:] == [f"Seccomp error: {sentence}", "Firecracker exiting with error. exit_code=1"]
    assert vmm.err == f"Error: Seccomp error: {sentence}\n"
    assert not (tmp_path / "api.socket").exists()


def too_long(count: int = 4100) -> dict[str, Any]:
    """A filter of more instructions than the kernel takes."""
    rules = [
        {"syscall": "ioctl", "args": [{"index": 1, "type": "dword", "op": "eq", "val": value}]}
        for value in range(count)
    ]
    return {"default_action": "allow", "filter_action": "trap", "filter": rules}


TOO_LONG = "Filter length exceeds the maximum size of 4096 instructions"


@pytest.mark.parametrize("from_file", [True, False], ids=["file", "api"])
def test_a_filter_that_the_loops_thread_cannot_install_ends_the_process(
    from_file: bool, start: Start, tmp_path: Path
) -> None:
    vmm = boot_in_vain(start, tmp_path, compile_filters(tmp_path, vmm=too_long()), from_file)
    assert vmm.wait() == 1
    assert vmm.err == f"Error: RunWithApiError error: Failed to install vmm seccomp filter: {TOO_LONG}\n"


@pytest.mark.parametrize("from_file", [True, False], ids=["file", "api"])
def test_a_filter_that_a_vcpu_cannot_install_is_a_panic(from_file: bool, start: Start, tmp_path: Path) -> None:
    vmm = boot_in_vain(start, tmp_path, compile_filters(tmp_path, vcpu=too_long()), from_file)
    assert vmm.wait() == -signal.SIGABRT
    assert vmm.messages[-1] == f"Failed to set the requested seccomp filters on vCPU 0: Error: {TOO_LONG}"
    assert "!" not in vmm.out


def boot_in_vain(start: Start, folder: Path, filters: str, from_file: bool) -> Vmm:
    if from_file:
        return start("--seccomp-filter", filters, guest=say("!") + HALT)
    (folder / "kernel").write_bytes(kernel(say("!") + HALT))
    vmm = start("--seccomp-filter", filters)
    vmm.put("/boot-source", {"kernel_image_path": "kernel"})
    with pytest.raises(ConnectionError):
        vmm.ask("PUT", "/actions", START)
    return vmm
