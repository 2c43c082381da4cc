"""Jails as clients make them: what they prepare, what they find, which sentences they read (operations.md §1)."""

import os
import stat
import subprocess
from http.client import HTTPException
from pathlib import Path

import pytest

from hibana.errors import NoCgroupHierarchy
from hibana.jail import cgroup, linux
from tests.clients.conftest import MakeJail
from tests.clients.jail import JAILER, SOCKET_IN_JAIL, mount_of, network_namespace
from tests.clients.process import FLUSH_METRICS, LAUNCHER
from tests.clients.tiny_guests import HALT, RESET, say
from tests.clients.tiny_programs import SHOW_ARGUMENTS


def jailer(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(JAILER), *words], check=False, capture_output=True, text=True)


def refusal(*words: str) -> str:
    """Expect the end of a jailer that creates nothing: its sentence, twice."""
    done = jailer(*words)
    assert done.returncode == 1
    assert done.stdout == ""
    sentence, _, again = done.stderr.partition("\nError: ")
    assert again == f"{sentence}\n"
    return sentence


REQUIRED = ("--id", "x", "--exec-file", "/bin/true", "--uid", "1", "--gid", "1")
IN_ROOT = (*REQUIRED, "--chroot-base-dir", "/")

# --- words ------------------------------------------------------------------------------------------------------------


def test_versions_and_help_are_printed_and_nothing_else_happens() -> None:
    version = jailer("--foo", "--version")
    assert version.returncode == 0
    assert version.stdout.splitlines()[:2] == ["Jailer v1.17.0-dev", ""]
    text = jailer("-h", "--version").stdout
    assert text.startswith("Jailer v1.17.0-dev\n\nrequired arguments:\n  --exec-file <exec-file>   ")
    assert "after a lone `--`" in text.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "Argument 'exec-file' required, but not found."),
        (("--foo",), "Found argument 'foo' which wasn't expected, or isn't valid in this context."),
        (REQUIRED[2:], "Argument 'id' required, but not found."),
        ((*REQUIRED, "--id", "y"), "The argument 'id' was provided more than once."),
        ((*REQUIRED, "--netns"), "The argument 'netns' requires a value, but none was supplied."),
    ],
)
def test_a_command_line_that_makes_no_sense(words: tuple[str, ...], sentence: str) -> None:
    assert refusal(*words) == f"Failed to parse arguments: {sentence}"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--id", "", *REQUIRED[2:]), "Invalid instance ID: Invalid len (0);  the length must be between 1 and 64"),
        ((*REQUIRED, "--chroot-base-dir", "/dev/null"), "/dev/null is not a directory"),
        ((*IN_ROOT, "--parent-cgroup", "/"),
         "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'"),
        ((*IN_ROOT, "--cgroup-version", "x"), "x is an invalid cgroup version specifier"),
        ((*IN_ROOT, "--cgroup-version", "3", "--cgroup", "nonsense"),
         "Hierarchy not found: No hierarchy found for this cgroup version."),
        ((*IN_ROOT, "--resource-limit", "fsize=1", "--resource-limit", "cpu=1"), "Invalid resource argument: cpu"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(words: tuple[str, ...], sentence: str) -> None:
    assert refusal(*words) == sentence


# --- the room ---------------------------------------------------------------------------------------------------------


def test_a_guest_runs_in_a_jail(jail: MakeJail) -> None:
    vmm = jail(guest=say("ok") + RESET)
    assert vmm.wait() == 0
    assert "ok" in vmm.console
    assert vmm.messages[-1] == "Firecracker exiting successfully. exit_code=0"
    assert vmm.err == ""


def test_everything_in_the_jail_has_the_mode_and_owner_that_clients_check(jail: MakeJail) -> None:
    vmm = jail()
    assert vmm.state == "Not started"
    uid = jail.room.uid
    folder, node, file, socket = stat.S_IFDIR, stat.S_IFCHR, stat.S_IFREG, stat.S_IFSOCK
    wanted = {
        ".": (folder | 0o700, uid, 0),
        "dev": (folder | 0o700, uid, 0),
        "dev/net": (folder | 0o700, uid, 0),
        "dev/net/tun": (node | 0o600, uid, os.makedev(10, 200)),
        "dev/kvm": (node | 0o600, uid, os.makedev(10, 232)),
        "dev/urandom": (node | 0o600, uid, os.makedev(1, 9)),
        "run": (folder | 0o700, uid, 0),
        "run/firecracker.socket": (socket | 0o755, uid, 0),
        "firecracker": (file | stat.S_IMODE(LAUNCHER.stat().st_mode), uid, 0),
        "firecracker.pid": (file | 0o644, 0, 0),
    }
    found = [Path(), *(path.relative_to(vmm.folder) for path in vmm.folder.rglob("*"))]
    there = {str(path): vmm.folder.joinpath(path).lstat() for path in found if path.name != "userfaultfd"}
    assert {path: (item.st_mode, item.st_uid, item.st_rdev) for path, item in there.items()} == wanted


def test_the_process_looks_as_if_firecracker_had_been_executed(jail: MakeJail) -> None:
    vmm = jail()
    assert vmm.get("/")["id"] == jail.room.name
    assert vmm.pid == vmm.process.pid
    assert vmm.comm() == "firecracker"
    words = Path(f"/proc/{vmm.pid}/cmdline").read_text().split("\0")
    if words[0] != "/firecracker":
        pytest.skip("this kernel lets no process change its command line (CONFIG_CHECKPOINT_RESTORE)")
    assert words[:3] == ["/firecracker", "--id", jail.room.name]
    assert words[3::2] == ["--start-time-us", "--start-time-cpu-us", "--parent-cpu-time-us", ""]
    assert all(word.isdigit() for word in words[4::2])


def test_the_process_has_no_rights_left(jail: MakeJail) -> None:
    vmm = jail()
    assert vmm.state == "Not started"
    uid = str(jail.room.uid)
    assert vmm.status("Uid") == vmm.status("Gid") == [uid] * 4
    assert vmm.status("Groups") == []
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(vmm.status(kind)[0], 16) == 0


def test_another_process_of_the_same_user_cannot_look_into_it(jail: MakeJail) -> None:
    vmm = jail()
    assert vmm.state == "Not started"
    uid = jail.room.uid
    for name in ("environ", "mem", "maps"):
        command = ["/bin/cat", f"/proc/{vmm.pid}/{name}"]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, user=uid, group=uid, extra_groups=[]
        )
        assert "Permission denied" in done.stderr


def test_arguments_after_the_dashes_are_the_vmms(jail: MakeJail) -> None:
    log = jail.room.put("log")
    vmm = jail(vmm=["--api-sock", "/my.socket", "--log-path", "/log", "--level", "Debug"])
    vmm.speak_to(vmm.folder / "my.socket")
    assert vmm.state == "Not started"
    assert "API server started" in log.read_text()


def test_a_second_id_is_one_too_many_for_the_vmm(jail: MakeJail) -> None:
    vmm = jail(vmm=["--id", "other"])
    assert vmm.wait() == 153
    assert "The argument 'id' was provided more than once." in vmm.err


def test_hard_links_and_bind_mounts_that_clients_prepare_are_there(jail: MakeJail, tmp_path: Path) -> None:
    jail.room.furnish(say("linked") + RESET)
    root = jail.room.root
    kernel = tmp_path / "kernel"
    (root / "kernel").rename(kernel)
    (root / "kernel").hardlink_to(kernel)
    (tmp_path / "outside").mkdir()
    (root / "vm.json").rename(tmp_path / "outside/vm.json")
    (root / "inside").mkdir()
    linux.mount(str(tmp_path / "outside"), str(root / "inside"), linux.MS_BIND)
    try:
        vmm = jail(vmm=["--no-api", "--config-file", "/inside/vm.json"])
        assert vmm.wait() == 0
        assert "linked" in vmm.console
    finally:
        linux.umount(str(root / "inside"), 0)


def test_a_mount_that_appears_later_appears_in_the_jail_too(jail: MakeJail, tmp_path: Path) -> None:
    # The jail is a slave of the host's mounts (MS_SLAVE): what the operator mounts below it propagates.
    (jail.room.root / "later").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kernel").touch()
    root = str(jail.room.root)
    linux.mount(root, root, linux.MS_BIND)
    linux.mount(None, root, 1 << 20)  # MS_SHARED
    try:
        vmm = jail()
        assert vmm.state == "Not started"
        linux.mount(str(tmp_path / "outside"), f"{root}/later", linux.MS_BIND)
        vmm.put("/boot-source", {"kernel_image_path": "/later/kernel"})
        linux.umount(f"{root}/later", linux.MNT_DETACH)
    finally:
        linux.umount(root, linux.MNT_DETACH)


def test_an_id_is_used_once_and_an_aborted_run_blocks_no_other(jail: MakeJail) -> None:
    assert jail(guest=RESET).wait() == 0
    again = jail()
    assert again.wait() == 1
    sentence = "Failed to create /dev/net/tun via mknod inside the jail: File exists (os error 17)"
    assert again.err == f"{sentence}\nError: {sentence}\n"
    other = jail.room.command(vmm=["--no-api", "--config-file", "/none"], id=f"{jail.room.name}-2")
    done = jailer(*other)
    assert "Unable to open or read from the configuration file" in done.stdout


def test_another_program_is_copied_and_executed_in_the_jail(jail: MakeJail, tmp_path: Path) -> None:
    program = tmp_path / "other"
    program.write_bytes(SHOW_ARGUMENTS)
    program.chmod(0o755)
    vmm = jail(exec_file=str(program), vmm=["one", "two"], environment={"SECRET": "x"})
    assert vmm.wait() == 7
    assert vmm.out.startswith(f"/other\0--id\0{jail.room.name}\0--start-time-us\0")
    # Where the environment would be, there is the name of the file already.
    assert vmm.out.rstrip("\0").endswith("\0one\0two\0/other")


def test_a_program_that_cannot_be_executed(jail: MakeJail, tmp_path: Path) -> None:
    program = tmp_path / "nothing"
    program.write_bytes(b"\x7fELF but not really")
    program.chmod(0o755)
    vmm = jail(exec_file=str(program))
    assert vmm.wait() == 1
    assert vmm.err.startswith("Failed to exec into Firecracker: Exec format error (os error 8)\n")


def test_a_copy_of_our_own_program_is_recognised(jail: MakeJail, tmp_path: Path) -> None:
    copy = tmp_path / "my-vmm"
    copy.write_bytes(LAUNCHER.read_bytes())
    copy.chmod(0o755)
    vmm = jail(exec_file=str(copy))
    vmm.folder = jail.room.base / "my-vmm" / jail.room.name / "root"
    vmm.speak_to(vmm.folder / SOCKET_IN_JAIL)
    assert vmm.state == "Not started"


# --- processes --------------------------------------------------------------------------------------------------------


def test_a_daemon_leaves_its_parent_and_its_terminal(jail: MakeJail) -> None:
    jail.room.put("log")
    vmm = jail("--daemonize", vmm=["--log-path", "/log"])
    assert vmm.process.wait() == 0
    assert vmm.pid != vmm.process.pid
    assert vmm.state == "Not started"
    assert [os.readlink(f"/proc/{vmm.pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
    assert os.getsid(vmm.pid) != os.getsid(0)
    assert vmm.out == vmm.err == ""


def test_a_new_pid_namespace_begins_with_the_vmm(jail: MakeJail) -> None:
    vmm = jail("--new-pid-ns")
    assert vmm.process.wait() == 0
    assert vmm.state == "Not started"
    assert vmm.status("NStgid") == [str(vmm.pid), "1"]


def test_a_daemon_in_a_new_pid_namespace(jail: MakeJail) -> None:
    vmm = jail("--daemonize", "--new-pid-ns")
    assert vmm.process.wait() == 0
    assert vmm.state == "Not started"
    assert vmm.status("NStgid") == [str(vmm.pid), "1"]


def test_the_end_of_a_session_leading_jailer_does_not_hang_up_on_the_vmm(jail: MakeJail) -> None:
    vmm = jail("--new-pid-ns", popen={"start_new_session": True})
    assert vmm.process.wait() == 0
    assert vmm.state == "Not started"
    assert os.getsid(vmm.pid) == vmm.pid


# --- limits and cgroups -----------------------------------------------------------------------------------------------


def test_the_number_of_open_files_is_limited(jail: MakeJail) -> None:
    vmm = jail()
    assert vmm.state == "Not started"
    limits = Path(f"/proc/{vmm.pid}/limits").read_text()
    assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files")] == [["2048"] * 2]


def test_too_few_files_are_an_error_in_the_references_words(jail: MakeJail) -> None:
    vmm = jail("--resource-limit", "no-file=3")
    assert vmm.wait() != 0
    assert "No file descriptors available (os error 24)" in vmm.out + vmm.err


def test_a_file_that_grows_too_large_ends_the_vmm(jail: MakeJail) -> None:
    metrics = jail.room.put("metrics")
    jail.room.furnish(HALT)
    words = ["--config-file", "/vm.json", "--metrics-path", "/metrics"]
    vmm = jail("--resource-limit", "fsize=1000", vmm=words)
    try:
        while True:  # a line is cut at the limit, and the next one is too many
            vmm.put("/actions", FLUSH_METRICS)
    except (OSError, AssertionError, HTTPException):
        assert vmm.wait() == 151
    assert metrics.stat().st_size <= 1000


def mount(version: int, controller: str) -> Path:
    """Find a controller's cgroups, or skip."""
    path = mount_of(version, controller)
    if path is None:
        pytest.skip(f"this machine has no {controller} controller of cgroup version {version}")
    return path


def test_a_jail_has_its_cgroups_of_version_1(jail: MakeJail) -> None:
    mounts = {name: mount(1, name) for name in ("cpuset", "pids")}
    vmm = jail(
        *("--cgroup", "cpuset.cpus=0", "--cgroup", "cpuset.mems=0", "--cgroup", "pids.max=77"),
        parent_cgroup=jail.parent_cgroup,
    )
    assert vmm.state == "Not started"
    folders = {name: path / jail.parent_cgroup / jail.room.name for name, path in mounts.items()}
    assert (folders["cpuset"] / "cpuset.cpus").read_text() == "0\n"
    assert (folders["pids"] / "pids.max").read_text() == "77\n"
    for folder in folders.values():
        assert (folder / "tasks").read_text().split() == [str(vmm.pid)]


def test_a_jail_has_its_cgroup_of_version_2(jail: MakeJail) -> None:
    offered = {"hugetlb": "hugetlb.2MB.max", "pids": "pids.max", "memory": "memory.max", "cpu": "cpu.weight"}
    name = next((name for name in offered if mount_of(2, name)), None)
    if name is None:
        pytest.skip("this machine's cgroup version 2 has no controller to give away")
    value = {"cpu": "50", "hugetlb": "2097152"}.get(name, "1073741824")
    vmm = jail(*("--cgroup-version", "2", "--cgroup", f"{offered[name]}={value}"), parent_cgroup=jail.parent_cgroup)
    assert vmm.state == "Not started"
    folder = mount(2, name) / jail.parent_cgroup / jail.room.name
    assert (folder / offered[name]).read_text() == f"{value}\n"
    assert (folder / "cgroup.procs").read_text().split() == [str(vmm.pid)]


def test_a_jail_without_values_joins_the_parent_of_version_2(jail: MakeJail) -> None:
    try:
        parent = Path(cgroup.hierarchies(2)[0].folder) / jail.parent_cgroup
    except NoCgroupHierarchy:
        pytest.skip("this machine has no cgroups of version 2")
    parent.mkdir()
    vmm = jail("--cgroup-version", "2", parent_cgroup=jail.parent_cgroup)
    assert vmm.state == "Not started"
    assert (parent / "cgroup.procs").read_text().split() == [str(vmm.pid)]


# --- network ----------------------------------------------------------------------------------------------------------


def test_a_network_namespace_that_is_none(jail: MakeJail) -> None:
    missing = jail(netns="/no/such")
    assert missing.wait() == 1
    assert missing.err.startswith("Failed to open file /no/such: No such file or directory (os error 2)\n")


def test_a_file_that_is_no_network_namespace(jail: MakeJail) -> None:
    wrong = jail(netns="/dev/null")
    assert wrong.wait() == 1
    assert wrong.err.startswith("Failed to join network namespace: netns: Invalid argument (os error 22)\n")


def test_the_jail_joins_a_network_namespace(jail: MakeJail) -> None:
    with network_namespace() as namespace:
        vmm = jail(netns=namespace)
        assert vmm.state == "Not started"
        assert os.stat(f"/proc/{vmm.pid}/ns/net").st_ino == os.stat(namespace).st_ino
