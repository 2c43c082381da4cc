"""`test`: style, types and all tests. Arguments go to pytest instead of `tests`.

The last lines name every test that was skipped, with the reason. What needs a KVM that runs guest code at speed runs in
two boxes (`kvmbox`), which is work for two processors: their output is shown when they are done. They come after the
first tests, which assemble what the boxes need, too.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from hibana.engine.kvm.engine import KvmEngine
from tools.box.suites import Suites
from tools.dev import build, checkstyle, guest, places, system


def main(arguments: Sequence[str]) -> int:
    """Build what the tests need, then run everything; style is checked even when tests fail."""
    system.need("as", "curl", "debugfs", "git", "ip", "qemu-system-x86_64")
    build.ensure()
    guest.ensure()
    guest.ensure_rootfs()
    _hear_signals_again()
    return _pytest(arguments, {}) if arguments else _everything()


def _everything() -> int:
    # What runs only where the accelerations cannot is tested like what runs by itself.
    engine = ("tests/unit/engine/soft", "tests/contract/engine", "-k", "not kvm")
    plain = _pytest(engine, {"HIBANA_SOFT": "plain"})
    guest.ensure_box()
    suites = Suites()
    try:
        style = checkstyle.main([])
    finally:
        boxed = suites.finish()
    kvm = KvmEngine()
    in_the_box = {"HIBANA_GUEST_ENGINES": "soft"} if kvm.missing() or kvm.emulates() else {}
    return _pytest((), in_the_box) or boxed or plain or style


def _pytest(arguments: Sequence[str], settings: Mapping[str, str]) -> int:
    workers = ("-n", str(min(2, os.cpu_count() or 1)), "--dist", "worksteal")
    command = [str(places.VENV / "bin/python"), "-m", "pytest", "-q", "-ra", *workers, *arguments]
    return subprocess.run(command, check=False, cwd=places.ROOT, env=os.environ | settings).returncode


def _hear_signals_again() -> None:
    """Undo what `nohup` and a shell's `&` do to everything started by them: some tests are about these signals."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
