"""Linux boots in a jail as it does outside."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.guest.jailed import launcher
from tests.guest.microvm import start
from tests.privileges import missing_for_jails

UID = 100_000 + os.getpid()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder in which the jailed user may write; pytest's own belong to root alone."""
    if reason := missing_for_jails():
        pytest.skip(reason)
    with TemporaryDirectory(prefix="jailed-") as path:
        os.chown(path, UID, UID)
        yield Path(path)


def test_linux_boots_for_a_user_without_rights_in_an_empty_room(engine: str, folder: Path) -> None:
    vm = start(folder, engine, vcpus=2, launcher=launcher(folder, UID))
    try:
        assert "Linux hibana" in vm.run("uname -a")
        assert vm.run("nproc") == "2"
        pid = vm.vmm.process.pid
        assert f"\nUid:\t{UID}\t{UID}\t{UID}\t{UID}\n" in Path(f"/proc/{pid}/status").read_text()
        assert not Path(f"/proc/{pid}/root/etc").exists()
        vm.send("reboot -f\n")
        assert vm.exit_code == 0
    finally:
        vm.stop()
