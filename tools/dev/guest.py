"""`guest`: build everything below build/guest, or nothing when it is there and up to date.

An artefact is out of date when its recipe (the files of tools/guest and the kernel unpacker) has changed. `--update`
also asks Debian for newer packages. packages.json says what the artefacts were made of.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import hibana.boot.unpack
from tools.dev import places
from tools.dev.say import Failure, Step
from tools.guest import cpio
from tools.guest.debian import Archive, DebianError
from tools.guest.initramfs import SCRIPT_FILES, script_image, shell_image
from tools.guest.kernel import read_kernel

_KERNEL: Final = "linux-image-cloud-amd64"
_ARTEFACTS: Final = ("bzImage", "vmlinux", "config", "initrd.cpio", "script.cpio")
_RECORD: Final = places.GUEST / "packages.json"


def main(arguments: Sequence[str]) -> int:
    """Build, and list what there is."""
    if unknown := set(arguments) - {"--update"}:
        raise Failure(f"guest: unknown argument {unknown.pop()!r}; there is only --update")
    ensure(update="--update" in arguments)
    for name in _ARTEFACTS:
        path = places.GUEST / name
        print(f"{path.stat().st_size / 2**20:7.1f} MiB  {path.relative_to(places.ROOT)}")
    return 0


def ensure(update: bool = False) -> None:
    """Bring build/guest up to date."""
    places.GUEST.mkdir(parents=True, exist_ok=True)
    with open(places.GUEST / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        recipe = _recipe_hash()
        if update or not _up_to_date(recipe):
            try:
                _build(recipe, _packages(update))
            except DebianError as error:
                raise Failure(str(error)) from error


def _build(recipe: str, debs: dict[str, Path]) -> None:
    with Step("guest kernel: unpacking"):
        kernel = read_kernel(next(path for name, path in debs.items() if name.startswith("linux-image")))
        _write("bzImage", kernel.bzimage)
        _write("vmlinux", kernel.vmlinux)
        _write("config", kernel.config)
    with Step("guest initramfs images: packing"):
        _write("initrd.cpio", shell_image(debs["busybox-static"]).to_bytes())
        _write("script.cpio", script_image(debs).to_bytes())
    record = {"recipe": recipe, "packages": {name: path.name for name, path in sorted(debs.items())}}
    _write(_RECORD.name, json.dumps(record, indent=2).encode() + b"\n")


def _packages(update: bool) -> dict[str, Path]:
    """Find the packages of the last build, or fetch today's."""
    if not update and (known := _recorded_packages()):
        return known
    archive = Archive(places.BUILD / "apt")
    with Step("Debian's package index: fetching"):
        archive.refresh()
    with Step("guest packages: downloading"):
        kernel = archive.dependency(_KERNEL, "linux-image-")
        return archive.download([kernel, "busybox-static", *SCRIPT_FILES])


def _recorded_packages() -> dict[str, Path]:
    names: dict[str, str] = _record().get("packages", {})
    debs = {name: places.BUILD / "apt" / "debs" / deb for name, deb in names.items()}
    complete = {"busybox-static", *SCRIPT_FILES} <= debs.keys() and all(deb.exists() for deb in debs.values())
    return debs if complete else {}


def _up_to_date(recipe: str) -> bool:
    return _record().get("recipe") == recipe and all((places.GUEST / name).exists() for name in _ARTEFACTS)


def _record() -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(_RECORD.read_bytes())
    except (OSError, ValueError):
        return {}
    return record


def _recipe_hash() -> str:
    digest = hashlib.sha256()
    for path in [*sorted(Path(cpio.__file__).parent.glob("*.*")), Path(hibana.boot.unpack.__file__), Path(__file__)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _write(name: str, content: bytes) -> None:
    """Replace an artefact in one step: a microVM that is using the old one keeps it."""
    scratch = places.GUEST / f".{name}"
    scratch.write_bytes(content)
    os.replace(scratch, places.GUEST / name)
