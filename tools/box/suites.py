"""The tests that run in the box: those of the kvm engine, and, unchanged, the guest tests that also run on soft."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tools.dev import places
from tools.dev.say import Step

_LIMIT_S: Final = 1800
_SILENCE_S: Final = 300  # a test waits for its guest 120 s at most
_PYTEST: Final = ("python", "-m", "pytest", "-v", "-ra", "-p", "no:cacheprovider", "--durations=15")

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
    # QEMU lets a nested guest's XSETBV pass, so CPUID leaf 0xD does not change as the kernel expects. The kernel warns,
    # and goes on without XSAVE.
    "tests/guest/test_guest_boot.py::test_the_kernel_finds_nothing_to_complain_about",
    # QEMU aborts when a nested guest writes CR8 while an interrupt waits (7.2: cpu_interrupt without its lock).
    "tests/contract/engine/test_engine_interrupts.py::test_cr8_is_the_task_priority",
    # QEMU forgets at an exit that STI has just been executed; the next instruction is HLT, and waits for what has been.
    "tests/contract/engine/test_engine_kicks.py::test_each_interrupt_and_exception_happens_once",
    # QEMU may read anywhere, as the translator of the soft engine did.
    "tests/contract/engine/test_engine_corners.py::test_no_length_of_a_string_is_too_much",
    "tests/contract/engine/test_engine_strings.py",
    # QEMU aborts when a nested guest in protected mode changes stacks: it takes a busy TSS for none.
    "tests/contract/engine/test_engine_modes.py::test_protected_mode_changes_stacks_through_the_tss",
)
_DESELECTED: Final = tuple(word for name in LEFT_OUT for word in ("--deselect", name))

_ENGINE: Final = ("tests/contract/engine", "tests/kvm_api", "tests/fuzz")
_DRIVES: Final = ("tests/guest/test_guest_drive.py", "tests/guest/test_guest_rootfs.py")
_ON_KVM: Final = ("--", "env", "HIBANA_GUEST_ENGINES=kvm", *_PYTEST, *_DESELECTED, "-k", "kvm")

# Two halves that take about as long as each other.
SUITES: Final[Mapping[str, Sequence[str]]] = {
    "guests": (*_ON_KVM, "tests/guest", *(f"--ignore={file}" for file in _DRIVES)),
    "engine-and-drives": (*_ON_KVM, *_ENGINE, *_DRIVES),
}


class Suites:
    """All of them at once, each in a box of its own: a box keeps one processor busy."""

    def __init__(self) -> None:
        places.BOX.mkdir(parents=True, exist_ok=True)
        self._running = {name: _start(name, options) for name, options in SUITES.items()}

    def finish(self) -> int:
        """Wait, show what they said; give 0 when all is well."""
        failed = 0
        for name, process in self._running.items():
            with Step(f"tests in the box: {name}"):
                failed = process.wait() or failed
            print(_log(name).read_text(errors="replace"), flush=True)
        return failed


def _start(name: str, options: Sequence[str]) -> subprocess.Popen[bytes]:
    devtool = ("setpriv", "--pdeathsig", "TERM", str(places.ROOT / "tools/devtool"))
    command = [*devtool, "kvmbox", "--timeout", str(_LIMIT_S), "--silence", str(_SILENCE_S), *options]
    with open(_log(name), "wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def _log(suite: str) -> Path:
    return places.BOX / f"{suite}.log"
