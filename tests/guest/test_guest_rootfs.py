"""A Debian on a drive: it is entered, it is what the recipe says, and what the guest writes stays on its copy."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hibana.config.drive import BlockDeviceConfig
from hibana.sdk.machine import Machine
from tests.guest.conftest import Boot
from tests.guest.microvm import MicroVm, start
from tools.dev import places
from tools.microvm.drive import copy_on_write

IMAGE = places.GUEST / "rootfs.ext4"


@pytest.fixture(scope="module", autouse=True)
def drive() -> Iterator[Path]:
    if not IMAGE.exists():
        pytest.skip("build/guest/rootfs.ext4 is not there: run tools/devtool guest")
    with copy_on_write(IMAGE) as copy:
        yield copy


def with_root(drive: Path, is_read_only: bool = False) -> Callable[[Machine], None]:
    config = BlockDeviceConfig(
        drive_id="rootfs", is_root_device=True, path_on_host=str(drive), is_read_only=is_read_only
    )
    return lambda api: api.put_drive(config)


@pytest.fixture(scope="module")
def vm(engine: str, drive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MicroVm]:
    """Share one microVM: these tests only run programs in it."""
    vm = start(tmp_path_factory.mktemp("rootfs"), engine, prepare=with_root(drive, is_read_only=False))
    yield vm
    vm.stop()


def test_the_guest_runs_from_the_drive(vm: MicroVm) -> None:
    assert vm.run("findmnt -n -o SOURCE,FSTYPE /") == "/dev/vda ext4"
    assert vm.run("cat /proc/1/comm") == "init"
    assert "Debian GNU/Linux 12" in vm.run("cat /etc/os-release")


def test_the_programs_of_tests_and_benchmarks_are_there_and_find_their_libraries(vm: MicroVm) -> None:
    for program in ("python3", "ip -V", "iperf3", "fio", "socat -V", "curl", "ping -V", "apt-get", "dpkg"):
        name, _, flag = program.partition(" ")
        vm.run(f"{name} {flag or '--version'}")


def test_python_computes_and_starts_from_bytecode(vm: MicroVm) -> None:
    assert vm.run("python3 -c 'print(6*7)'") == "42"
    assert vm.run("python3 -v -c 'import json' 2>&1 | grep -c \"code object from .*[.]py'\"", exit_code=1) == "0"


def test_nothing_that_belongs_to_packages_is_missing(vm: MicroVm) -> None:
    assert vm.run("dpkg --audit; dpkg -l | grep -vc '^ii'") == "5", "five lines of headings"
    assert vm.run("apt-get check -q=2") == ""


def test_files_belong_to_whom_they_should(vm: MicroVm) -> None:
    assert vm.run("find / -xdev ! -uid 0 | wc -l") == "0"
    assert vm.run("stat -c '%G %a' /usr/bin/chage /etc/shadow") == "shadow 2755\nroot 640"


def test_what_one_microvm_writes_the_next_one_finds(boot: Boot, tmp_path: Path) -> None:
    with copy_on_write(IMAGE) as drive:
        first = boot(prepare=with_root(drive))
        first.run("echo spark >/root/kept; sync")
        first.send("mount -o remount,ro /; busybox reboot -f\n")
        assert first.exit_code == 0
        second = boot(prepare=with_root(drive))
        assert second.run("cat /root/kept") == "spark"
        second.stop()
    with copy_on_write(IMAGE) as untouched:
        assert boot(prepare=with_root(untouched, is_read_only=True)).run("ls /root") == ""


def test_a_drive_that_is_read_only_stays_as_it_is(boot: Boot, drive: Path) -> None:
    vm = boot(prepare=with_root(IMAGE, is_read_only=True))
    vm.run("touch /root/new", exit_code=1)
    vm.run("touch /tmp/new")
