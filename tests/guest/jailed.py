"""Guests in jails: the same test, with the VMM locked up.

The jail shows the folders that a test uses under their own names, so that no path has to change. What the test mounts
lives in a mount namespace of the jailer's own: nothing is left behind, however a run ends.

`HIBANA_JAILED=1 tools/devtool test tests/guest` runs all guest tests so. The VMM then keeps the user root, because the
tests make files and taps for it as root; `test_guest_jailed.py` has a user without rights.
"""

import os
import secrets
import shlex
from pathlib import Path
from tempfile import gettempdir
from typing import Final

from tools.dev import places

EVERYTHING_JAILED: Final = bool(os.environ.get("HIBANA_JAILED"))


def launcher(folder: Path, uid: int = 0) -> list[str]:
    """Write the command that starts a VMM in a jail; words for the VMM follow it."""
    name = f"guest-{secrets.token_hex(4)}"
    base = folder / "jails"
    root = base / "firecracker" / name / "root"
    shown = (Path(gettempdir()), places.GUEST)  # in this order, because the second may lie in the first
    steps = [f"mkdir -p {_q(root)}"]
    for path in shown:
        inside = root / path.relative_to("/")
        steps.append(f"mkdir -p {_q(inside)} && mount --bind {_q(path)} {_q(inside)}")
    script = " && ".join([*steps, 'exec "$@"'])
    return [
        *("unshare", "--mount", "sh", "-c", script, "sh"),
        *(str(places.BIN / "jailer"), "--id", name, "--exec-file", str(places.FIRECRACKER)),
        *("--uid", str(uid), "--gid", str(uid), "--chroot-base-dir", str(base), "--"),
    ]


def _q(path: Path) -> str:
    return shlex.quote(str(path))
