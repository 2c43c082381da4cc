"""What programs can be run on: an engine, with switches; the first one is what the others are compared with."""

import os
import sys
from typing import Final, NamedTuple

from hibana.engine.soft.fast import switch
from tests.contract.engine.engines import emulates, find
from tests.fuzz.cpus import BOX, EMULATING, REAL, TRANSLATOR

ROOT: Final = os.path.abspath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))


class Variant(NamedTuple):
    """An engine in a certain setting."""

    engine: str
    switches: dict[str, str]

    def missing(self) -> str:
        """Say why it cannot run here; empty when it can."""
        return find(self.engine)[1]

    def cpu(self) -> str:
        """Tell which CPU is behind it."""
        if self.engine != "kvm":
            return TRANSLATOR
        if "HIBANA_BOX" in os.environ:
            return BOX
        return EMULATING if emulates(self.engine) else REAL

    def command(self, mutant: str = "") -> list[str]:
        """Give the command line of a worker."""
        return [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "tests.fuzz.worker",
            self.engine,
            *([mutant] if mutant else []),
        ]

    def environment(self) -> dict[str, str]:
        """Give the environment of a worker: nothing of ours but the switches."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("HIBANA_SOFT")}
        return {**others, "PYTHONPATH": os.pathsep.join((os.path.join(ROOT, "src"), ROOT)), **self.switches}


VARIANTS: Final = {
    "plain": Variant("soft", {switch.VARIABLE: switch.PLAIN}),
    "accelerated": Variant("soft", {switch.VARIABLE: switch.FAST}),
    **{f"without-{unit}": Variant("soft", {switch.VARIABLE: f"{switch.FAST},-{unit}"}) for unit in switch.UNITS},
    "kvm": Variant("kvm", {}),
}
REFERENCE: Final = "plain"
