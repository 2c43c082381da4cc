"""The room: what the jailer puts into it, and what it refuses to overwrite."""

import os
from pathlib import Path

import pytest

from hibana.errors import VmmError
from hibana.jail import chroot
from hibana.jail.chroot import Owner

ME = Owner(os.getuid(), os.getgid())


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"code" * 1000)
    path.chmod(0o755)
    return path


@pytest.fixture
def room(tmp_path: Path) -> Path:
    return Path(chroot.make_root(str(tmp_path / "base"), "program", "id"))


def test_the_room_is_where_clients_expect_it_and_may_be_there_before(tmp_path: Path, room: Path) -> None:
    assert room == tmp_path / "base/program/id/root"
    assert chroot.make_root(str(tmp_path / "base"), "program", "id") == str(room)


def test_the_program_is_copied_with_its_mode(program: Path, room: Path) -> None:
    chroot.copy_program(str(program), str(room), ME)
    copy = room / "program"
    assert copy.read_bytes() == program.read_bytes()
    assert copy.stat().st_mode == program.stat().st_mode
    assert copy.stat().st_ino != program.stat().st_ino


def test_a_copy_of_before_is_written_over_but_not_cut(program: Path, room: Path) -> None:
    (room / "program").write_bytes(b"x" * 5000)
    chroot.copy_program(str(program), str(room), ME)
    assert (room / "program").read_bytes() == program.read_bytes() + b"x" * 1000


def refused(program: Path, room: Path) -> str:
    with pytest.raises(VmmError) as caught:
        chroot.copy_program(str(program), str(room), ME)
    return str(caught.value)


def test_neither_a_symbolic_nor_a_hard_link_leads_to_another_file(program: Path, room: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    copy = room / "program"
    copy.symlink_to(precious)
    assert refused(program, room) == f"Failed to open {copy}: Symbolic link loop (os error 40)"
    copy.unlink()
    copy.hardlink_to(precious)
    assert refused(program, room) == f"Detected hard link at: {copy}"
    assert precious.read_bytes() == b"precious"


def test_a_fifo_in_the_programs_place_is_refused_and_not_waited_for(program: Path, room: Path) -> None:
    copy = room / "program"
    os.mkfifo(copy)
    assert refused(program, room) == f"Failed to open {copy}: No such device or address (os error 6)"


def test_a_place_where_no_file_can_be(program: Path, room: Path) -> None:
    (room / "program").mkdir()
    assert refused(program, room) == f"Failed to open {room / 'program'}: Is a directory (os error 21)"
    with pytest.raises(VmmError) as caught:
        chroot.make_root(str(program), "program", "id")
    assert str(caught.value) == f"Failed to create directory {program}/program/id/root: Not a directory (os error 20)"


def test_the_number_of_the_userfaultfd_device_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    misc = tmp_path / "misc"
    monkeypatch.setattr(chroot, "_MISC_DEVICES", str(misc))
    assert chroot.userfaultfd_minor() is None
    misc.write_text("200 tun\n232 kvm\n")
    assert chroot.userfaultfd_minor() is None
    misc.write_text("200 tun\n 17 userfaultfd\n")
    assert chroot.userfaultfd_minor() == 17
