"""An ext4 image of a folder that is the same, bit for bit, wherever and whenever it is made, and by whomever.

`mke2fs -d` copies owners and times from the folder. Both tell of the host: files belong to whoever unpacked them, and
nobody can set when an inode last changed. `debugfs` sets them afterwards. E2FSPROGS_FAKE_TIME is what both of them take
for the clock. Needs no root.
"""

import os
import subprocess
import uuid
from pathlib import Path
from typing import Final

from tools.guest.debian import DebianError
from tools.guest.tree import ROOT, Tree

_SPARE: Final = 256 << 20
_SLICE: Final = 32 << 20
_SETTINGS: Final = "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"  # or the guest's kernel would do that work
_PATH: Final = f"{os.environ.get('PATH', '/usr/bin')}:/usr/sbin:/sbin"  # where Debian keeps them; not on a user's PATH


def make_image(tree: Tree, image: Path, label: str) -> None:
    """Write a tree into a file system with room to spare; every file is as old as the newest."""
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"hibana/{label}")
    settings = f"{_SETTINGS},hash_seed={identity}"
    image.unlink(missing_ok=True)
    options = ("-q", "-t", "ext4", "-b", "4096", "-m", "0", "-J", "size=8", "-L", label, "-U", str(identity))
    size = f"{_size(tree.root) >> 10}k"
    _run("mke2fs", *options, "-E", settings, "-d", str(tree.root), str(image), size, epoch=tree.newest)
    script = image.with_suffix(".debugfs")
    script.write_text("".join(_changes(tree)))
    _run("debugfs", "-w", "-f", str(script), str(image), epoch=tree.newest)
    script.unlink()


def fill_image(folder: Path, image: Path, spare: int) -> None:
    """Write a folder into a file system as it is; all in it belongs to root."""
    image.unlink(missing_ok=True)
    options = ("-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-E", _SETTINGS, "-d", str(folder))
    _run("mke2fs", *options, str(image), f"{_size(folder, spare) >> 10}k")


def _size(root: Path, spare: int = _SPARE) -> int:
    """Choose a size: the content, and room for what somebody may want to install."""
    blocks = sum(-(-path.lstat().st_size // 4096) for path in root.rglob("*"))
    return -(-(blocks * 4096 + spare) // _SLICE) * _SLICE


def _changes(tree: Tree) -> list[str]:
    """Write the script that makes all inodes alike; also where nothing changes, for the superblock counts writes."""
    lines = []
    moment = f"@{tree.newest}"
    for path in (tree.root, *sorted(tree.root.rglob("*"))):
        name = "/" + str(path.relative_to(tree.root)).removeprefix(".")
        uid, gid = tree.owners.get(name, ROOT)
        fields = {"uid": uid, "gid": gid, "atime": moment, "mtime": moment, "ctime": moment}
        lines += [f'set_inode_field "{name}" {field} {value}\n' for field, value in fields.items()]
    return lines


def _run(*command: str, epoch: int | None = None) -> None:
    clock = {} if epoch is None else {"E2FSPROGS_FAKE_TIME": str(epoch)}
    settings = os.environ | {"PATH": _PATH} | clock
    try:
        done = subprocess.run(command, check=False, env=settings, capture_output=True, text=True)
    except FileNotFoundError:
        raise DebianError(f"{command[0]} is not installed: it comes with e2fsprogs") from None
    # debugfs says what went wrong, and ends with 0.
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("debugfs 1.")]
    if done.returncode or (command[0] == "debugfs" and complaints):
        raise DebianError(f"{command[0]}: {complaints[0] if complaints else f'exit code {done.returncode}'}")
