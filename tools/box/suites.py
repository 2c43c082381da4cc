"""The tests that run in the box: those of the kvm engine, and, unchanged, the guest tests that also run on soft."""

import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tools.dev import places
from tools.dev.say import Step, say

_LIMIT_S: Final = 900
_PYTEST: Final = ("python", "-m", "pytest", "-v", "-ra", "-p", "no:cacheprovider")
# Without XSAVE: QEMU lets a guest's XSETBV pass, so KVM shows the guest a CPUID leaf 0xD that contradicts it.
_CPU_OF_KERNELS: Final = "EPYC,+svm,-xsave"

LEFT_OUT: Final = (
    # About devtool and the host, not about an engine.
    "tests/guest/test_guest_devtool_run.py",
    # Long, and about endurance; a machine that is emulated twice over would take minutes for each.
    "tests/guest/test_guest_wild.py",
    "tests/guest/test_guest_boot.py::test_twenty_boots_in_a_row",
    "tests/guest/test_guest_boot.py::test_all_memory_is_usable[kvm-1024]",
    "tests/guest/test_guest_boot.py::test_all_memory_is_usable[kvm-3072]",
    # They compute the same here first, for as long.
    "tests/guest/test_guest_programs.py::test_python_computes_what_it_computes_here",
    "tests/guest/test_guest_programs.py::test_perl_computes_what_python_computes_here",
)

# Kernels first: by the time the engine's own tests begin, the host has assembled their guests.
SUITES: Final[Mapping[str, Sequence[str]]] = {
    "guests": (
        *("--cpu", _CPU_OF_KERNELS, "--", "env", "HIBANA_GUEST_ENGINES=kvm", *_PYTEST, "tests/guest"),
        *(word for name in LEFT_OUT for word in ("--deselect", name)),
    ),
    "engine": ("--", *_PYTEST, "tests/contract/engine", "tests/kvm_api", "-k", "kvm"),
}


class Suites:
    """All of them, one after the other, while the caller does something else."""

    def __init__(self) -> None:
        self._failed = 0
        places.BOX.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def finish(self) -> int:
        """Wait, show what they said; give 0 when all is well."""
        with Step("tests in the box: waiting for them"):
            self._thread.join()
        for name in SUITES:
            say(f"tests in the box: {name}")
            print(_log(name).read_text(errors="replace"), flush=True)
        return self._failed

    def _run(self) -> None:
        for name, options in SUITES.items():
            command = [str(places.ROOT / "tools/devtool"), "kvmbox", "--timeout", str(_LIMIT_S), *options]
            with open(_log(name), "wb") as log:
                done = subprocess.run(command, check=False, stdout=log, stderr=subprocess.STDOUT)
            self._failed = self._failed or done.returncode


def _log(suite: str) -> Path:
    return places.BOX / f"{suite}.log"
