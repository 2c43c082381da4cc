"""What a test may do on this machine."""

import os
from pathlib import Path
from typing import Final

_NEEDED: Final = {"CAP_CHOWN": 0, "CAP_SETUID": 7, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27}


def missing_for_jails() -> str:
    """Say why no jail can be built here; empty when one can. Root in a container often has less than root."""
    if os.geteuid():
        return "only root can build a jail"
    status = Path("/proc/self/status").read_text()
    has = int(status.partition("CapEff:")[2].split()[0], 16)
    missing = [name for name, bit in _NEEDED.items() if not has >> bit & 1]
    return f"this root has no {', '.join(missing)}, and cannot build a jail" if missing else ""
