"""The kernel modules of an initramfs: those that its devices need, with what they depend on.

Debian's kernels have the whole of virtio as modules. `modprobe` finds them by name or by a device's alias, through
two index files that `depmod` would write; here they are made of what the modules say of themselves.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from tools.guest.debian import DebianError

VIRTIO: Final = ("virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng")
BOX: Final = ("virtio_pci", "virtio_blk", "virtio_console", "kvm_amd", "tun", "loop")

_MODULES: Final = re.compile(r"(/lib/modules/[^/]+)/(kernel/.+\.ko)")
_MODINFO: Final = re.compile(rb"(?<=\0)(alias|depends)=([^\0]*)(?=\0)")


class Module(NamedTuple):
    """One .ko file."""

    path: str
    """Below the folder of index files."""
    content: bytes
    aliases: list[str]
    depends: list[str]


def module_files(package: Mapping[str, bytes], wanted: Iterable[str] = VIRTIO) -> dict[str, bytes]:
    """Pick modules and their dependencies out of a kernel package's files; give them and their index files by path."""
    modules: dict[str, Module] = {}
    folder = ""
    for path, content in package.items():
        if found := _MODULES.fullmatch(path):
            folder = found[1]
            modules[_name(found[2])] = _read(found[2], content)
    try:
        chosen = sorted({name for module in wanted for name in _closure(module, modules)})
    except KeyError as missing:
        raise DebianError(f"the kernel package has no module {missing.args[0]}") from None
    files = {f"{folder}/{modules[name].path}": modules[name].content for name in chosen}
    files[f"{folder}/modules.dep"] = "".join(_dependencies(name, modules) for name in chosen).encode()
    aliases = (f"alias {alias} {name}\n" for name in chosen for alias in modules[name].aliases)
    files[f"{folder}/modules.alias"] = "".join(aliases).encode()
    return files


def _name(path: str) -> str:
    return PurePosixPath(path).stem.replace("-", "_")


def _read(path: str, content: bytes) -> Module:
    facts = [(key.decode(), value.decode()) for key, value in _MODINFO.findall(content)]
    aliases = [value for key, value in facts if key == "alias"]
    depends = [_name(name) for key, value in facts if key == "depends" for name in value.split(",") if name]
    return Module(path, content, aliases, depends)


def _closure(name: str, modules: Mapping[str, Module]) -> list[str]:
    """List a module and everything it needs, each behind all who need it."""
    found = [name]
    for needed in modules[name].depends:
        for each in _closure(needed, modules):
            if each in found:
                found.remove(each)
            found.append(each)
    return found


def _dependencies(name: str, modules: Mapping[str, Module]) -> str:
    """Write a line of modules.dep; `modprobe` loads from its end."""
    own, *needed = (modules[each].path for each in _closure(name, modules))
    return f"{own}: {' '.join(needed)}\n"
