"""`guest`: build everything below build/guest, or nothing when it is there and up to date.

There are four products: kernel and initramfs images, which nearly every command needs; the root file system, which is
large and made when somebody asks for it; and the same two for the box of `kvmbox`. A product is out of date when its
recipe (files of tools/guest, and the kernel unpacker) has changed. `--update` also asks Debian for newer packages. A
product's record, a JSON file beside it, says what it was made of.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import hibana.boot.unpack
from tools.dev import places, system
from tools.dev.say import Failure, Step
from tools.guest import cpio, modules
from tools.guest.debian import Archive, DebianError
from tools.guest.initramfs import SCRIPT_FILES, script_image, shell_image
from tools.guest.kernel import read_kernel
from tools.guest.rootfs import BOX_PACKAGES, PACKAGES, make_rootfs

_KERNEL: Final = "linux-image-cloud-amd64"
_FOLDER: Final = Path(cpio.__file__).parent

Packages = dict[str, Path]
"""Package files by package name."""


class Product(NamedTuple):
    """Artefacts that are made together."""

    record: str
    artefacts: Sequence[str]
    recipe: Sequence[str]
    """Files of tools/guest."""
    choose: Callable[[Archive], Sequence[str]]
    """Names the packages it is made of, with today's index."""
    make: Callable[[Packages], None]


def main(arguments: Sequence[str]) -> int:
    """Build, and list what there is."""
    if unknown := set(arguments) - {"--update"}:
        raise Failure(f"guest: unknown argument {unknown.pop()!r}; there is only --update")
    for product in PRODUCTS:
        _bring_up_to_date(product, update="--update" in arguments)
        for name in product.artefacts:
            path = places.GUEST / name
            print(f"{path.stat().st_blocks / 2**11:7.1f} MiB  {path.relative_to(places.ROOT)}")
    return 0


def ensure() -> None:
    """Bring kernel and initramfs images up to date."""
    _bring_up_to_date(KERNEL_AND_INITRAMFS)


def ensure_rootfs() -> None:
    """Bring the root file system up to date."""
    _bring_up_to_date(ROOTFS)


def ensure_box() -> None:
    """Bring everything that the box boots up to date."""
    _bring_up_to_date(BOX_INITRAMFS)
    _bring_up_to_date(BOX_ROOTFS)


def _bring_up_to_date(product: Product, update: bool = False) -> None:
    places.GUEST.mkdir(parents=True, exist_ok=True)
    with open(places.GUEST / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = _read_record(product)
        recipe = _recipe_hash(product)
        complete = all((places.GUEST / name).exists() for name in product.artefacts)
        if not update and complete and record.get("recipe") == recipe:
            return
        try:
            debs = _packages(product, {} if update else record.get("packages", {}))
            product.make(debs)
        except DebianError as error:
            raise Failure(str(error)) from error
        made_of = {name: path.name for name, path in sorted(debs.items())}
        _write(product.record, json.dumps({"recipe": recipe, "packages": made_of}, indent=2).encode() + b"\n")


def _packages(product: Product, known: dict[str, str]) -> Packages:
    """Find the packages of the last build, or fetch today's."""
    debs = {name: places.BUILD / "apt" / "debs" / deb for name, deb in known.items()}
    if debs and all(deb.exists() for deb in debs.values()):
        return debs
    archive = Archive(places.BUILD / "apt")
    with Step("Debian's package index: fetching"):
        archive.refresh()
        names = product.choose(archive)
    with Step(f"{len(names)} guest packages: downloading"):
        return archive.download(names)


def _read_record(product: Product) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((places.GUEST / product.record).read_bytes())
    except (OSError, ValueError):
        return {}
    return record


def _recipe_hash(product: Product) -> str:
    digest = hashlib.sha256()
    for path in (*(_FOLDER / name for name in product.recipe), Path(hibana.boot.unpack.__file__), Path(__file__)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _write(name: str, content: bytes) -> None:
    """Replace an artefact in one step: a microVM that is using the old one keeps it."""
    scratch = places.GUEST / f".{name}"
    scratch.write_bytes(content)
    os.replace(scratch, places.GUEST / name)


def _choose_kernel(archive: Archive) -> Sequence[str]:
    return [archive.dependency(_KERNEL, "linux-image-"), "busybox-static", *SCRIPT_FILES]


def _make_kernel_and_initramfs(debs: Packages) -> None:
    with Step("guest kernel: unpacking"):
        kernel = read_kernel(_kernel_deb(debs))
        _write("bzImage", kernel.bzimage)
        _write("vmlinux", kernel.vmlinux)
        _write("config", kernel.config)
    with Step("guest initramfs images: packing"):
        _write("initrd.cpio", shell_image(debs["busybox-static"], kernel.modules).to_bytes())
        _write("script.cpio", script_image(debs, kernel.modules).to_bytes())


def _make_rootfs(debs: Packages) -> None:
    system.need("mke2fs", "debugfs")
    with Step(f"guest root file system: unpacking {len(debs)} packages"):
        _write_rootfs("rootfs.ext4", debs)


def _make_box_initramfs(debs: Packages) -> None:
    with Step("box: packing kernel and initramfs"):
        kernel = read_kernel(_kernel_deb(debs), modules.BOX)
        _write("box.bzImage", kernel.bzimage)
        _write("box.cpio", shell_image(debs["busybox-static"], kernel.modules, "box_init.sh").to_bytes())


def _make_box_rootfs(debs: Packages) -> None:
    with Step(f"box: unpacking {len(debs)} packages"):
        _write_rootfs("box.ext4", debs)


def _kernel_deb(debs: Packages) -> Path:
    return next(path for name, path in debs.items() if name.startswith("linux-image"))


def _write_rootfs(name: str, debs: Packages) -> None:
    scratch = places.GUEST / f".{name}"
    make_rootfs(debs, scratch)
    os.replace(scratch, places.GUEST / name)


KERNEL_AND_INITRAMFS: Final = Product(
    "packages.json",
    ("bzImage", "vmlinux", "config", "initrd.cpio", "script.cpio"),
    (
        *("cpio.py", "debian.py", "kernel.py", "modules.py", "initramfs.py", "python.py"),
        *("init.sh", "phases.sh", "workload.py", "workload.pl"),
    ),
    _choose_kernel,
    _make_kernel_and_initramfs,
)
_ROOTFS_RECIPE: Final = ("debian.py", "ext4.py", "python.py", "rootfs.py", "rootfs_init.sh", "tree.py")
ROOTFS: Final = Product(
    "rootfs.json",
    ("rootfs.ext4",),
    _ROOTFS_RECIPE,
    lambda archive: archive.closure(PACKAGES),
    _make_rootfs,
)
BOX_INITRAMFS: Final = Product(
    "box-packages.json",
    ("box.bzImage", "box.cpio"),
    ("cpio.py", "debian.py", "kernel.py", "modules.py", "initramfs.py", "box_init.sh"),
    lambda archive: [archive.dependency(_KERNEL, "linux-image-"), "busybox-static"],
    _make_box_initramfs,
)
BOX_ROOTFS: Final = Product(
    "box-rootfs.json",
    ("box.ext4",),
    _ROOTFS_RECIPE,
    lambda archive: archive.closure((*PACKAGES, *BOX_PACKAGES)),
    _make_box_rootfs,
)
PRODUCTS: Final = (KERNEL_AND_INITRAMFS, ROOTFS, BOX_INITRAMFS, BOX_ROOTFS)
