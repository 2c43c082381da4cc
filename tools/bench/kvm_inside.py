"""What `bench kvmboot` runs inside the box: boots and exits, and a file with the figures in build/box-out."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tools.bench import exits
from tools.bench.contenders import Contender, Hardware, Hibana, Qemu
from tools.dev import places
from tools.dev.say import Failure
from tools.microvm.job import Job, Output

FIGURES: Final = places.BOX_OUT / "kvmboot.json"
FLOOR: Final = places.BOX_IN / "exit_floor"
_CONTENDERS: Final[Sequence[Contender]] = (Hibana("hibana kvm", "kvm"), Qemu("kvm"))


class Boot(NamedTuple):
    """One microVM, in seconds from the spawn of its process."""

    to_userspace: float
    whole: float


def main(arguments: Sequence[str]) -> int:
    """Measure N boots of each, in turn, and the exits."""
    n = int(arguments[0])
    boots: dict[str, list[Boot]] = {contender.name: [] for contender in _CONTENDERS}
    for number in range(n + 1):
        for contender in _CONTENDERS:
            boot = _boot(contender)
            print(
                f"  {number}/{n} {contender.name:<10} {boot.to_userspace:.2f} s, whole {boot.whole:.2f} s", flush=True
            )
            if number:  # the first of each has found no file in the page cache
                boots[contender.name].append(boot)
    costs = {name: exits.measure(code, FLOOR, n) for name, code in exits.PROGRAMS.items()}
    figures = {
        "boots_s": {name: [boot._asdict() for boot in each] for name, each in boots.items()},
        "exits_ns": costs,
    }
    FIGURES.write_text(json.dumps(figures, indent=2))
    return 0


def _boot(contender: Contender) -> Boot:
    with tempfile.TemporaryDirectory(prefix="hibana-bench-") as name:
        folder = Path(name)
        job = Job(["true"])
        command = contender.command(folder, job.initrd(places.GUEST / "initrd.cpio", folder), Hardware(quiet=True))
        output = Output(job.word)
        to_userspace = 0.0
        spawned = time.monotonic()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            assert process.stdout
            while piece := os.read(process.stdout.fileno(), 1 << 16):
                output.feed(piece)
                if output.began and not to_userspace:
                    to_userspace = time.monotonic() - spawned
        whole = time.monotonic() - spawned
        if output.exit_code != 0:
            raise Failure(f"{contender.name} did not boot")
        return Boot(to_userspace, whole)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
