"""Kernel modules for an initramfs: what is picked out of a package, and the index files for modprobe."""

import pytest

from tools.guest.debian import DebianError
from tools.guest.modules import module_files

FOLDER = "/lib/modules/6.1.0"


def module(aliases: tuple[str, ...] = (), depends: str = "") -> bytes:
    facts = [f"alias={alias}" for alias in aliases] + [f"depends={depends}", "name=whatever"]
    return b"\x7fELF code\0" + "".join(f"{fact}\0" for fact in facts).encode() + b"more code"


PACKAGE = {
    "/boot/vmlinuz-6.1.0": b"kernel",
    f"{FOLDER}/modules.order": b"",
    f"{FOLDER}/kernel/net/failover.ko": module(),
    f"{FOLDER}/kernel/net/net_failover.ko": module(depends="failover"),
    f"{FOLDER}/kernel/net/virtio_net.ko": module(("virtio:d00000001v*",), "ring,net_failover,virtio"),
    f"{FOLDER}/kernel/virtio/virtio.ko": module(depends="ring"),
    f"{FOLDER}/kernel/virtio/ring.ko": module(),
    f"{FOLDER}/kernel/char/virtio-rng.ko": module(("virtio:d00000004v*", "another"), "virtio"),
    f"{FOLDER}/kernel/sound/noise.ko": module(),
}


def test_a_module_brings_what_it_needs_and_nothing_else() -> None:
    files = module_files(PACKAGE, ["virtio_net"])
    assert sorted(path.rpartition("/")[2] for path in files) == [
        *("failover.ko", "modules.alias", "modules.dep", "net_failover.ko", "ring.ko", "virtio.ko", "virtio_net.ko"),
    ]
    assert files[f"{FOLDER}/kernel/virtio/ring.ko"] == PACKAGE[f"{FOLDER}/kernel/virtio/ring.ko"]


def test_the_last_of_a_modules_dependencies_can_be_loaded_first() -> None:
    index = module_files(PACKAGE, ["virtio_net"])[f"{FOLDER}/modules.dep"].decode()
    loaded: set[str] = set()
    needs = {"failover": "", "net_failover": "failover", "virtio": "ring", "ring": ""}
    line = next(line for line in index.splitlines() if line.startswith("kernel/net/virtio_net.ko: "))
    for path in reversed(line.split()[1:]):
        name = path.rpartition("/")[2].removesuffix(".ko")
        assert needs[name] in loaded | {""}
        loaded.add(name)
    assert loaded == set(needs)


def test_a_device_finds_its_driver_by_alias() -> None:
    files = module_files(PACKAGE, ["virtio_net", "virtio_rng"])
    assert files[f"{FOLDER}/modules.alias"].decode().splitlines() == [
        "alias virtio:d00000001v* virtio_net",
        "alias virtio:d00000004v* virtio_rng",
        "alias another virtio_rng",
    ]


def test_a_missing_module_is_named() -> None:
    with pytest.raises(DebianError, match="the kernel package has no module virtio_gpu"):
        module_files(PACKAGE, ["virtio_gpu"])
