"""`test`: style, types and all tests. Arguments go to pytest instead of `tests`.

The last lines name every test that was skipped, with the reason.
"""

import os
import signal
import subprocess
from collections.abc import Sequence

from tools.dev import build, checkstyle, guest, places, system


def main(arguments: Sequence[str]) -> int:
    """Build what the tests need, then run everything; style is checked even when tests fail."""
    system.need("as", "curl", "debugfs", "ip")
    build.ensure()
    guest.ensure()
    guest.ensure_rootfs()
    _hear_signals_again()
    style = 0 if arguments else checkstyle.main([])
    workers = ("-n", str(min(2, os.cpu_count() or 1)), "--dist", "worksteal")
    pytest = [str(places.VENV / "bin/python"), "-m", "pytest", "-q", "-ra", *workers]
    plain = 0
    if not arguments:
        # What runs only where the accelerations cannot is tested like what runs by itself.
        engine = ("tests/unit/engine/soft", "tests/contract/engine", "-k", "not kvm")
        environment = {**os.environ, "HIBANA_SOFT": "plain"}
        plain = subprocess.run([*pytest, *engine], check=False, cwd=places.ROOT, env=environment).returncode
    tests = subprocess.run([*pytest, *arguments], check=False, cwd=places.ROOT).returncode
    return style or plain or tests


def _hear_signals_again() -> None:
    """Undo what `nohup` and a shell's `&` do to everything started by them: some tests are about these signals."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
