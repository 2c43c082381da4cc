"""Who has taken the VMM over is in an empty room: every way out is tried, and every one is closed.

Each row of the table is the body of a function that runs inside the jailed VMM (see `escaped.py`): it returns its
loot, or the kernel refuses, in the way that stands beside it. Attacks that need a cgroup, a namespace or something
prepared follow below the table. docs/security.md has the whole picture.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import MakeJail
from tests.clients.escaped import escape, outcome
from tests.clients.jail import mount_of, network_namespace

ATTACKS = {
    # --- files of the host: the mount namespace holds nothing but the room ---
    "read a file of the host": ("return open('/etc/passwd').read()", "ENOENT"),
    "climb above the root": ("return open('/../../../../../../etc/passwd').read()", "ENOENT"),
    "find the old root": ("return os.listdir('/old_root')", "ENOENT"),
    "look for anything that is not the jail's": (
        "known = {'dev', 'firecracker', 'firecracker.pid', 'kernel', 'run', 'vm.json'}\n"
        "return set(os.listdir('/')) - known or call('open', b'/nothing', 0)",
        "ENOENT",
    ),
    "leave the root by a descriptor of a folder": (
        "for fd in range(3, 64):\n"
        "    try: return os.open('../../../../etc/passwd', os.O_RDONLY, dir_fd=fd)\n"
        "    except OSError as error: last = error\n"
        "raise last",
        "EBADF",
    ),
    "find an open file of the host": (
        "room = os.stat('/').st_dev\n"
        "for fd in range(3, 64):\n"
        "    try: there = os.fstat(fd)\n"
        "    except OSError: continue\n"
        "    if stat.S_ISDIR(there.st_mode): return fd\n"
        "    if stat.S_ISREG(there.st_mode) and there.st_nlink and there.st_dev != room: return fd\n"
        "raise OSError(errno.EBADF, '')",
        "EBADF",
    ),
    "take another root and step out of it": (
        "os.mkdir('/run/x'); call('chroot', b'/run/x'); return os.listdir('../../..')",
        "EPERM",
    ),
    "execute a shell": ("os.execv('/bin/sh', ['sh'])", "ENOENT"),
    "execute an interpreter": ("os.execv(sys.executable, ['python3'])", "ENOENT"),
    "import a module from a file that the guest made": (
        "os.mkdir('/run/m'); open('/run/m/evil.py', 'w').close()\n"
        "try: import evil\n"
        "except ImportError: raise OSError(errno.ENOENT, '')\n"
        "return evil",
        "ENOENT",
    ),
    # --- other processes: no /proc, no rights over strangers ---
    "read the processes of the host": ("return os.listdir('/proc')", "ENOENT"),
    "read the memory map of the parent": ("return open(f'/proc/{os.getppid()}/maps').read()", "ENOENT"),
    "mount a proc": ("os.mkdir('/run/p'); return call('mount', b'proc', b'/run/p', b'proc', 0, None)", "EPERM"),
    "signal a process outside": ("return os.kill({outside}, 0)", "EPERM"),
    "kill a process outside": ("return os.kill({outside}, signal.SIGKILL)", "EPERM"),
    "signal the first process of the host": ("return call('kill', 1, 0)", "EPERM"),
    "trace a process outside": ("return call('ptrace', 16, {outside}, None, None)", "EPERM"),
    "trace its own parent": ("return call('ptrace', 16, os.getppid(), None, None)", "EPERM"),
    "read the memory of a process outside": (
        "piece = struct.pack('QQ', id(attack), 8)\n"
        "return call('process_vm_readv', {outside}, piece, 1, piece, 1, 0)",
        "EPERM",
    ),
    "change the priority of a process outside": ("return os.setpriority(os.PRIO_PROCESS, {outside}, 19)", "EPERM"),
    "change the limits of a process outside": (
        "return resource.prlimit({outside}, resource.RLIMIT_NOFILE, (8, 8))",
        "EPERM",
    ),
    "take a descriptor of a process outside": (
        "pidfd = os.pidfd_open({outside}); return call('syscall', 438, pidfd, 0, 0)",
        "EPERM",
    ),
    # --- rights: none are left, and none come back ---
    "become root again": ("return os.setuid(0)", "EPERM"),
    "become root's group again": ("return os.setgid(0)", "EPERM"),
    "join other groups": ("return os.setgroups([0])", "EPERM"),
    "make a node for the host's disk": ("return os.mknod('/run/disk', stat.S_IFBLK, os.makedev(254, 0))", "EPERM"),
    "make a node for the host's memory": ("return os.mknod('/run/mem', stat.S_IFCHR, os.makedev(1, 1))", "EPERM"),
    "mount a file system": ("return call('mount', b'none', b'/run', b'tmpfs', 0, None)", "EPERM"),
    "bind a folder elsewhere": ("return call('mount', b'/dev', b'/run', None, 4096, None)", "EPERM"),
    "take a mount away": ("return call('umount2', b'/', 2)", "EPERM"),
    "change the root mount": ("return call('syscall', 155, b'/', b'/run')", "EPERM"),
    "leave the mount namespace": ("return call('unshare', 0x20000)", "EPERM"),
    "leave the network namespace": ("return call('unshare', 0x40000000)", "EPERM"),
    "give a file to root": ("return os.chown('/kernel', 0, 0)", "EPERM"),
    "overwrite the pid file, which belongs to root": ("return open('/firecracker.pid', 'w')", "EACCES"),
    "raise a limit": (
        "try: return resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        "except ValueError: raise OSError(errno.EPERM, '')",
        "EPERM",
    ),
    "open more files than allowed": ("while True: os.dup(0)", "EMFILE"),
    "speak to hardware": ("return call('iopl', 3)", "EPERM ENOSYS"),
    "load a kernel module": ("return call('syscall', 175, None, 0, b'')", "EPERM ENOSYS"),
    "name the host": ("return socket.sethostname(socket.gethostname())", "EPERM"),
    "set the clock": ("return time.clock_settime(time.CLOCK_REALTIME, time.time())", "EPERM"),
    "open a raw socket": ("return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", "EPERM"),
    "listen to the wire": ("return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)", "EPERM"),
    "make a tap interface": (
        "tun = os.open('/dev/net/tun', os.O_RDWR)\n"
        "return fcntl.ioctl(tun, 0x400454CA, struct.pack('16sH22x', b'escape0', 2))",
        "EPERM",
    ),
    # A user namespace gives all rights, over nothing: those of the room, which is as empty as before.
    "become root of an own user namespace, and mount a proc": (
        "call('unshare', 0x10000000 | 0x20000); os.mkdir('/run/p')\n"
        "return call('mount', b'proc', b'/run/p', b'proc', 0, None)",
        "EPERM EINVAL",
    ),
    "become root of an own user namespace, and make a node": (
        "call('unshare', 0x10000000 | 0x20000)\n"
        "return os.mknod('/run/disk', 0o600 | stat.S_IFBLK, os.makedev(254, 0))",
        "EPERM EINVAL",
    ),
    # --- memory of before: what the jailer knew ---
    "read the environment of whoever started the jailer": (
        "import posix\n"
        "known = [*os.environ, *posix.environ]\n"
        "libc.getenv.restype = ctypes.c_char_p\n"
        "return known or libc.getenv(b'SECRET') or call('open', b'/nothing', 0)",
        "ENOENT",
    ),
}  # fmt: skip

JAIL_ALONE = ("--no-seccomp",)
WITH_FILTERS = ()
FILTERED = {"refused: EPERM", "killed: 148"}
"""What becomes of a system call that a seccomp filter traps: it fails, and soon the VMM ends."""


@pytest.mark.parametrize("barriers", [JAIL_ALONE, WITH_FILTERS], ids=["the jail alone", "with filters"])
@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_gets_out(name: str, barriers: tuple[str, ...], jail: MakeJail) -> None:
    attack, errors = ATTACKS[name]
    refusals = {f"refused: {error}" for error in errors.split()}
    with subprocess.Popen(["sleep", "1000"]) as outside:
        try:
            vmm = escape(jail, attack.replace("{outside}", str(outside.pid)), vmm=barriers)
            assert outcome(vmm) in (refusals if barriers == JAIL_ALONE else refusals | FILTERED)
            assert outside.poll() is None
        finally:
            outside.kill()


def test_an_attack_that_meets_no_barrier_is_noticed(jail: MakeJail) -> None:
    assert outcome(escape(jail, "return os.getpid()", vmm=JAIL_ALONE)).startswith("ESCAPED: ")


def test_files_that_the_caller_had_open_are_closed(jail: MakeJail, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    attack = (
        "for fd in range(3, 1024):\n"
        "    try: there = os.fstat(fd)\n"
        "    except OSError: continue\n"
        f"    if there.st_ino == {(tmp_path / 'secret').stat().st_ino}: return fd\n"
        "raise OSError(errno.EBADF, '')"
    )
    with open(tmp_path / "secret") as secret:
        os.set_inheritable(secret.fileno(), True)
        vmm = escape(jail, attack, vmm=JAIL_ALONE, popen={"close_fds": False})
        assert outcome(vmm) == "refused: EBADF"


# --- more than its share ----------------------------------------------------------------------------------------------


def mount(controller: str) -> tuple[int, Path]:
    """Find the version of cgroups that has a controller on this machine, and where; or skip."""
    for version in (2, 1):
        if path := mount_of(version, controller):
            return version, path
    pytest.skip(f"this machine has no cgroups with the {controller} controller")


def test_memory_beyond_the_cgroup_is_the_end(jail: MakeJail) -> None:
    version, _ = mount("memory")
    limit = {1: "memory.limit_in_bytes", 2: "memory.max"}[version]
    vmm = escape(
        jail,
        "memory = mmap.mmap(-1, 1 << 30)\nfor at in range(0, 1 << 30, 4096): memory[at] = 1\nreturn 'all of it'",
        *("--cgroup-version", str(version), "--cgroup", f"{limit}={256 << 20}"),
        vmm=JAIL_ALONE,
        parent_cgroup=jail.parent_cgroup,
    )
    assert outcome(vmm) == "killed: -9"


def test_a_fork_bomb_does_not_go_off(jail: MakeJail) -> None:
    version, top = mount("pids")
    vmm = escape(
        jail,
        "for _ in range(100):\n    if os.fork() == 0:\n        time.sleep(1000)\nreturn 'a hundred'",
        *("--cgroup-version", str(version), "--cgroup", "pids.max=20"),
        vmm=JAIL_ALONE,
        parent_cgroup=jail.parent_cgroup,
    )
    assert outcome(vmm) == "refused: EAGAIN"
    for pid in (top / jail.parent_cgroup / jail.room.name / "cgroup.procs").read_text().split():
        os.kill(int(pid), 9)


def test_a_file_does_not_grow_beyond_the_limit(jail: MakeJail) -> None:
    attack = (
        "libc.signal(signal.SIGXFSZ, 1)\n"
        "with open('/run/large', 'wb', 0) as file:\n"
        "    while True: file.write(bytes(1 << 20))"
    )
    assert outcome(escape(jail, attack, "--resource-limit", f"fsize={8 << 20}", vmm=JAIL_ALONE)) == "refused: EFBIG"
    assert (jail.room.root / "run/large").stat().st_size <= 8 << 20


def test_another_network_namespace_reaches_nobody(jail: MakeJail) -> None:
    attack = "return socket.socket().connect(('127.0.0.1', 80))"
    with network_namespace() as namespace:
        assert outcome(escape(jail, attack, vmm=JAIL_ALONE, netns=namespace)) == "refused: ENETUNREACH"


def test_in_a_pid_namespace_nobody_else_can_even_be_named(jail: MakeJail) -> None:
    with subprocess.Popen(["sleep", "1000"]) as outside:
        try:
            vmm = escape(jail, f"return os.kill({outside.pid}, 9)", "--new-pid-ns", vmm=JAIL_ALONE)
            assert vmm.wait() == 0
            vmm.wait_for("refused: ESRCH")
        finally:
            outside.kill()
