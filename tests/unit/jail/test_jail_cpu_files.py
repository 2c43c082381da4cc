"""What an aarch64 host says about its CPU, in the room; a folder plays the host."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hibana.errors import VmmError
from hibana.jail import cpu_files
from hibana.jail.chroot import Owner

ME = Owner(os.getuid(), os.getgid())
CPU = "sys/devices/system/cpu/cpu0"
IDENTITY = f"{CPU}/regs/identification/midr_el1"
CACHE = {
    "size": "64K\n",
    "level": "1\n",
    "type": "Data\n",
    "shared_cpu_map": "1\n",
    "coherency_line_size": "64\n",
    "number_of_sets": "256\n",
}


class Host:
    """A host's sysfs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.say(IDENTITY, "0x00000000410fd0c0\n")

    def say(self, path: str, content: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(content)

    def cache(self, index: int, **files: str) -> None:
        for name, content in (CACHE | files).items():
            self.say(f"{CPU}/cache/index{index}/{name}", content)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


@pytest.fixture
def room(tmp_path: Path) -> Path:
    (tmp_path / "room").mkdir()
    return tmp_path / "room"


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def copy(host: Host, room: Path) -> None:
    cpu_files.copy(str(room), ME, str(host.folder))


def refused(host: Host, room: Path) -> str:
    with pytest.raises(VmmError) as caught:
        copy(host, room)
    assert caught.value.exit_code == 1
    return str(caught.value)


# --- what is copied ---------------------------------------------------------------------------------------------------


def test_the_room_has_the_hosts_caches_and_its_cpus_identity_where_the_host_has_them(host: Host, room: Path) -> None:
    host.cache(0)
    host.cache(1, type="Instruction\n")
    copy(host, room)
    assert files(room) == files(host.folder)
    assert len(files(room)) == 2 * len(CACHE) + 1


def test_a_file_is_its_content_and_one_newline(host: Host, room: Path) -> None:
    host.cache(0, size="64K", level="", type="Data\n\n")
    copy(host, room)
    found = files(room)
    assert [found[f"{CPU}/cache/index0/{name}"] for name in ("size", "level", "type")] == ["64K\n", "\n", "Data\n\n"]


def test_nothing_else_that_the_host_says_is_copied(host: Host, room: Path) -> None:
    host.cache(0, ways_of_associativity="4\n")
    host.say(f"{CPU}/regs/identification/revidr_el1", "0\n")
    host.say("sys/devices/system/cpu/cpu1/cache/index0/size", "64K\n")
    copy(host, room)
    assert set(files(room)) == {IDENTITY, *(f"{CPU}/cache/index0/{name}" for name in CACHE)}


def test_caches_after_a_gap_are_not_looked_at(host: Host, room: Path) -> None:
    for index in (0, 1, 3):
        host.cache(index)
    copy(host, room)
    assert sorted(os.listdir(room / CPU / "cache")) == ["index0", "index1"]


def test_no_more_than_eight_caches_are_looked_at(host: Host, room: Path) -> None:
    for index in range(10):
        host.cache(index)
    copy(host, room)
    assert sorted(os.listdir(room / CPU / "cache")) == [f"index{index}" for index in range(8)]


def test_a_host_without_caches_has_an_identity_all_the_same(host: Host, room: Path) -> None:
    copy(host, room)
    assert files(room) == {IDENTITY: "0x00000000410fd0c0\n"}


def test_what_a_host_does_not_say_about_a_cache_is_left_out(host: Host, room: Path) -> None:
    host.cache(0)
    host.cache(1)
    level = host.folder / CPU / "cache/index0/level"
    level.unlink()
    level.mkdir()  # cannot be read, not even by root
    (host.folder / CPU / "cache/index0/size").unlink()
    copy(host, room)
    assert sorted(os.listdir(room / CPU / "cache/index0")) == sorted(set(CACHE) - {"level", "size"})
    assert len(os.listdir(room / CPU / "cache/index1")) == len(CACHE)


def test_a_host_whose_cpu_has_no_identity_is_refused(host: Host, room: Path) -> None:
    (host.folder / IDENTITY).unlink()
    missing = "No such file or directory (os error 2)"
    assert refused(host, room) == f"Failed to read file {host.folder}/{IDENTITY} into a string: {missing}"


# --- whose it is ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_files_are_the_jailed_users_and_the_folders_stay_roots(host: Host, room: Path) -> None:
    host.cache(0)
    cpu_files.copy(str(room), Owner(1234, 5678), str(host.folder))
    for path in room.rglob("*"):
        found = path.lstat()
        is_file = stat.S_ISREG(found.st_mode)
        assert (found.st_uid, found.st_gid) == ((1234, 5678) if is_file else (0, 0)), path
        assert stat.S_IMODE(found.st_mode) == (0o644 if is_file else 0o755), path


def test_a_user_that_cannot_be_given_anything_is_refused(
    host: Host, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(fd: int, uid: int, gid: int) -> None:
        raise PermissionError(1, "")

    monkeypatch.setattr(os, "fchown", denied)
    assert refused(host, room) == f"Failed to change owner for {room}/{IDENTITY}: Operation not permitted (os error 1)"


# --- a room that somebody has prepared --------------------------------------------------------------------------------


def test_folders_may_be_there(host: Host, room: Path) -> None:
    (room / CPU / "cache/index0").mkdir(parents=True)
    host.cache(0)
    copy(host, room)
    assert files(room) == files(host.folder)


def test_a_file_that_is_there_is_not_overwritten(host: Host, room: Path) -> None:
    (room / IDENTITY).parent.mkdir(parents=True)
    (room / IDENTITY).write_text("mine")
    assert refused(host, room) == f"Failed to write to {room}/{IDENTITY}: File exists (os error 17)"
    assert (room / IDENTITY).read_text() == "mine"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_in_a_files_place_leads_to_no_other_file(host: Host, room: Path, tmp_path: Path, is_there: bool) -> None:
    precious = tmp_path / "precious"
    if is_there:
        precious.write_text("precious")
    (room / IDENTITY).parent.mkdir(parents=True)
    (room / IDENTITY).symlink_to(precious)
    assert refused(host, room) == f"Failed to write to {room}/{IDENTITY}: File exists (os error 17)"
    assert precious.exists() == is_there
    assert not is_there or precious.read_text() == "precious"


@pytest.mark.parametrize("part", ["sys", "sys/devices/system", f"{CPU}/cache/index0"])
def test_a_link_in_a_folders_place_leads_out_of_no_room(host: Host, room: Path, tmp_path: Path, part: str) -> None:
    host.cache(0)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (room / part).parent.mkdir(parents=True, exist_ok=True)
    (room / part).symlink_to(elsewhere)
    folder = f"{room}/{CPU}/cache/index0"
    assert refused(host, room) == f"Failed to create directory {folder}: Not a directory (os error 20)"
    assert os.listdir(elsewhere) == []


def test_nothing_stays_open(host: Host, room: Path) -> None:
    host.cache(0)
    (room / IDENTITY).parent.mkdir(parents=True)
    (room / IDENTITY).symlink_to("nowhere")
    before = os.listdir("/proc/self/fd")
    refused(host, room)
    assert len(os.listdir("/proc/self/fd")) == len(before)


# --- when -------------------------------------------------------------------------------------------------------------

UNTIL_THE_DOOR = """
import os, sys
from hibana.jail import cpu_files, namespaces, steps
from hibana.jail.arguments import Limits
from hibana.jail.chroot import Owner

machine, base = sys.argv[1:]
os.uname = lambda: os.uname_result(("Linux", "host", "6.1", "", machine))
cpu_files.copy = lambda root, owner: print("files of the CPU", os.path.relpath(root, base), *owner)

def the_door(root):
    print("the door")
    sys.exit()

namespaces.enter_root = the_door
me = Owner(os.getuid(), os.getgid())
jail = steps.Jail("id", "/bin/true", base, me, None, False, False, None, Limits(), None)
steps.close_up(jail, steps.Clock())
"""


@pytest.mark.parametrize(("machine", "says"), [("x86_64", []), ("aarch64", ["files of the CPU"])])
def test_on_aarch64_the_files_are_copied_before_the_host_is_out_of_sight(
    tmp_path: Path, machine: str, says: list[str]
) -> None:
    command = [sys.executable, "-c", UNTIL_THE_DOOR, machine, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    place = f"true/id/root {ME.uid} {ME.gid}"
    assert done.stdout.splitlines() == [*(f"{line} {place}" for line in says), "the door"]
